// Filters of lists, mappings and other iterables.
#include <algorithm>

#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/python_text.hpp"

namespace llm::engine::jinja {
namespace {

// "a.b.0" as a way into an item: each part a subscript, digits an index.
std::vector<Value> attribute_path(Interpreter& in, const Value& attribute) {
    std::vector<Value> path;
    if (const std::string* text = attribute.string()) {
        for (std::string_view part : split_at(*text, ".", -1, false)) {
            const bool index = is_class(part, TextClass::kDigit);
            path.push_back(index ? Value(parse_integer(part, 10).value_or(0)) : Value(part));
        }
    } else if (!attribute.is_none()) {
        int64_t index;
        if (!attribute.to_integer(index))
            in.fail("attribute must be a name or an index");
        path.push_back(attribute);
    }
    return path;
}

Value follow(Interpreter& in, Value value, const std::vector<Value>& path, const Value* absent = nullptr) {
    for (const Value& part : path) {
        value = in.item(value, part);
        if (absent && value.is_undefined())
            value = *absent;
    }
    return value;
}

// What sort, unique, min and max go by.
class Key {
  public:
    // `several`: attributes may come as "a,b", and the key is a tuple even of one (two missing ones are then
    // equal).
    Key(Interpreter& in, const Value* attribute, bool case_sensitive, bool several = false)
        : in_(in), fold_(!case_sensitive), several_(several) {
        if (!attribute || attribute->is_none()) {
            paths_.emplace_back();
        } else if (const std::string* text = attribute->string(); text && several) {
            for (std::string_view one : split_at(*text, ",", -1, false))
                paths_.push_back(attribute_path(in, Value(one)));
        } else {
            paths_.push_back(attribute_path(in, *attribute));
        }
    }
    Value operator()(const Value& item) const {
        std::vector<Value> keys;
        for (const auto& path : paths_) {
            Value key = follow(in_, item, path);
            keys.push_back(fold_ && key.is_string() ? in_.make_text(lower(*key.string())) : std::move(key));
        }
        return !several_ ? keys[0] : in_.make_list(std::move(keys), List::Kind::kTuple);
    }

  private:
    Interpreter& in_;
    bool fold_;
    bool several_;
    std::vector<std::vector<Value>> paths_;
};

std::vector<std::pair<Value, Value>> keyed(Interpreter& in, const Value& value, const Key& key) {
    std::vector<std::pair<Value, Value>> items;
    for (Value& item : in.iterate(value)) {
        Value k = key(item);
        items.emplace_back(std::move(k), std::move(item));
    }
    // n log n comparisons, each charged in advance as ten bytes.
    in.charge(items.size() * 10 * 16);
    return items;
}

Value do_length(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("length", args, {});
    if (const std::string* text = value.string()) {
        in.charge(text->size());
        return Value(static_cast<int64_t>(length(*text)));
    }
    if (const List* list = value.as_list(); list && list->kind != List::Kind::kGenerator)
        return Value(static_cast<int64_t>(list->items.size()));
    if (const Dict* dict = value.as_dict())
        return Value(static_cast<int64_t>(dict->entries().size()));
    if (value.is_undefined())
        return Value(0);
    in.fail(std::string("object of type '") + value.type_name() + "' has no len()");
}

Value do_first(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("first", args, {});
    const std::vector<Value> items = in.iterate(value);
    return items.empty() ? Value::undefined("No first item, sequence was empty.") : items.front();
}

Value do_last(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("last", args, {});
    const std::vector<Value> items = in.iterate(value);
    return items.empty() ? Value::undefined("No last item, sequence was empty.") : items.back();
}

Value do_join(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("join", args, {"d", "attribute"});
    const std::string separator = p.has(0) ? in.text_of(*p.get(0)) : "";
    const auto path = attribute_path(in, p.has(1) ? *p.get(1) : Value());
    std::string out;
    bool first = true;
    for (const Value& item : in.iterate(value)) {
        out += std::exchange(first, false) ? "" : separator;
        out += in.text_of(follow(in, item, path));
        if (out.size() > in.limits().output)
            in.fail("the template produces too much text");
    }
    return in.make_text(std::move(out));
}

Value do_list(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("list", args, {});
    return in.make_list(in.iterate(value));
}

Value do_reverse(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("reverse", args, {});
    std::vector<Value> items = in.iterate(value);
    std::reverse(items.begin(), items.end());
    if (!value.is_string())
        return in.make_list(std::move(items), List::Kind::kGenerator);
    std::string out;
    for (const Value& item : items)
        out += *item.string();
    return in.make_text(std::move(out));
}

Value do_sort(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("sort", args, {"reverse", "case_sensitive", "attribute"});
    const bool reverse = p.boolean(0, false);
    auto items = keyed(in, value, Key(in, p.get(2), p.boolean(1, false), true));
    std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return reverse ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
    });
    std::vector<Value> out;
    for (auto& item : items)
        out.push_back(std::move(item.second));
    return in.make_list(std::move(out));
}

