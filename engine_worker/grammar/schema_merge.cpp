#include "engine_worker/grammar/schema_merge.hpp"

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "engine_worker/grammar/string_formats.hpp"

namespace llm::engine {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMaxAlternatives = 256;
constexpr size_t kMaxComparisons = 4'000'000;
constexpr size_t kMaxKeywords = 1'000;  // each is looked for among those before it

// Keywords that say nothing about which values are valid.
constexpr std::array<std::string_view, 21> kAnnotations = {
    "title",       "description",      "default",         "examples",      "example",
    "deprecated",  "readOnly",         "writeOnly",       "$schema",       "$id",
    "id",          "$comment",         "$defs",           "definitions",   "$anchor",
    "$vocabulary", "contentMediaType", "contentEncoding", "contentSchema", "discriminator",
    "externalDocs"};

bool is_annotation(std::string_view key, const OrderedJson& value) {
    return key.starts_with("x-") ||
           (key == "format" && value.is_string() && format_is_remark(value.get_ref<const std::string&>())) ||
           std::find(kAnnotations.begin(), kAnnotations.end(), key) != kAnnotations.end();
}

// Values in `json`, long texts counted for as many. The compiler has checked how deep the document is.
size_t n_values(const OrderedJson& json) {
    constexpr size_t kTextOfOne = 64;
    size_t count = 1;
    if (json.is_string()) {
        count += json.get_ref<const std::string&>().size() / kTextOfOne;
    } else if (json.is_structured()) {
        for (const auto& [key, member] : json.items()) {
            count += key.size() / kTextOfOne + n_values(member);
        }
    }
    return count;
}

OrderedJson both(const OrderedJson& a, const OrderedJson& b) {
    if (a == b || b == OrderedJson(true)) {
        return a;
    }
    if (a == OrderedJson(true)) {
        return b;
    }
    return {{"allOf", {a, b}}};
}

OrderedJson as_list(const OrderedJson& value) {
    return value.is_array() ? value : OrderedJson::array({value});
}

bool contains(const OrderedJson& list, const OrderedJson& value) {
    return std::find(list.begin(), list.end(), value) != list.end();
}

// Every value of one list is looked for in the other.
void refuse_long(const char* key, const OrderedJson& a, const OrderedJson& b) {
    if (a.size() * b.size() > kMaxComparisons) {
        throw GrammarError("two '" + std::string(key) + "' of so many values cannot be combined");
    }
}

OrderedJson common_types(const OrderedJson& a, const OrderedJson& b) {
    OrderedJson out = OrderedJson::array();
    const OrderedJson of_a = as_list(a), of_b = as_list(b);
    refuse_long("type", of_a, of_b);
    for (const OrderedJson& type : of_a) {
        if (contains(of_b, type) || (type == "integer" && contains(of_b, "number"))) {
            out.push_back(type);
        } else if (type == "number" && contains(of_b, "integer")) {
            out.push_back("integer");
        }
    }
    return out;
}

// Properties that only one side names must also satisfy what the other says about those it does not name.
// `out` has none of them yet.
void add_properties(OrderedJson& out, const OrderedJson& from, const OrderedJson* others,
                    const OrderedJson* others_additional) {
    auto& members = out.get_ref<OrderedJson::object_t&>();
    for (const auto& [name, schema] : from.items()) {
        if (others != nullptr && others->contains(name)) {
            members.push_back({name, both(schema, (*others)[name])});
        } else {
            members.push_back(
                {name, others_additional == nullptr ? schema : both(schema, *others_additional)});
        }
    }
}

const OrderedJson* member(const OrderedJson& object, const char* key) {
    const auto at = object.find(key);
    return at == object.end() ? nullptr : &*at;
}

void merge_properties(OrderedJson& out, const OrderedJson& a, const OrderedJson& b) {
    const OrderedJson* of_a = member(a, "properties");
    const OrderedJson* of_b = member(b, "properties");
    if (of_a != nullptr && of_b != nullptr) {
        refuse_long("properties", *of_a, *of_b);
    }
    OrderedJson properties = OrderedJson::object();
    if (of_a != nullptr && of_a->is_object()) {
        add_properties(properties, *of_a, of_b, member(b, "additionalProperties"));
    }
    if (of_b != nullptr && of_b->is_object()) {
        OrderedJson rest = OrderedJson::object();
        auto& members = rest.get_ref<OrderedJson::object_t&>();
        for (const auto& [name, schema] : of_b->items()) {
            if (!properties.contains(name)) {
                members.push_back({name, schema});
            }
        }
        add_properties(properties, rest, nullptr, member(a, "additionalProperties"));
    }
    out["properties"] = std::move(properties);
}

// What an array holds: one schema per place at its start, and one for all behind them (null: anything).
struct Items {
    const OrderedJson* places;  // null: none
    const OrderedJson* rest;

