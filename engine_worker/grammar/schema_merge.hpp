// JSON Schemas that are combined ($ref, allOf, anyOf, oneOf) as a list of plain alternatives.
#pragma once

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
    // nothing satisfies it. GrammarError for what cannot be combined.
    std::vector<OrderedJson> alternatives(const OrderedJson& schema) const { return expand(schema, true, 0); }

    // The schema that a reference within the document names.
    const OrderedJson& resolve(const std::string& reference) const;

  private:
    std::vector<OrderedJson> expand(const OrderedJson& schema, bool keep_references, int depth) const;

    const OrderedJson& root_;
};

// True for {"$ref":…} without anything else.
bool is_reference(const OrderedJson& schema);

}  // namespace llm::engine