Value do_unique(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("unique", args, {"case_sensitive", "attribute"});
    Dict seen;
    std::vector<Value> out;
    for (auto& [key, item] : keyed(in, value, Key(in, p.get(1), p.boolean(0, false)))) {
        in.charge(key.is_string() ? 0 : seen.entries().size() * 16);
        if (!seen.find(key))
            out.push_back(std::move(item));
        seen.set(std::move(key), Value());
    }
    return in.make_list(std::move(out), List::Kind::kGenerator);
}

template <int sign>
Value do_extreme(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p(sign < 0 ? "min" : "max", args, {"case_sensitive", "attribute"});
    const auto items = keyed(in, value, Key(in, p.get(1), p.boolean(0, false)));
    if (items.empty())
        return Value::undefined("No aggregated item, sequence was empty.");
    size_t best = 0;
    for (size_t i = 1; i < items.size(); ++i)
        if (compare(items[i].first, items[best].first) * sign > 0)
            best = i;
    return items[best].second;
}

Value do_sum(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("sum", args, {"attribute", "start"});
    const auto path = attribute_path(in, p.has(0) ? *p.get(0) : Value());
    Value total = p.has(1) ? *p.get(1) : Value(0);
    for (const Value& item : in.iterate(value))
        total = in.arithmetic(Operator::kAdd, total, follow(in, item, path));
    return total;
}

// The arguments behind the first `count`, with all named ones.
Arguments rest(const Arguments& args, size_t count) {
    Arguments out;
    for (size_t i = count; i < args.positional.size(); ++i)
        out.positional.push_back(args.positional[i]);
    out.named = args.named;
    return out;
}

// map, select and their like take none, 0 and false for an empty list; others refuse them.
std::vector<Value> items_if_any(Interpreter& in, const Value& value) {
    return value.truthy() ? in.iterate(value) : std::vector<Value>();
}

Value do_map(Interpreter& in, const Value& value, Arguments& args) {
    std::vector<Value> out;
    if (args.positional.empty() && !args.named.empty()) {
        const Parameters p("map", args, {"attribute", "default"});
        const auto path = attribute_path(in, p.need(0));
        const Value* absent = p.has(1) && !p.get(1)->is_none() ? p.get(1) : nullptr;
        for (const Value& item : items_if_any(in, value))
            out.push_back(follow(in, item, path, absent));
        return in.make_list(std::move(out), List::Kind::kGenerator);
    }
    if (args.positional.empty() || !args.positional[0].is_string())
        in.fail("map: needs the name of a filter or attribute=");
    const Filter filter = find_filter(*args.positional[0].string());
    if (!filter)
        in.fail("map: filter '" + *args.positional[0].string() + "' is not supported");
    for (const Value& item : items_if_any(in, value)) {
        Arguments own = rest(args, 1);
        in.charge(0);
        out.push_back(filter(in, item, own));
    }
    return in.make_list(std::move(out), List::Kind::kGenerator);
}

// select, reject, selectattr, rejectattr.
template <bool keep, bool by_attribute>
Value do_select(Interpreter& in, const Value& value, Arguments& args) {
    const size_t first = by_attribute ? 1 : 0;
    if (args.positional.size() < first)
        in.fail("selectattr: missing the name of the attribute");
    const auto path = by_attribute ? attribute_path(in, args.positional[0]) : std::vector<Value>();
    Test test = nullptr;
    if (args.positional.size() > first) {
        const std::string* name = args.positional[first].string();
        test = name ? find_test(*name) : nullptr;
        if (!test)
            in.fail("select: test '" + in.text_of(args.positional[first]) + "' is not supported");
    }
    std::vector<Value> out;
    for (Value& item : items_if_any(in, value)) {
        in.charge(0);
        const Value subject = by_attribute ? follow(in, item, path) : item;
        Arguments own = rest(args, first + 1);
        const bool holds = test ? test(in, subject, own) : subject.truthy();
        if (holds == keep)
            out.push_back(std::move(item));
    }
    return in.make_list(std::move(out), List::Kind::kGenerator);
}

