// Methods of strings, dicts and lists, and the attributes of `loop`.
#include <algorithm>

#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/python_format.hpp"
#include "engine_worker/tokenizer/jinja/python_text.hpp"

namespace llm::engine::jinja {
namespace {

using Method = Value (*)(Interpreter&, const Value& self, Arguments& args);

Value text_like(Interpreter& in, const Value& self, std::string_view text) {
    return in.make_text(std::string(text), self.is_markup());
}

Value text_list(Interpreter& in, const Value& self, const std::vector<std::string_view>& parts,
                List::Kind kind = List::Kind::kList) {
    std::vector<Value> items;
    for (std::string_view part : parts)
        items.push_back(text_like(in, self, part));
    return in.make_list(std::move(items), kind);
}

template <std::string (*function)(std::string_view)>
Value map_text(Interpreter& in, const Value& self, Arguments& args) {
    Parameters("method", args, {});
    return text_like(in, self, function(*self.string()));
}

template <TextClass wanted>
Value classify(Interpreter& in, const Value& self, Arguments& args) {
    Parameters("method", args, {});
    in.charge(self.string()->size());
    return Value(is_class(*self.string(), wanted));
}

template <bool left, bool right>
Value strip(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("strip", args, {"chars"});
    std::string_view text = *self.string();
    const bool chars = p.has(0) && !p.get(0)->is_none();
    if (right)
        text = chars ? right_strip(text, p.text(0)) : right_strip(text);
    if (left)
        text = chars ? left_strip(text, p.text(0)) : left_strip(text);
    return text_like(in, self, text);
}

template <bool from_right>
Value split(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("split", args, {"sep", "maxsplit"});
    const int64_t limit = p.integer(1, -1);
    const std::string_view text = *self.string();
    in.charge(text.size());
    if (!p.has(0) || p.get(0)->is_none())
        return text_list(in, self, split_space(text, limit, from_right));
    if (p.text(0).empty())
        in.fail("empty separator");
    return text_list(in, self, split_at(text, p.text(0), limit, from_right));
}

Value splitlines(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("splitlines", args, {"keepends"});
    in.charge(self.string()->size());
    return text_list(in, self, split_lines(*self.string(), p.boolean(0, false)));
}

template <bool from_right>
Value partition(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("partition", args, {"sep"});
    const std::string_view text = *self.string(), separator = p.text(0);
    if (separator.empty())
        in.fail("empty separator");
    const size_t at = from_right ? text.rfind(separator) : text.find(separator);
    if (at == std::string_view::npos)
        return from_right ? text_list(in, self, {"", "", text}, List::Kind::kTuple)
                          : text_list(in, self, {text, "", ""}, List::Kind::kTuple);
    return text_list(in, self, {text.substr(0, at), separator, text.substr(at + separator.size())},
                     List::Kind::kTuple);
}

// The part of `text` that start and end (code points, negative from the end) leave; `offset` = where it
// begins.
std::string_view window(const Parameters& p, std::string_view text, size_t& offset) {
    offset = 0;
    if (!p.has(1) && !p.has(2))
        return text;
    const auto size = static_cast<int64_t>(length(text));
    auto place = [&](size_t index, int64_t absent) {
        if (!p.has(index) || p.get(index)->is_none())
            return absent;
        const int64_t at = p.integer(index, absent);
        return std::clamp<int64_t>(at < 0 ? at + size : at, 0, size);
    };
    const int64_t begin = place(1, 0), end = std::max(begin, place(2, size));
    offset = static_cast<size_t>(begin);
    const size_t from = byte_offset(text, offset);
    return text.substr(from, byte_offset(text, static_cast<size_t>(end)) - from);
}

template <bool at_end>
Value affix(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p(at_end ? "endswith" : "startswith", args, {"prefix", "start", "end"});
    size_t offset;
    const std::string_view text = window(p, *self.string(), offset);
    auto matches = [&](const Value& affix_value) {
        if (!affix_value.string())
            in.fail(std::string("startswith/endswith: needs a string, not ") + affix_value.type_name());
        return at_end ? text.ends_with(*affix_value.string()) : text.starts_with(*affix_value.string());
    };
    if (const List* list = p.need(0).as_list(); list && list->kind == List::Kind::kTuple)
        return Value(std::any_of(list->items.begin(), list->items.end(), matches));
    return Value(matches(p.need(0)));
}

// find, rfind (-1 when absent), index and rindex (an error then).
template <bool from_right, bool must>
Value find(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("find", args, {"sub", "start", "end"});
    in.charge(self.string()->size());
    size_t offset;
    const std::string_view text = window(p, *self.string(), offset);
    const size_t at = from_right ? text.rfind(p.text(0)) : text.find(p.text(0));
    if (at == std::string_view::npos && must)
        in.fail("substring not found");
    return Value(at == std::string_view::npos ? int64_t{-1}
                                              : static_cast<int64_t>(offset + length(text.substr(0, at))));
}

Value count_text(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("count", args, {"sub", "start", "end"});
    in.charge(self.string()->size());
    size_t offset;
    const std::string_view text = window(p, *self.string(), offset), part = p.text(0);
    if (part.empty())
        return Value(static_cast<int64_t>(length(text) + 1));
    int64_t count = 0;
    for (size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size())
        ++count;
    return Value(count);
}

Value replace_text(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("replace", args, {"old", "new", "count"});
    const bool escape = self.is_markup() && !p.need(1).is_markup();
    const auto out = replace(*self.string(), p.text(0), escape ? escape_html(p.text(1)) : p.text(1),
                             p.integer(2, -1), in.limits().output);
    if (!out)
        in.fail("the template produces too much text");
    return text_like(in, self, *out);
}

Value join_text(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("join", args, {"iterable"});
    std::string out;
    bool first = true;
    for (const Value& item : in.iterate(p.need(0))) {
        if (!item.string())
            in.fail(std::string("join: expected strings, found ") + item.type_name());
        out += std::exchange(first, false) ? "" : *self.string();
        out += self.is_markup() && !item.is_markup() ? escape_html(*item.string()) : *item.string();
        if (out.size() > in.limits().output)
            in.fail("the template produces too much text");
    }
    return text_like(in, self, out);
}

template <char side>
Value justify(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("justify", args, {"width", "fillchar"});
    p.need(0);
    const auto width = static_cast<size_t>(std::clamp<int64_t>(p.integer(0, 0), 0, 1 << 20));
    const std::string fill = p.text(1, " ");
    if (length(fill) != 1)
        in.fail("the fill character must be exactly one character long");
    return text_like(in, self, pad(*self.string(), width, fill, side));
}

Value zfill(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("zfill", args, {"width"});
    const auto width = static_cast<size_t>(std::clamp<int64_t>(p.integer(0, 0), 0, 1 << 20));
    const std::string& text = *self.string();
    const bool sign = !text.empty() && (text[0] == '-' || text[0] == '+');
    const std::string digits =
        pad(std::string_view(text).substr(sign), width - (sign && width > 0), "0", 'r');
    return text_like(in, self, text.substr(0, sign) + digits);
}

template <bool at_end>
Value remove_affix(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("removeprefix", args, {"prefix"});
    const std::string& part = p.text(0);
    std::string_view text = *self.string();
    if (!at_end && text.starts_with(part))
        text.remove_prefix(part.size());
    if (at_end && text.ends_with(part))
        text.remove_suffix(part.size());
    return text_like(in, self, text);
}

// str.format with {} {0} {name}, !r and !s. What stands behind a colon, a dot or a bracket is not supported.
Value format_text(Interpreter& in, const Value& self, Arguments& args) {
    const std::string& format = *self.string();
    std::string out;
    size_t automatic = 0;
    for (size_t at = 0; at < format.size(); ++at) {
        const char c = format[at];
        if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c) {
            out += c;
            ++at;
            continue;
        }
        if (c == '}')
            in.fail("format: single '}' in format string");
        if (c != '{') {
            out += c;
            continue;
        }
        const size_t close = format.find('}', at);
        if (close == std::string::npos)
            in.fail("format: expected '}' before end of string");
        std::string field = format.substr(at + 1, close - at - 1);
        at = close;
        bool repr = false;
        if (field.size() >= 2 && field[field.size() - 2] == '!') {
            repr = field.back() == 'r';
            field.resize(field.size() - 2);
        }
        if (field.find_first_of(":.[{!") != std::string::npos)
            in.fail("format: field '" + field + "' is not supported");
        const Value* value = nullptr;
        const bool digits = !field.empty() && is_class(field, TextClass::kDigit);
        if (field.empty() || digits) {
            const size_t index =
                digits ? static_cast<size_t>(parse_integer(field, 10).value_or(INT32_MAX)) : automatic++;
            if (index < args.positional.size())
                value = &args.positional[index];
        } else {
            for (const auto& [name, given] : args.named)
                if (name == field)
                    value = &given;
        }
        if (!value)
            in.fail("format: no argument for field '" + field + "'");
        if (repr)
            append_repr(out, *value, in.limits().output);
        else
            append_str(out, *value, in.limits().output);
    }
    return text_like(in, self, out);
}

// ---- Dicts and lists

Value get(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("get", args, {"key", "default"});
    if (!hashable(p.need(0)))
        in.fail(std::string("unhashable type: '") + p.need(0).type_name() + "'");
    const Value* value = self.as_dict()->find(p.need(0));
    return value ? *value : p.has(1) ? *p.get(1) : Value();
}

template <List::Kind kind>
Value view(Interpreter& in, const Value& self, Arguments& args) {
    Parameters("method", args, {});
    std::vector<Value> items;
    for (const auto& [key, value] : self.as_dict()->entries())
        items.push_back(kind == List::Kind::kKeys     ? key
                        : kind == List::Kind::kValues ? value
                                                      : in.make_list({key, value}, List::Kind::kTuple));
    return in.make_list(std::move(items), kind);
}

Value copy(Interpreter&, const Value& self, Arguments& args) {
    Parameters("copy", args, {});
    return self;
}

Value count_items(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("count", args, {"value"});
    const Value& wanted = p.need(0);
    in.charge(self.as_list()->items.size() * 16);
    int64_t count = 0;
    for (const Value& item : self.as_list()->items)
        count += equal(item, wanted);
    return Value(count);
}

Value index_item(Interpreter& in, const Value& self, Arguments& args) {
    const Parameters p("index", args, {"value"});
    const Value& wanted = p.need(0);
    in.charge(self.as_list()->items.size() * 16);
    const auto& items = self.as_list()->items;
    for (size_t i = 0; i < items.size(); ++i)
        if (equal(items[i], wanted))
            return Value(static_cast<int64_t>(i));
    in.fail("value is not in list");
}

// ---- loop

Value cycle(Interpreter& in, const Value& self, Arguments& args) {
    if (args.positional.empty())
        in.fail("no items for cycling given");
    return args.positional[static_cast<size_t>(self.as_loop()->index0) % args.positional.size()];
}

Value changed(Interpreter&, const Value& self, Arguments& args) {
    Loop& loop = *self.as_loop();
    const bool same = loop.changed_known && loop.changed.size() == args.positional.size() &&
                      std::equal(loop.changed.begin(), loop.changed.end(), args.positional.begin(), equal);
    loop.changed = args.positional;
    loop.changed_known = true;
    return Value(!same);
}

std::optional<Value> loop_attribute(Loop& loop, std::string_view name) {
    if (name == "index")
        return Value(loop.index0 + 1);
    if (name == "index0")
        return Value(loop.index0);
    if (name == "first")
        return Value(loop.index0 == 0);
    if (name == "last")
        return Value(!loop.peek().has_value());
    if (name == "length")
        return Value(loop.length());
    if (name == "revindex")
        return Value(loop.length() - loop.index0);
    if (name == "revindex0")
        return Value(loop.length() - loop.index0 - 1);
    if (name == "depth")
        return Value(1);  // it grows in recursive loops only
    if (name == "depth0")
        return Value(0);
    if (name == "previtem")
        return loop.previous ? *loop.previous : Value::undefined("there is no previous item");
    if (name == "nextitem")
        return loop.peek() ? *loop.peek() : Value::undefined("there is no next item");
    return std::nullopt;
}

struct Entry {
    std::string_view name;
    Method method;  // null: exists in Python, changes the object: closed to a sandboxed template
};

constexpr Entry kTextMethods[] = {
    {"split", split<false>},
    {"rsplit", split<true>},
    {"splitlines", splitlines},
    {"strip", strip<true, true>},
    {"lstrip", strip<true, false>},
    {"rstrip", strip<false, true>},
    {"startswith", affix<false>},
    {"endswith", affix<true>},
    {"replace", replace_text},
    {"upper", map_text<upper>},
    {"lower", map_text<lower>},
    {"casefold", map_text<lower>},
    {"title", map_text<title>},
    {"capitalize", map_text<capitalize>},
    {"swapcase", map_text<swap_case>},
    {"find", find<false, false>},
    {"rfind", find<true, false>},
    {"index", find<false, true>},
    {"rindex", find<true, true>},
    {"count", count_text},
    {"join", join_text},
    {"format", format_text},
    {"partition", partition<false>},
    {"rpartition", partition<true>},
    {"removeprefix", remove_affix<false>},
    {"removesuffix", remove_affix<true>},
    {"ljust", justify<'l'>},
    {"rjust", justify<'r'>},
    {"center", justify<'c'>},
    {"zfill", zfill},
    {"isalpha", classify<TextClass::kAlpha>},
    {"isalnum", classify<TextClass::kAlnum>},
    {"isdigit", classify<TextClass::kDigit>},
    {"isdecimal", classify<TextClass::kDecimal>},
    {"isnumeric", classify<TextClass::kNumeric>},
    {"isspace", classify<TextClass::kSpace>},
    {"islower", classify<TextClass::kLower>},
    {"isupper", classify<TextClass::kUpper>},
    {"istitle", classify<TextClass::kTitle>},
    {"isascii", classify<TextClass::kAscii>},
    {"isprintable", classify<TextClass::kPrintable>},
};
constexpr Entry kDictMethods[] = {
    {"get", get},
    {"items", view<List::Kind::kItems>},
    {"keys", view<List::Kind::kKeys>},
    {"values", view<List::Kind::kValues>},
    {"copy", copy},
    {"clear", nullptr},
    {"pop", nullptr},
    {"popitem", nullptr},
    {"setdefault", nullptr},
    {"update", nullptr},
};
constexpr Entry kListMethods[] = {
    {"count", count_items}, {"index", index_item}, {"copy", copy},      {"append", nullptr},
    {"clear", nullptr},     {"extend", nullptr},   {"insert", nullptr}, {"pop", nullptr},
    {"remove", nullptr},    {"reverse", nullptr},  {"sort", nullptr},
};
constexpr Entry kTupleMethods[] = {{"count", count_items}, {"index", index_item}};
constexpr Entry kLoopMethods[] = {{"cycle", cycle}, {"changed", changed}};

template <size_t size>
std::optional<Value> bind(const Entry (&table)[size], const Value& object, std::string_view name) {
    for (const Entry& entry : table) {
        if (entry.name != name)
            continue;
        if (!entry.method)
            return Value::undefined("access to attribute '" + std::string(name) + "' of '" +
                                    object.type_name() + "' object is unsafe.");
        auto bound = std::make_shared<Callable>();
        bound->name = name;
        bound->call = [method = entry.method, object](Interpreter& in, Arguments& args) {
            in.charge(0);
            return method(in, object, args);
        };
        return Value(std::shared_ptr<const Callable>(std::move(bound)));
    }
    return std::nullopt;
}

}  // namespace

std::optional<Value> find_method(const Value& object, std::string_view name) {
    if (object.is_string())
        return bind(kTextMethods, object, name);
    if (object.as_dict())
        return bind(kDictMethods, object, name);
    if (const List* list = object.as_list()) {
        if (list->kind == List::Kind::kList)
            return bind(kListMethods, object, name);
        if (list->kind == List::Kind::kTuple || list->kind == List::Kind::kRange)
            return bind(kTupleMethods, object, name);
        return std::nullopt;
    }
    if (Loop* loop = object.as_loop()) {
        if (std::optional<Value> value = loop_attribute(*loop, name))
            return value;
        return bind(kLoopMethods, object, name);
    }
    return std::nullopt;
}

}  // namespace llm::engine::jinja
