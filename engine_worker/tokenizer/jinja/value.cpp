#include "engine_worker/tokenizer/jinja/value.hpp"

#include <algorithm>
#include <bit>

#include "engine_worker/tokenizer/flat_maps.hpp"
#include "engine_worker/tokenizer/unicode.hpp"
#include "shared/json.hpp"

namespace llm::engine::jinja {
namespace {

constexpr size_t kIndexFrom = 9;  // entries; below, a walk is faster than a hash
constexpr uint32_t kFree = UINT32_MAX;

int checked_depth(int depth) {
    if (depth > kMaxValueDepth)
        throw ValueError("values are nested too deeply");
    return depth;
}

}  // namespace

// ---- Dict

size_t Dict::locate(std::string_view key) const {
    const size_t mask = index_.size() - 1;
    size_t at = hash_bytes(key) & mask;
    while (index_[at] != kFree && *entries_[index_[at]].first.string() != key)
        at = (at + 1) & mask;
    return at;
}

void Dict::reindex() {
    index_.assign(std::bit_ceil(entries_.size() * 4), kFree);
    for (uint32_t i = 0; i < entries_.size(); ++i)
        if (const std::string* text = entries_[i].first.string())
            index_[locate(*text)] = i;
}

const Value* Dict::find(std::string_view key) const {
    if (!index_.empty()) {
        const uint32_t at = index_[locate(key)];
        return at == kFree ? nullptr : &entries_[at].second;
    }
    for (const Entry& entry : entries_)
        if (const std::string* text = entry.first.string(); text && *text == key)
            return &entry.second;
    return nullptr;
}

const Value* Dict::find(const Value& key) const {
    if (const std::string* text = key.string())
        return find(std::string_view(*text));
    for (const Entry& entry : entries_)
        if (equal(entry.first, key))
            return &entry.second;
    return nullptr;
}

void Dict::set(Value key, Value value) {
    depth_ = checked_depth(std::max({depth_, key.depth() + 1, value.depth() + 1}));
    if (const Value* there = find(key)) {
        const_cast<Value&>(*there) = std::move(value);
        return;
    }
    entries_.emplace_back(std::move(key), std::move(value));
    if (entries_.size() < kIndexFrom)
        return;
    if (entries_.size() * 2 > index_.size())
        reindex();
    else if (const std::string* text = entries_.back().first.string())
        index_[locate(*text)] = static_cast<uint32_t>(entries_.size() - 1);
}

// ---- Value

Value::Value(uint64_t value) : data_(value) {
    if (value <= static_cast<uint64_t>(INT64_MAX))
        data_ = static_cast<int64_t>(value);
}

Value Value::list(std::vector<Value> items, List::Kind kind) {
    auto list = std::make_shared<List>();
    for (const Value& item : items)
        list->depth = std::max(list->depth, item.depth() + 1);
    checked_depth(list->depth);
    list->kind = kind;
    list->items = std::move(items);
    return Value(std::shared_ptr<const List>(std::move(list)));
}

Value Value::dict(Dict dict) {
    return Value(std::make_shared<const Dict>(std::move(dict)));
}

Value Value::undefined(std::string message) {
    return Value(Undefined{std::make_shared<const std::string>(std::move(message))});
}

Value Value::markup(std::string text) {
    return Value(Str{std::make_shared<const std::string>(std::move(text)), true});
}

Value Value::from_json(const nlohmann::ordered_json& json, int depth) {
    checked_depth(depth);
    using Type = nlohmann::ordered_json::value_t;
    switch (json.type()) {
        case Type::boolean:
            return Value(json.get<bool>());
        case Type::number_integer:
            return Value(json.get<int64_t>());
        case Type::number_unsigned:
            return Value(json.get<uint64_t>());
        case Type::number_float:
            return Value(json.get<double>());
        case Type::string: {
            const auto& text = json.get_ref<const std::string&>();
            return unicode::is_valid_utf8(text) ? Value(text) : Value(unicode::to_valid_utf8(text));
        }
        case Type::array: {
            std::vector<Value> items;
            items.reserve(json.size());
            for (const auto& item : json)
                items.push_back(from_json(item, depth + 1));
            return list(std::move(items));
        }
        case Type::object: {
            Dict result;
            for (const auto& [key, value] : json.items())
                result.set(Value(key), from_json(value, depth + 1));
            return dict(std::move(result));
        }
        default:
            return Value(None{});
    }
}

bool Value::to_integer(int64_t& out) const {
    if (const auto* i = as<int64_t>())
        out = *i;
    else if (const auto* b = as<bool>())
        out = *b ? 1 : 0;
    else
        return false;
    return true;
}

bool Value::to_number(double& out) const {
    if (const auto* d = as<double>()) {
        out = *d;
        return true;
    }
    if (const uint64_t* large = as_large()) {
        out = static_cast<double>(*large);
        return true;
    }
    int64_t i;
    if (!to_integer(i))
        return false;
    out = static_cast<double>(i);
    return true;
}

bool Value::truthy() const {
    if (const auto* b = as<bool>())
        return *b;
    if (const auto* i = as<int64_t>())
        return *i != 0;
    if (const auto* d = as<double>())
        return *d != 0;
    if (as_large())
        return true;
    if (const std::string* s = string())
        return !s->empty();
    if (const List* l = as_list())
        return l->kind == List::Kind::kGenerator || !l->items.empty();
    if (const Dict* d = as_dict())
        return !d->entries().empty();
    return !is_none() && !is_undefined();
}

const char* Value::type_name() const {
    if (const List* l = as_list()) {
        switch (l->kind) {
            case List::Kind::kList:
                return "list";
            case List::Kind::kTuple:
                return "tuple";
            case List::Kind::kRange:
                return "range";
            case List::Kind::kKeys:
                return "dict_keys";
            case List::Kind::kValues:
                return "dict_values";
            case List::Kind::kItems:
                return "dict_items";
            case List::Kind::kGenerator:
                return "generator";
        }
    }
    return is_none()                     ? "NoneType"
           : is_bool()                   ? "bool"
           : as<int64_t>() || as_large() ? "int"
           : is_float()                  ? "float"
           : is_markup()                 ? "Markup"
           : is_string()                 ? "str"
           : is_undefined()              ? "Undefined"
           : as_dict()                   ? "dict"
           : as_namespace()              ? "Namespace"
           : as_loop()                   ? "LoopContext"
                                         : "function";
}

int Value::depth() const {
    if (const List* l = as_list())
        return l->depth;
    if (const Dict* d = as_dict())
        return d->depth();
    return 0;
}

// ---- Relations

bool equal(const Value& a, const Value& b) {
    if (a.as_large() && b.as_large())
        return *a.as_large() == *b.as_large();
    double x, y;
    if (a.to_number(x) && b.to_number(y)) {
        int64_t i, j;
        return a.to_integer(i) && b.to_integer(j) ? i == j : x == y;
    }
    if (a.string() && b.string())
        return *a.string() == *b.string();
    if (const List* l = a.as_list(), *m = b.as_list(); l && m) {
        if (l == m)
            return true;
        return l->kind == m->kind && l->kind != List::Kind::kGenerator && l->kind != List::Kind::kValues &&
               l->items.size() == m->items.size() &&
               std::equal(l->items.begin(), l->items.end(), m->items.begin(), equal);
    }
    if (const Dict* d = a.as_dict(), *e = b.as_dict(); d && e) {
        if (d->entries().size() != e->entries().size())
            return false;
        return std::all_of(d->entries().begin(), d->entries().end(), [&](const Dict::Entry& entry) {
            const Value* other = e->find(entry.first);
            return other && equal(entry.second, *other);
        });
    }
    if (a.as_namespace() || b.as_namespace())
        return a.as_namespace() == b.as_namespace();
    if (a.as_loop() || b.as_loop())
        return a.as_loop() == b.as_loop();
    if (a.as_callable() || b.as_callable())
        return a.as_callable() == b.as_callable();
    return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

int compare(const Value& a, const Value& b) {
    if (a.as_large() && b.as_large())
        return *a.as_large() < *b.as_large() ? -1 : *a.as_large() > *b.as_large();
    double x, y;
    if (a.to_number(x) && b.to_number(y)) {
        int64_t i, j;
        if (a.to_integer(i) && b.to_integer(j))
            return i < j ? -1 : i > j;
        return x < y ? -1 : x > y;
    }
    if (a.string() && b.string())
        return a.string()->compare(*b.string());  // byte order of UTF-8 is code point order
    const List *l = a.as_list(), *m = b.as_list();
    if (l && m && l->kind == m->kind && (l->kind == List::Kind::kList || l->kind == List::Kind::kTuple)) {
        const size_t common = std::min(l->items.size(), m->items.size());
        for (size_t i = 0; i < common; ++i)
            if (!equal(l->items[i], m->items[i]))
                return compare(l->items[i], m->items[i]);
        return l->items.size() < m->items.size() ? -1 : l->items.size() > m->items.size();
    }
    for (const Value* value : {&a, &b})
        if (const auto* undefined = value->as<Undefined>())
            throw ValueError(*undefined->message);
    throw ValueError(std::string("cannot order '") + a.type_name() + "' and '" + b.type_name() + "'");
}

bool hashable(const Value& value) {
    if (const List* l = value.as_list())
        return l->kind != List::Kind::kList && std::all_of(l->items.begin(), l->items.end(), hashable);
    return !value.as_dict();
}

}  // namespace llm::engine::jinja
