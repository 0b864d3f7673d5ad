// JSON Schemas that are combined ($ref, allOf, anyOf, oneOf) as a list of plain alternatives.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "engine_worker/grammar/json_rules.hpp"

namespace llm::engine {

class SchemaResolver {
  public:
    // `root` must outlive this object: references point into it.
    explicit SchemaResolver(const OrderedJson& root) : root_(root) {}

    // Schemas without combining keywords and without annotations; whoever satisfies one of them satisfies
    // `schema`. An alternative that is nothing but {"$ref":…} stays one, so that recursion ends there. Empty:
    // nothing satisfies it. GrammarError for what cannot be combined, and when the work is too much.
    std::vector<OrderedJson> alternatives(const OrderedJson& schema) { return expand(schema, true, 0); }

    // The schema that a reference within the document names.
    const OrderedJson& resolve(const std::string& reference) const;

    // Counts a copy of `copied`, text or JSON. GrammarError when all of them are more than kMaxWork values:
    // in a short document references can double at every step, and a schema is copied with each that it
    // stands in.
    void charge(const OrderedJson& copied);

  private:
    static constexpr size_t kMaxWork = 2'000'000;

    std::vector<OrderedJson> expand(const OrderedJson& schema, bool keep_references, int depth);

    const OrderedJson& root_;
    size_t work_ = 0;
};

// True for {"$ref":…} without anything else.
bool is_reference(const OrderedJson& schema);

}  // namespace llm::engine
