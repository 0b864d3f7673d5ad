// What the keywords of one schema say, each read and checked by itself. Every function throws GrammarError on
// a value that the keyword does not allow or that is not supported.
#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <vector>

#include "engine_worker/grammar/decimal_range.hpp"
#include "engine_worker/grammar/json_rules.hpp"

namespace llm::engine {

// The member of that name; nullptr when there is none.
const OrderedJson* member(const OrderedJson& object, const char* key);

bool has_any(const OrderedJson& schema, std::initializer_list<const char*> keys);

// Throws when the schema has a keyword that is not supported.
void check_keywords(const OrderedJson& schema);

// A count of characters, items or members, 0..1,000,000; `otherwise` where it is absent. A larger one is as
// good as none where `otherwise` is kUnbounded.
int32_t count_of(const OrderedJson& schema, const char* key, int32_t otherwise);

// nullptr when it is absent.
const OrderedJson* array_of(const OrderedJson& schema, const char* key);

// The types that a schema is about; without `type` those that its keywords speak of.
std::vector<std::string> types_of(const OrderedJson& schema);

// Whether a value is of a type by JSON Schema's name for it: 1.0 is an integer too.
bool has_type(const OrderedJson& value, const std::string& type);

// Whether a value of an enum also keeps the other keywords that stand beside it.
bool satisfies(const OrderedJson& value, const OrderedJson& schema);

// Exact for whole numbers; nothing when it is not finite.
std::optional<Decimal> decimal_of(const OrderedJson& number);

// What `multipleOf` says. GrammarError when it cannot be had.
std::optional<Multiple> multiple_of(const OrderedJson& schema);

// The tighter of an inclusive and an exclusive bound; nothing where both are absent. `upper`: of the maximum.
std::optional<Bound> bound_of(const OrderedJson& schema, const char* inclusive, const char* exclusive,
                              bool upper);

}  // namespace llm::engine
