// JSON Schema to grammar: the text that a model writes is then valid by construction.
//
// What is understood (drafts 4 to 2020-12; a schema that needs anything else is refused by name):
//   type (one or several), enum, const, anyOf, oneOf (as anyOf: that only one holds is not enforced), allOf,
//   $ref within the document, $defs, definitions, nullable
//   object   properties, required, additionalProperties; minProperties and maxProperties where no property
//            is named; propertyNames that are any or listed
//   array    items, prefixItems, minItems, maxItems
//   string   minLength, maxLength, pattern (regex.hpp), format (string_formats.hpp; beside a pattern it is
//            a remark)
//   number, integer   minimum, maximum, exclusiveMinimum, exclusiveMaximum (draft 4's too), multipleOf
// The grammar writes a part of what the schema allows: properties in the schema's order, additional ones
// behind them and only where the schema says so (or names no property at all), numbers of bounded length,
// white space as in json_rules.hpp.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "engine_worker/grammar/json_rules.hpp"
#include "engine_worker/grammar/schema_merge.hpp"

namespace llm::engine {

class JsonSchemaCompiler {
  public:
    // Both must outlive this object. `rules` may serve several compilers of one builder.
    JsonSchemaCompiler(GrammarBuilder& builder, JsonRules& rules, const OrderedJson& root)
        : builder_(builder), rules_(rules), root_(root), resolver_(root) {}

    // The rule of the whole schema. Throws GrammarError with one sentence that says where and why.
    int32_t compile();

  private:
    int32_t compile(const OrderedJson& schema, const std::string& step);
    void fill(int32_t rule, const OrderedJson& schema);
    void fill_plain(int32_t rule, const OrderedJson& schema);
    void add_enum(int32_t from, const OrderedJson& schema, int32_t to);
    void add_type(const std::string& type, int32_t from, const OrderedJson& schema, int32_t to);
    void add_object(int32_t from, const OrderedJson& schema, int32_t to);
    std::optional<std::set<std::string>> names_of(const OrderedJson& schema);
    void add_map(int32_t from, const OrderedJson& schema, int32_t value, int32_t to);
    void add_array(int32_t from, const OrderedJson& schema, int32_t to);
    void add_string(int32_t from, const OrderedJson& schema, int32_t to);
    void add_number(int32_t from, const OrderedJson& schema, bool integer, int32_t to);

    GrammarBuilder& builder_;
    JsonRules& rules_;
    const OrderedJson& root_;
    SchemaResolver resolver_;
    std::map<std::string, int32_t> known_;  // rules by the schema's text
    std::vector<std::string> path_;         // to where we are, for messages
};

// The grammar of a whole answer.
Grammar compile_json_schema(const OrderedJson& schema);

}  // namespace llm::engine
