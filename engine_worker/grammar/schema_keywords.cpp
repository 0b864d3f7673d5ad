#include "engine_worker/grammar/schema_keywords.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <string_view>

namespace llm::engine {
namespace {

constexpr int32_t kMaxCount = 1'000'000;  // of characters, items or members

constexpr std::array<std::string_view, 25> kKeywords = {"type",
                                                        "enum",
                                                        "nullable",
                                                        "properties",
                                                        "required",
                                                        "additionalProperties",
                                                        "minProperties",
                                                        "maxProperties",
                                                        "propertyNames",
                                                        "items",
                                                        "prefixItems",
                                                        "additionalItems",
                                                        "minItems",
                                                        "maxItems",
                                                        "minLength",
                                                        "maxLength",
                                                        "pattern",
                                                        "format",
                                                        "minimum",
                                                        "maximum",
                                                        "exclusiveMinimum",
                                                        "exclusiveMaximum",
                                                        "uniqueItems",
                                                        "multipleOf",
                                                        "unevaluatedProperties"};

constexpr std::array<std::string_view, 7> kTypes = {"object",  "array",   "string", "number",
                                                    "integer", "boolean", "null"};

}  // namespace

const OrderedJson* member(const OrderedJson& object, const char* key) {
    const auto at = object.find(key);
    return at == object.end() ? nullptr : &*at;
}

bool has_any(const OrderedJson& schema, std::initializer_list<const char*> keys) {
    return std::any_of(keys.begin(), keys.end(), [&](const char* key) { return schema.contains(key); });
}

int32_t count_of(const OrderedJson& schema, const char* key, int32_t otherwise) {
    const OrderedJson* value = member(schema, key);
    if (value == nullptr) {
        return otherwise;
    }
    const double v = value->is_number() ? value->get<double>() : -1;
    if (v < 0 || v != std::floor(v)) {
        throw GrammarError("'" + std::string(key) + "' must be a whole number that is not negative");
    }
    if (v > kMaxCount) {
        if (otherwise == kUnbounded) {
            return kUnbounded;  // nobody writes that much
        }
        throw GrammarError("'" + std::string(key) + "' above " + std::to_string(kMaxCount) +
                           " is not supported");
    }
    return static_cast<int32_t>(v);
}

const OrderedJson* array_of(const OrderedJson& schema, const char* key) {
    const OrderedJson* value = member(schema, key);
    if (value != nullptr && !value->is_array()) {
        throw GrammarError("'" + std::string(key) + "' must be an array");
    }
    return value;
}

void check_keywords(const OrderedJson& schema) {
    for (const auto& [key, value] : schema.items()) {
        const bool known = std::find(kKeywords.begin(), kKeywords.end(), key) != kKeywords.end();
        const bool neutral = (key == "uniqueItems" && value == OrderedJson(false)) ||
                             (key == "unevaluatedProperties" && value.is_boolean()) ||
                             (key != "uniqueItems" && key != "unevaluatedProperties");
        if (!known || !neutral) {
            throw GrammarError("the keyword '" + key + "' is not supported");
        }
    }
}

std::vector<std::string> types_of(const OrderedJson& schema) {
    std::vector<std::string> out;
    if (const OrderedJson* type = member(schema, "type")) {
        for (const OrderedJson& one : type->is_array() ? *type : OrderedJson::array({*type})) {
            if (!one.is_string()) {
                throw GrammarError("'type' must be a string or an array of strings");
            }
            const auto& name = one.get_ref<const std::string&>();
            if (std::find(kTypes.begin(), kTypes.end(), name) == kTypes.end()) {
                throw GrammarError("the type '" + name + "' does not exist");
            }
            if (std::find(out.begin(), out.end(), name) ==
                out.end()) {  // each once, however long the list is
                out.push_back(name);
            }
        }
    } else {
        if (has_any(schema, {"properties", "required", "additionalProperties", "minProperties",
                             "maxProperties", "propertyNames"})) {
            out.emplace_back("object");
        }
        if (has_any(schema, {"items", "prefixItems", "minItems", "maxItems"})) {
            out.emplace_back("array");
        }
        if (has_any(schema, {"minLength", "maxLength", "pattern", "format"})) {
            out.emplace_back("string");
        }
        if (has_any(schema, {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"})) {
            out.emplace_back("number");
        }
        if (out.empty()) {
            out = {"object", "array", "string", "number", "boolean", "null"};
        }
    }
    if (member(schema, "nullable") != nullptr && schema["nullable"] == OrderedJson(true) &&
        std::find(out.begin(), out.end(), "null") == out.end()) {
        out.emplace_back("null");
    }
    return out;
}

bool has_type(const OrderedJson& value, const std::string& type) {
    switch (value.type()) {
        case OrderedJson::value_t::null:
            return type == "null";
        case OrderedJson::value_t::object:
            return type == "object";
        case OrderedJson::value_t::array:
            return type == "array";
        case OrderedJson::value_t::string:
            return type == "string";
        case OrderedJson::value_t::boolean:
            return type == "boolean";
        case OrderedJson::value_t::number_float:
            return type == "number" ||
                   (type == "integer" && std::floor(value.get<double>()) == value.get<double>());
        default:
            return type == "number" || type == "integer";
    }
}

bool satisfies(const OrderedJson& value, const OrderedJson& schema) {
    if (has_any(schema,
                {"pattern", "format", "properties", "required", "additionalProperties", "items",
                 "prefixItems", "minProperties", "maxProperties", "propertyNames", "minItems", "maxItems"}) &&
        (value.is_structured() || (value.is_string() && has_any(schema, {"pattern", "format"})))) {
        throw GrammarError(
            "'enum' and 'const' cannot be combined with keywords about the inside of their values");
    }
    if (value.is_string()) {
        const auto n = static_cast<int32_t>(code_points(value.get_ref<const std::string&>()).size());
        return n >= count_of(schema, "minLength", 0) && n <= count_of(schema, "maxLength", kUnbounded);
    }
    if (value.is_number()) {
        const auto number = decimal_of(value);
        const auto of = multiple_of(schema);
        const auto low = bound_of(schema, "minimum", "exclusiveMinimum", false);
        const auto high = bound_of(schema, "maximum", "exclusiveMaximum", true);
        const auto keeps = [](const std::optional<Bound>& bound, bool inside, bool outside) {
            return !bound || inside || (!outside && !bound->exclusive);
        };
        return number && (!of || is_multiple(*number, *of)) &&
               keeps(low, low && less(low->value, *number), low && less(*number, low->value)) &&
               keeps(high, high && less(*number, high->value), high && less(high->value, *number));
    }
    return true;
}

std::optional<Decimal> decimal_of(const OrderedJson& number) {
    const bool small = number.is_number_integer() &&
                       !(number.is_number_unsigned() && number.get<uint64_t>() > uint64_t{1} << 62);
    return small ? to_decimal(number.get<int64_t>()) : to_decimal(number.get<double>());
}

std::optional<Multiple> multiple_of(const OrderedJson& schema) {
    const OrderedJson* value = member(schema, "multipleOf");
    if (value == nullptr) {
        return std::nullopt;
    }
    const std::optional<Decimal> decimal = value->is_number() ? decimal_of(*value) : std::nullopt;
    const std::optional<Multiple> out = decimal ? to_multiple(*decimal) : std::nullopt;
    if (!out) {
        throw GrammarError("'multipleOf' must be a number above 0 with at most " +
                           std::to_string(Multiple::kMaxMultipleDigits) +
                           " digits behind the point, and at most " + std::to_string(Multiple::kMaxUnit) +
                           " without the point");
    }
    return out;
}

std::optional<Bound> bound_of(const OrderedJson& schema, const char* inclusive, const char* exclusive,
                              bool upper) {
    std::optional<Bound> out;
    for (const char* key : {inclusive, exclusive}) {
        const OrderedJson* value = member(schema, key);
        if (value == nullptr) {
            continue;
        }
        if (!value->is_number()) {
            throw GrammarError("'" + std::string(key) + "' must be a number");
        }
        const std::optional<Decimal> decimal = decimal_of(*value);
        if (!decimal.has_value() || decimal->fraction.size() > kMaxFractionDigits) {
            throw GrammarError("'" + std::string(key) + "' has more digits than are supported");
        }
        const Bound bound = {*decimal, key == exclusive};
        const bool tighter = !out ||
                             (upper ? less(bound.value, out->value) : less(out->value, bound.value)) ||
                             (!less(bound.value, out->value) && !less(out->value, bound.value));
        if (tighter) {
            out = bound;
        }
    }
    return out;
}

}  // namespace llm::engine