Value do_batch(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("batch", args, {"linecount", "fill_with"});
    const int64_t count = p.integer(0, 0);
    if (count < 1 || count > 1000000)
        in.fail("batch: linecount must be positive");
    std::vector<Value> out, row;
    for (Value& item : in.iterate(value)) {
        if (row.size() == static_cast<size_t>(count))
            out.push_back(in.make_list(std::exchange(row, {})));
        row.push_back(std::move(item));
    }
    if (!row.empty()) {
        if (p.has(1) && !p.get(1)->is_none()) {
            in.charge_memory(static_cast<size_t>(count) * sizeof(Value));
            row.resize(static_cast<size_t>(count), *p.get(1));
        }
        out.push_back(in.make_list(std::move(row)));
    }
    return in.make_list(std::move(out), List::Kind::kGenerator);
}

Value do_slice(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("slice", args, {"slices", "fill_with"});
    const int64_t slices = p.integer(0, 0);
    if (slices < 1 || slices > 1000000)
        in.fail("slice: slices must be positive");
    const std::vector<Value> items = in.iterate(value);
    const size_t count = static_cast<size_t>(slices), each = items.size() / count,
                 longer = items.size() % count;
    in.charge_memory(count * sizeof(List));
    std::vector<Value> out;
    for (size_t i = 0, at = 0; i < count; ++i) {
        const size_t size = each + (i < longer ? 1 : 0);
        std::vector<Value> row(items.begin() + static_cast<std::ptrdiff_t>(at),
                               items.begin() + static_cast<std::ptrdiff_t>(at + size));
        at += size;
        if (p.has(1) && !p.get(1)->is_none() && i >= longer)
            row.push_back(*p.get(1));
        out.push_back(in.make_list(std::move(row)));
    }
    return in.make_list(std::move(out), List::Kind::kGenerator);
}

std::vector<Value> pairs(Interpreter& in, const Dict& dict) {
    std::vector<Value> out;
    for (const auto& [key, value] : dict.entries())
        out.push_back(in.make_list({key, value}, List::Kind::kTuple));
    return out;
}

Value do_items(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("items", args, {});
    if (value.is_undefined())
        return in.make_list({}, List::Kind::kGenerator);
    if (!value.as_dict())
        in.fail("Can only get item pairs from a mapping.");
    return in.make_list(pairs(in, *value.as_dict()), List::Kind::kGenerator);
}

Value do_dictsort(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("dictsort", args, {"case_sensitive", "by", "reverse"});
    if (!value.as_dict())
        in.fail("dictsort: needs a mapping");
    const std::string by = p.text(1, "key");
    if (by != "key" && by != "value")
        in.fail("dictsort: by must be \"key\" or \"value\"");
    const Value position(by == "key" ? 0 : 1);
    auto items =
        keyed(in, in.make_list(pairs(in, *value.as_dict())), Key(in, &position, p.boolean(0, false)));
    const bool reverse = p.boolean(2, false);
    std::stable_sort(items.begin(), items.end(), [&](const auto& a, const auto& b) {
        return reverse ? compare(b.first, a.first) < 0 : compare(a.first, b.first) < 0;
    });
    std::vector<Value> out;
    for (auto& item : items)
        out.push_back(std::move(item.second));
    return in.make_list(std::move(out));
}

Value do_attr(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("attr", args, {"name"});
    const std::string& name = p.text(0);
    if (!value.as_dict())
        return in.attribute(value, name);
    // Of a mapping the attributes only, not the items.
    return find_method(value, name)
        .value_or(Value::undefined("'dict object' has no attribute '" + name + "'"));
}

struct Entry {
    std::string_view name;
    Filter filter;
};
constexpr Entry kFilters[] = {
    {"attr", do_attr},
    {"batch", do_batch},
    {"count", do_length},
    {"dictsort", do_dictsort},
    {"first", do_first},
    {"items", do_items},
    {"join", do_join},
    {"last", do_last},
    {"length", do_length},
    {"list", do_list},
    {"map", do_map},
    {"max", do_extreme<1>},
    {"min", do_extreme<-1>},
    {"reject", do_select<false, false>},
    {"rejectattr", do_select<false, true>},
    {"reverse", do_reverse},
    {"select", do_select<true, false>},
    {"selectattr", do_select<true, true>},
    {"slice", do_slice},
    {"sort", do_sort},
    {"sum", do_sum},
    {"unique", do_unique},
};

}  // namespace

Filter find_sequence_filter(std::string_view name) {
    for (const Entry& entry : kFilters)
        if (entry.name == name)
            return entry.filter;
    return nullptr;
}

}  // namespace llm::engine::jinja
