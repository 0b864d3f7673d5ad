#include "engine_worker/grammar/json_schema.hpp"

#include <algorithm>
#include <string_view>
#include <utility>

#include "engine_worker/grammar/regex.hpp"
#include "engine_worker/grammar/schema_keywords.hpp"
#include "engine_worker/grammar/string_formats.hpp"

namespace llm::engine {
namespace {

constexpr size_t kMaxDepth = 100;   // of schemas in schemas, references followed
constexpr int kMaxJsonDepth = 400;  // of the schema's text

// Copies and texts of JSON values recurse; so does this file. Checked without recursion.
bool too_deep(const OrderedJson& root) {
    std::vector<std::pair<const OrderedJson*, int>> todo = {{&root, 0}};
    while (!todo.empty()) {
        const auto [value, depth] = todo.back();
        todo.pop_back();
        if (depth > kMaxJsonDepth) {
            return true;
        }
        if (value->is_structured()) {
            for (const OrderedJson& member : *value) {
                todo.emplace_back(&member, depth + 1);
            }
        }
    }
    return false;
}

}  // namespace

int32_t JsonSchemaCompiler::compile() {
    if (too_deep(root_)) {
        throw GrammarError("it is nested more than " + std::to_string(kMaxJsonDepth) + " deep");
    }
    try {
        return compile(root_, "#");
    } catch (const GrammarError& error) {
        std::string where;
        for (const std::string& step : path_) {
            where += (where.empty() ? "" : "/") + step;
        }
        throw GrammarError("at " + where + ": " + error.what());
    }
}

int32_t JsonSchemaCompiler::compile(const OrderedJson& schema, const std::string& step) {
    path_.push_back(step);
    if (path_.size() > kMaxDepth) {
        throw GrammarError("it is nested more than " + std::to_string(kMaxDepth) + " deep");
    }
    resolver_.charge(schema);
    const auto [at, fresh] =
        known_.try_emplace(schema.dump(-1, ' ', false, OrderedJson::error_handler_t::replace), -1);
    int32_t rule = at->second;
    if (fresh) {
        rule = at->second = builder_.add_rule();
        fill(rule, schema);
    }
    path_.pop_back();
    return rule;
}

void JsonSchemaCompiler::fill(int32_t rule, const OrderedJson& schema) {
    for (const OrderedJson& one : resolver_.alternatives(schema)) {
        if (is_reference(one)) {
            const auto& reference = one["$ref"].get_ref<const std::string&>();
            builder_.end(
                builder_.then(builder_.start(rule), compile(resolver_.resolve(reference), reference)));
        } else {
            fill_plain(rule, one);
        }
    }
}

void JsonSchemaCompiler::fill_plain(int32_t rule, const OrderedJson& schema) {
    check_keywords(schema);
    const int32_t from = builder_.start(rule);
    const int32_t to = builder_.add_node(rule);
    builder_.end(to);
    if (schema.contains("enum")) {
        return add_enum(from, schema, to);
    }
    if (schema.empty()) {
        return builder_.call(from, rules_.any(), to);
    }
    const std::vector<std::string> types = types_of(schema);
    for (const std::string& type : types) {
        if (type != "integer" || std::find(types.begin(), types.end(), "number") == types.end()) {
            add_type(type, from, schema, to);
        }
    }
}

void JsonSchemaCompiler::add_enum(int32_t from, const OrderedJson& schema, int32_t to) {
    const OrderedJson* values = array_of(schema, "enum");
    const std::vector<std::string> types = types_of(schema);
    const bool typed = schema.contains("type");
    for (const OrderedJson& value : *values) {
        const bool right_type = !typed || std::any_of(types.begin(), types.end(), [&](const auto& type) {
            return has_type(value, type);
        });
        if (right_type && satisfies(value, schema)) {
            builder_.epsilon(rules_.literal(from, value), to);
        }
    }
}

void JsonSchemaCompiler::add_type(const std::string& type, int32_t from, const OrderedJson& schema,
                                  int32_t to) {
    if (type == "object") {
        add_object(from, schema, to);
    } else if (type == "array") {
        add_array(from, schema, to);
    } else if (type == "string") {
        add_string(from, schema, to);
    } else if (type == "integer" || type == "number") {
        add_number(from, schema, type == "integer", to);
    } else if (type == "boolean") {
        builder_.call(from, rules_.boolean(), to);
    } else {  // types_of() knows no other
        builder_.call(from, rules_.null(), to);
    }
}

void JsonSchemaCompiler::add_number(int32_t from, const OrderedJson& schema, bool integer, int32_t to) {
    const auto low = bound_of(schema, "minimum", "exclusiveMinimum", false);
    const auto high = bound_of(schema, "maximum", "exclusiveMaximum", true);
    const auto of = multiple_of(schema);
    if (!low && !high && !of) {
        return builder_.call(from, integer ? rules_.integer() : rules_.number(), to);
    }
    add_decimal_range(builder_, from, low, high, !integer, to, of);
}

void JsonSchemaCompiler::add_string(int32_t from, const OrderedJson& schema, int32_t to) {
    const int32_t min = count_of(schema, "minLength", 0);
    const int32_t max = count_of(schema, "maxLength", kUnbounded);
    const OrderedJson* pattern = member(schema, "pattern");
    const OrderedJson* format = member(schema, "format");
    for (const OrderedJson* text : {pattern, format}) {
        if (text != nullptr && !text->is_string()) {
            throw GrammarError("'pattern' and 'format' must be strings");
        }
    }
    if (pattern != nullptr && format != nullptr) {
        const bool covers = pattern_covers_format(pattern->get_ref<const std::string&>(),
                                                  format->get_ref<const std::string&>());
        (covers ? pattern : format) = nullptr;
    }
    if (min > max) {
        return;
    }
    if (pattern == nullptr && format == nullptr) {
        if (min == 0 && max == kUnbounded) {
            return builder_.call(from, rules_.string(), to);
        }
        const int32_t open = builder_.literal(from, "\"");
        const int32_t behind = builder_.add_node(builder_.rule_of(from));
        builder_.repeat(open, rules_.string_char(), min, max, behind);
        return builder_.byte(behind, '"', '"', to);
    }
    std::string_view regex;
    if (pattern != nullptr) {
        regex = pattern->get_ref<const std::string&>();
    } else {
        const auto& name = format->get_ref<const std::string&>();
        regex = format_pattern(name);
        if (regex.empty()) {
            throw GrammarError("the format '" + name + "' is not supported; " + known_formats() + " are");
        }
    }
    const int32_t open = builder_.literal(from, "\"");
    const int32_t behind = builder_.add_node(builder_.rule_of(from));
    add_json_text(builder_, open, parse_regex(regex), min, max, behind);
    builder_.byte(behind, '"', '"', to);
}

void JsonSchemaCompiler::add_array(int32_t from, const OrderedJson& schema, int32_t to) {
    const int32_t rule = builder_.rule_of(from);
    const OrderedJson* prefix = array_of(schema, "prefixItems");
    const OrderedJson* items = member(schema, "items");
    if (items != nullptr && items->is_array()) {  // drafts before 2020-12
        prefix = items;
        items = member(schema, "additionalItems");
    }
    const int32_t min = count_of(schema, "minItems", 0);
    const int32_t max = count_of(schema, "maxItems", kUnbounded);
    const auto n_prefix = static_cast<int32_t>(prefix == nullptr ? 0 : prefix->size());
    if (min > max) {
        return;
    }

    const int32_t open = builder_.literal(from, "[");
    int32_t behind = open;
    const auto close = [&](int32_t node, int32_t n_items) {
        if (n_items >= min) {
            const int32_t last = node == open ? node : builder_.then(node, rules_.space());
            builder_.byte(last, ']', ']', to);
        }
    };
    const auto separator = [&](int32_t node, bool first) {
        return builder_.then(first ? node : builder_.literal(node, ","), rules_.space());
    };
    close(open, 0);
    for (int32_t i = 0; i < std::min(n_prefix, max); ++i) {
        const OrderedJson& item = (*prefix)[static_cast<size_t>(i)];
        behind = builder_.then(separator(behind, i == 0), compile(item, "prefixItems/" + std::to_string(i)));
        close(behind, i + 1);
    }
    const bool closed = items == nullptr && n_prefix > 0 && min <= n_prefix;
    if (max <= n_prefix || closed || (items != nullptr && *items == OrderedJson(false))) {
        return;
    }
    const int32_t item = items == nullptr ? rules_.any() : compile(*items, "items");
    int32_t n_before = n_prefix;
    if (n_prefix == 0) {
        behind = builder_.then(separator(open, true), item);
        n_before = 1;
    }
    const int32_t another = builder_.add_rule();
    builder_.end(builder_.then(separator(builder_.start(another), false), item));
    const int32_t all = builder_.add_node(rule);
    builder_.repeat(behind, another, std::max(min - n_before, n_prefix == 0 ? 0 : 1),
                    max == kUnbounded ? kUnbounded : max - n_before, all);
    builder_.byte(builder_.then(all, rules_.space()), ']', ']', to);
}

// The names that `propertyNames` leaves; nothing: any.
std::optional<std::set<std::string>> JsonSchemaCompiler::names_of(const OrderedJson& schema) {
    const OrderedJson* names = member(schema, "propertyNames");
    if (names == nullptr) {
        return std::nullopt;
    }
    std::set<std::string> out;
    std::vector<OrderedJson> todo = resolver_.alternatives(*names);
    for (size_t i = 0; i < todo.size(); ++i) {
        const OrderedJson one = todo[i];
        if (is_reference(one)) {
            if (todo.size() > kMaxDepth) {
                throw GrammarError("'propertyNames' refers to itself without end");
            }
            const auto more = resolver_.alternatives(resolver_.resolve(one["$ref"].get<std::string>()));
            todo.insert(todo.end(), more.begin(), more.end());
            continue;
        }
        check_keywords(one);
        const std::vector<std::string> types = types_of(one);
        if (std::find(types.begin(), types.end(), "string") == types.end()) {
            continue;
        }
        if (const OrderedJson* values = array_of(one, "enum")) {
            for (const OrderedJson& value : *values) {
                if (value.is_string() && satisfies(value, one)) {
                    out.insert(value.get<std::string>());
                }
            }
        } else if (has_any(one, {"minLength", "maxLength", "pattern", "format"})) {
            throw GrammarError(
                "'propertyNames' with anything but 'enum', 'const' or any string is not supported");
        } else {
            return std::nullopt;
        }
    }
    return out;
}

// Members with any name. `value` is the rule of each.
void JsonSchemaCompiler::add_map(int32_t from, const OrderedJson& schema, int32_t value, int32_t to) {
    const int32_t min = count_of(schema, "minProperties", 0);
    const int32_t max = count_of(schema, "maxProperties", kUnbounded);
    const int32_t open = builder_.literal(from, "{");
    if (min == 0) {
        builder_.byte(open, '}', '}', to);
    }
    if (max == 0 || min > max) {
        return;
    }
    const auto pair = [&](int32_t node) {
        node = builder_.literal(builder_.then(builder_.then(node, rules_.space()), rules_.string()), ":");
        return builder_.then(builder_.then(node, rules_.space()), value);
    };
    const int32_t another = builder_.add_rule();
    builder_.end(pair(builder_.literal(builder_.start(another), ",")));
    const int32_t all = builder_.add_node(builder_.rule_of(from));
    builder_.repeat(pair(open), another, std::max(min - 1, 0), max == kUnbounded ? kUnbounded : max - 1, all);
    builder_.byte(builder_.then(all, rules_.space()), '}', '}', to);
}

// For every named property i: `choose[i]` = a comma or the opening bracket and white space were read, and one
// of the properties from i on comes; `done[i]` = a property was read and those from i on are left.
void JsonSchemaCompiler::add_object(int32_t from, const OrderedJson& schema, int32_t to) {
    const OrderedJson* properties = member(schema, "properties");
    if (properties != nullptr && !properties->is_object()) {
        throw GrammarError("'properties' must be an object");
    }
    const OrderedJson* additional = member(schema, "additionalProperties");
    std::vector<std::string> required;
    if (const OrderedJson* list = array_of(schema, "required")) {
        for (const OrderedJson& name : *list) {
            if (!name.is_string()) {
                throw GrammarError("'required' must be an array of strings");
            }
            required.push_back(name.get<std::string>());
        }
    }
    const std::optional<std::set<std::string>> allowed = names_of(schema);
    const bool none_named = (properties == nullptr || properties->empty()) && required.empty() && !allowed;
    const bool forbidden = additional != nullptr && *additional == OrderedJson(false);
    const int32_t min = count_of(schema, "minProperties", 0);
    if (none_named && !forbidden && (additional != nullptr || properties == nullptr || min > 0)) {
        return add_map(from, schema,
                       additional == nullptr ? rules_.any() : compile(*additional, "additionalProperties"),
                       to);
    }
    if (has_any(schema, {"minProperties", "maxProperties"}) && !none_named) {
        throw GrammarError("'minProperties' and 'maxProperties' beside named properties are not supported");
    }
    if (none_named && min > 0) {
        return;
    }
    struct Property {
        std::string name;
        int32_t value;
        bool required;
    };
    std::vector<Property> all;
    std::set<std::string> names;
    const std::set<std::string> all_required(required.begin(), required.end());
    const OrderedJson nothing_named = OrderedJson::object();
    for (const auto& [name, value] : (properties == nullptr ? nothing_named : *properties).items()) {
        if (!allowed || allowed->contains(name)) {
            all.push_back({name, compile(value, "properties/" + name), all_required.contains(name)});
            names.insert(name);
        }
    }
    // Of a property that has no schema of its own; known after the first, whose reading may be dear.
    std::optional<int32_t> unnamed;
    const auto value_of_unnamed = [&] {
        if (!unnamed) {
            unnamed = additional == nullptr ? rules_.any() : compile(*additional, "additionalProperties");
        }
        return *unnamed;
    };
    for (const std::string& name : required) {
        if (allowed && !allowed->contains(name)) {
            return;
        }
        if (names.insert(name).second) {
            all.push_back({name, value_of_unnamed(), true});
        }
    }
    if (allowed && !forbidden && (additional != nullptr || properties == nullptr)) {
        for (const std::string& name : *allowed) {
            if (!names.contains(name)) {
                all.push_back({name, value_of_unnamed(), false});
            }
        }
    }

    const int32_t rule = builder_.rule_of(from);
    const size_t n = all.size();
    std::vector<int32_t> choose, done;
    for (size_t i = 0; i <= n; ++i) {
        choose.push_back(builder_.add_node(rule));
        done.push_back(builder_.add_node(rule));
    }
    const int32_t open = builder_.literal(from, "{");
    builder_.call(open, rules_.space(), choose[0]);
    const int32_t close = builder_.add_node(rule);
    builder_.byte(builder_.then(close, rules_.space()), '}', '}', to);
    bool rest_optional = true;
    for (size_t i = n + 1; i-- > 0;) {
        if (i < n) {
            const int32_t colon = builder_.literal(choose[i], json_quoted(all[i].name) + ":");
            builder_.call(builder_.then(colon, rules_.space()), all[i].value, done[i + 1]);
            if (!all[i].required) {
                builder_.epsilon(choose[i], choose[i + 1]);
            }
            rest_optional = rest_optional && !all[i].required;
        }
        builder_.call(builder_.literal(done[i], ","), rules_.space(), choose[i]);
        if (rest_optional) {
            builder_.epsilon(done[i], close);
        }
    }
    if (rest_optional) {
        builder_.byte(open, '}', '}', to);
    }
    if (additional != nullptr && !forbidden && !allowed) {
        const int32_t colon = builder_.literal(rules_.other_name(choose[n], names), ":");
        builder_.call(builder_.then(colon, rules_.space()), compile(*additional, "additionalProperties"),
                      done[n]);
    }
}

Grammar compile_json_schema(const OrderedJson& schema) {
    GrammarBuilder builder;
    JsonRules rules(builder);
    const int32_t root = JsonSchemaCompiler(builder, rules, schema).compile();
    return builder.finish(root);
}

}  // namespace llm::engine