    explicit Items(const OrderedJson& schema)
        : places(member(schema, "prefixItems")), rest(member(schema, "items")) {
        if (rest != nullptr && rest->is_array()) {  // drafts before 2020-12
            places = rest;
            rest = member(schema, "additionalItems");
        }
    }
    bool any() const { return places != nullptr || rest != nullptr; }
    size_t n_places() const { return places == nullptr || !places->is_array() ? 0 : places->size(); }
    OrderedJson at(size_t i) const {
        return i < n_places() ? (*places)[i] : rest == nullptr ? OrderedJson(true) : *rest;
    }
};

void merge_items(OrderedJson& out, const Items& a, const Items& b) {
    for (const char* key : {"prefixItems", "items", "additionalItems"}) {
        out.erase(key);
    }
    for (size_t i = 0; i < std::max(a.n_places(), b.n_places()); ++i) {
        out["prefixItems"].push_back(both(a.at(i), b.at(i)));
    }
    if (a.rest != nullptr || b.rest != nullptr) {
        const size_t behind = std::max(a.n_places(), b.n_places());
        out["items"] = both(a.at(behind), b.at(behind));
    }
}

// Both `a` and `b`; nothing when they exclude each other.
std::optional<OrderedJson> merge(const OrderedJson& a, const OrderedJson& b) {
    OrderedJson out = a;
    for (const auto& [key, value] : b.items()) {
        if (!a.contains(key)) {
            out[key] = value;
            continue;
        }
        const OrderedJson& known = a[key];
        const bool numbers = known.is_number() && value.is_number();
        if (known == value || key == "properties" || key == "prefixItems" || key == "items" ||
            key == "additionalItems") {
            continue;  // or below
        }
        if (key == "type") {
            out[key] = common_types(known, value);
            if (out[key].empty()) {
                return std::nullopt;
            }
        } else if (key == "enum" && known.is_array() && value.is_array()) {
            refuse_long("enum", known, value);
            OrderedJson values = OrderedJson::array();
            std::copy_if(known.begin(), known.end(), std::back_inserter(values),
                         [&v = value](const OrderedJson& one) { return contains(v, one); });
            out[key] = std::move(values);
        } else if (key == "required" && known.is_array() && value.is_array()) {
            refuse_long("required", known, value);
            std::copy_if(value.begin(), value.end(), std::back_inserter(out[key]),
                         [&known](const OrderedJson& one) { return !contains(known, one); });
        } else if (numbers && (key.starts_with("min") || key == "exclusiveMinimum")) {
            out[key] = known.get<double>() < value.get<double>() ? value : known;
        } else if (numbers && (key.starts_with("max") || key == "exclusiveMaximum")) {
            out[key] = known.get<double>() > value.get<double>() ? value : known;
        } else if (key == "additionalProperties") {
            out[key] = both(known, value);
        } else {
            throw GrammarError("two different '" + key + "' cannot be combined");
        }
    }
    if (a.contains("properties") || b.contains("properties")) {
        merge_properties(out, a, b);
    }
    if (const Items of_a(a), of_b(b); of_a.any() && of_b.any()) {
        merge_items(out, of_a, of_b);
    }
    return out;
}

// Draft 4, and with it OpenAPI 3.0: the keyword says whether the other one's bound is left out. Made what
// later drafts say, so that bounds of several schemas can be compared.
void renew_bound(OrderedJson& schema, const char* inclusive, const char* exclusive) {
    const OrderedJson* left_out = member(schema, exclusive);
    if (left_out == nullptr || !left_out->is_boolean()) {
        return;
    }
    const OrderedJson* bound = member(schema, inclusive);
    if (*left_out == OrderedJson(true) && bound != nullptr) {
        schema[exclusive] = OrderedJson(*bound);
        schema.erase(inclusive);
    } else {
        schema.erase(exclusive);
    }
}

std::string unescaped(std::string_view part) {
    std::string out;
    const auto digit = [](char c) {
        return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
    };
    for (size_t i = 0; i < part.size(); ++i) {
        if (part[i] == '~' && i + 1 < part.size() && (part[i + 1] == '0' || part[i + 1] == '1')) {
            out += part[++i] == '0' ? '~' : '/';
        } else if (part[i] == '%' && i + 2 < part.size() && digit(part[i + 1]) >= 0 &&
                   digit(part[i + 2]) >= 0) {
            out += static_cast<char>(digit(part[i + 1]) * 16 + digit(part[i + 2]));
            i += 2;
        } else {
            out += part[i];
        }
    }
    return out;
}

}  // namespace

bool is_reference(const OrderedJson& schema) {
    return schema.is_object() && schema.size() == 1 && schema.contains("$ref");
}

const OrderedJson& SchemaResolver::resolve(const std::string& reference) const {
    if (!reference.starts_with('#')) {
        throw GrammarError("the reference '" + reference + "' leaves the schema; only '#/…' is supported");
    }
    const OrderedJson* at = &root_;
    std::string_view rest = std::string_view(reference).substr(1);
    while (!rest.empty()) {
        if (!rest.starts_with('/')) {
            throw GrammarError("the reference '" + reference + "' is not supported; write '#/$defs/…'");
        }
        const size_t end = std::min(rest.find('/', 1), rest.size());
        const std::string key = unescaped(rest.substr(1, end - 1));
        rest.remove_prefix(end);
        if (at->is_object() && at->contains(key)) {
            at = &(*at)[key];
        } else if (at->is_array() && !key.empty() && key.size() < 6 &&
                   key.find_first_not_of("0123456789") == std::string::npos && std::stoul(key) < at->size()) {
            at = &(*at)[std::stoul(key)];
        } else {
            throw GrammarError("the reference '" + reference + "' names nothing");
        }
    }
    return *at;
}

void SchemaResolver::charge(const OrderedJson& copied) {
    constexpr size_t kEach = 8;  // of the bookkeeping around it
    work_ += kEach + n_values(copied);
    if (work_ > kMaxWork) {
        throw GrammarError("it is too large, or its combinations are too many");
    }
}

std::vector<OrderedJson> SchemaResolver::expand(const OrderedJson& schema, bool keep_references, int depth) {
    charge(nullptr);
    if (schema.is_boolean()) {
        return schema.get<bool>() ? std::vector<OrderedJson>{OrderedJson::object()}
                                  : std::vector<OrderedJson>();
    }
    if (!schema.is_object()) {
        throw GrammarError("a schema must be an object or a boolean");
    }
    if (depth > kMaxDepth) {
        throw GrammarError("it refers to itself without end, or is nested too deeply");
    }
    if (schema.size() > kMaxKeywords) {
        throw GrammarError("it has more than " + std::to_string(kMaxKeywords) + " keywords");
    }
    OrderedJson base = OrderedJson::object();
    std::vector<std::pair<std::string, const OrderedJson*>> combined;
    for (const auto& [key, value] : schema.items()) {
        if (key == "$ref" || key == "allOf" || key == "anyOf" || key == "oneOf") {
            combined.emplace_back(key, &value);
        } else if (key == "const") {
            base["enum"] = OrderedJson::array({value});
        } else if (!is_annotation(key, value) &&
                   !(key == "enum" && schema.contains("const"))) {  // it holds the constant
            charge(value);
            base[key] = value;
        }
    }
    if (schema.contains("const") && schema.contains("enum") &&
        (!schema["enum"].is_array() || !contains(schema["enum"], schema["const"]))) {
        return {};
    }
    renew_bound(base, "minimum", "exclusiveMinimum");
    renew_bound(base, "maximum", "exclusiveMaximum");
    const bool alone =
        base.empty() && combined.size() == 1 &&
        (combined[0].first != "allOf" || (combined[0].second->is_array() && combined[0].second->size() == 1));
    const bool keep = keep_references && alone;
    if (keep && combined[0].first == "$ref" && combined[0].second->is_string()) {
        return {{{"$ref", *combined[0].second}}};
    }
    std::vector<OrderedJson> out = {std::move(base)};
    const auto restrict_to = [&](const std::vector<OrderedJson>& options) {
        if (out.size() == 1 && out[0].empty()) {
            out = options;
            return;
        }
        std::vector<OrderedJson> product;
        for (const OrderedJson& one : out) {
            for (const OrderedJson& option : options) {
                charge(one);
                charge(option);
                if (auto merged = merge(one, option)) {
                    product.push_back(std::move(*merged));
                }
                if (product.size() > kMaxAlternatives) {
                    throw GrammarError("its combinations are too many");
                }
            }
        }
        out = std::move(product);
    };
    for (const auto& [key, value] : combined) {
        if (key == "$ref") {
            if (!value->is_string()) {
                throw GrammarError("'$ref' must be a string");
            }
            restrict_to(expand(resolve(value->get_ref<const std::string&>()), false, depth + 1));
            continue;
        }
        if (!value->is_array() || value->empty()) {
            throw GrammarError("'" + key + "' must be a non-empty array");
        }
        std::vector<OrderedJson> any_of;
        for (const OrderedJson& part : *value) {
            std::vector<OrderedJson> options = expand(part, keep, depth + 1);
            if (key == "allOf") {
                restrict_to(options);
            } else {
                std::move(options.begin(), options.end(), std::back_inserter(any_of));
                if (any_of.size() > kMaxAlternatives) {
                    throw GrammarError("its combinations are too many");
                }
            }
        }
        if (key != "allOf") {
            restrict_to(any_of);
        }
    }
    return out;
}

}  // namespace llm::engine
