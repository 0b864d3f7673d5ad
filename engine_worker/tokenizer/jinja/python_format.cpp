#include "engine_worker/tokenizer/jinja/python_format.hpp"

#include <unicode/uchar.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine::jinja {
namespace {

void check(const std::string& out, size_t limit) {
    if (out.size() > limit)
        throw ValueError("the template produces too much text");
}

// str.isprintable() of one character: not Other, not Separator, but the space.
bool printable(char32_t c) {
    if (c < 0x7F)
        return c >= 0x20;
    const auto mask = U_GET_GC_MASK(static_cast<UChar32>(c));
    return (mask & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
}

void append_hex(std::string& out, const char* prefix, char32_t c, int digits) {
    char buffer[16];
    std::snprintf(buffer, sizeof buffer, "%s%0*x", prefix, digits, static_cast<unsigned>(c));
    out += buffer;
}

void append_items(std::string& out, const std::vector<Value>& items, size_t limit) {
    for (size_t i = 0; i < items.size(); ++i) {
        out += i ? ", " : "";
        append_repr(out, items[i], limit);
    }
}

void append_list(std::string& out, const List& list, size_t limit) {
    switch (list.kind) {
        case List::Kind::kList:
            out += '[';
            append_items(out, list.items, limit);
            out += ']';
            break;
        case List::Kind::kTuple:
            out += '(';
            append_items(out, list.items, limit);
            out += list.items.size() == 1 ? ",)" : ")";
            break;
        case List::Kind::kRange: {
            int64_t first = 0, second = 0, last = 0;
            if (!list.items.empty()) {
                list.items.front().to_integer(first);
                list.items.back().to_integer(last);
            }
            if (list.items.size() > 1)
                list.items[1].to_integer(second);
            const int64_t step = list.items.size() > 1 ? second - first : 1;
            const int64_t stop = list.items.empty() ? 0 : last + (step > 0 ? 1 : -1);
            out += "range(" + std::to_string(first) + ", " + std::to_string(stop);
            out += step == 1 ? ")" : ", " + std::to_string(step) + ")";
            break;
        }
        case List::Kind::kKeys:
        case List::Kind::kValues:
        case List::Kind::kItems:
            out += list.kind == List::Kind::kKeys     ? "dict_keys(["
                   : list.kind == List::Kind::kValues ? "dict_values(["
                                                      : "dict_items([";
            append_items(out, list.items, limit);
            out += "])";
            break;
        case List::Kind::kGenerator:
            out += "<generator object>";
            break;
    }
}

}  // namespace

std::string float_repr(double value) {
    if (std::isnan(value))
        return "nan";
    if (std::isinf(value))
        return value < 0 ? "-inf" : "inf";
    char buffer[40];
    const auto end = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
    const std::string_view text(buffer, static_cast<size_t>(end - buffer));
    const size_t e = text.find('e');
    int exponent = 0;
    const size_t sign = text[e + 1] == '+' ? 1 : 0;  // from_chars takes no plus
    std::from_chars(text.data() + e + 1 + sign, end, exponent);
    const bool negative = text[0] == '-';
    std::string digits;
    for (char c : text.substr(negative, e - negative))
        if (c != '.')
            digits += c;
    std::string out = negative ? "-" : "";
    const auto count = static_cast<int>(digits.size());
    if (exponent < -4 || exponent >= 16) {
        out += digits[0];
        if (count > 1)
            out.append(".").append(digits, 1);
        char tail[16];
        std::snprintf(tail, sizeof tail, "e%c%02d", exponent < 0 ? '-' : '+', std::abs(exponent));
        return out + tail;
    }
    if (exponent < 0)
        return out.append("0.").append(static_cast<size_t>(-exponent - 1), '0').append(digits);
    if (exponent + 1 >= count)
        return out.append(digits).append(static_cast<size_t>(exponent + 1 - count), '0').append(".0");
    const auto point = static_cast<size_t>(exponent + 1);
    return out.append(digits, 0, point).append(".").append(digits, point);
}

std::string string_repr(std::string_view text) {
    const bool single = text.find('\'') != std::string_view::npos;
    const char quote = single && text.find('"') == std::string_view::npos ? '"' : '\'';
    std::string out(1, quote);
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        const char32_t c = unicode::next_code_point(text, at);
        if (c == static_cast<unsigned char>(quote) || c == '\\')
            out.append("\\").append(1, static_cast<char>(c));
        else if (c == '\n')
            out += "\\n";
        else if (c == '\r')
            out += "\\r";
        else if (c == '\t')
            out += "\\t";
        else if (printable(c))
            out.append(text, begin, at - begin);
        else if (c < 0x100)
            append_hex(out, "\\x", c, 2);
        else if (c < 0x10000)
            append_hex(out, "\\u", c, 4);
        else
            append_hex(out, "\\U", c, 8);
    }
    return out += quote;
}

void append_str(std::string& out, const Value& value, size_t limit) {
    if (const std::string* text = value.string())
        out += *text;
    else if (!value.is_undefined())
        append_repr(out, value, limit);
    check(out, limit);
}

void append_repr(std::string& out, const Value& value, size_t limit) {
    if (value.is_none()) {
        out += "None";
    } else if (const auto* b = value.as<bool>()) {
        out += *b ? "True" : "False";
    } else if (const auto* i = value.as<int64_t>()) {
        out += std::to_string(*i);
    } else if (const uint64_t* large = value.as_large()) {
        out += std::to_string(*large);
    } else if (const auto* d = value.as<double>()) {
        out += float_repr(*d);
    } else if (const std::string* s = value.string()) {
        out += value.is_markup() ? "Markup(" + string_repr(*s) + ")" : string_repr(*s);
    } else if (const List* l = value.as_list()) {
        append_list(out, *l, limit);
    } else if (const Dict* dict = value.as_dict()) {
        out += '{';
        bool first = true;
        for (const auto& [key, item] : dict->entries()) {
            out += first ? "" : ", ";
            first = false;
            append_repr(out, key, limit);
            out += ": ";
            append_repr(out, item, limit);
        }
        out += '}';
    } else if (value.is_undefined()) {
        out += "Undefined";
    } else if (const Callable* callable = value.as_callable()) {
        out += "<function " + callable->name + ">";
    } else {
        out += value.as_namespace() ? "<Namespace>" : "<LoopContext>";  // a namespace may hold itself
    }
    check(out, limit);
}

namespace {

void append_json_string(std::string& out, std::string_view text, bool ascii) {
    out += '"';
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        const char32_t c = unicode::next_code_point(text, at);
        switch (c) {
            case '"':
                out += "\\\"";
                break;
            case '\\':
                out += "\\\\";
                break;
            case '\n':
                out += "\\n";
                break;
            case '\r':
                out += "\\r";
                break;
            case '\t':
                out += "\\t";
                break;
            case '\f':
                out += "\\f";
                break;
            case '\b':
                out += "\\b";
                break;
            default:
                if (c < 0x20 || (ascii && c > 0x7E && c < 0x10000)) {
                    append_hex(out, "\\u", c, 4);
                } else if (ascii && c >= 0x10000) {
                    append_hex(out, "\\u", 0xD800 + ((c - 0x10000) >> 10), 4);
                    append_hex(out, "\\u", 0xDC00 + ((c - 0x10000) & 0x3FF), 4);
                } else {
                    out.append(text, begin, at - begin);
                }
        }
    }
    out += '"';
}

std::string json_number(double d) {
    if (std::isnan(d))
        return "NaN";
    if (std::isinf(d))
        return d < 0 ? "-Infinity" : "Infinity";
    return float_repr(d);
}

std::string json_key(const Value& key) {
    if (const std::string* s = key.string())
        return *s;
    if (key.is_none())
        return "null";
    if (const auto* b = key.as<bool>())
        return *b ? "true" : "false";
    if (const auto* d = key.as<double>())
        return json_number(*d);
    if (const auto* i = key.as<int64_t>())
        return std::to_string(*i);
    if (const uint64_t* large = key.as_large())
        return std::to_string(*large);
    throw ValueError(std::string("tojson: a key must not be of type ") + key.type_name());
}

void json_value(std::string& out, const Value& value, const JsonStyle& style, size_t limit, int level) {
    auto line = [&](int depth) {
        if (style.pretty) {
            out += '\n';
            for (int i = 0; i < depth; ++i)
                out += style.indent;
        }
    };
    check(out, limit);
    const List* list = value.as_list();
    if (value.is_none()) {
        out += "null";
    } else if (const auto* b = value.as<bool>()) {
        out += *b ? "true" : "false";
    } else if (const auto* integer = value.as<int64_t>()) {
        out += std::to_string(*integer);
    } else if (const uint64_t* large = value.as_large()) {
        out += std::to_string(*large);
    } else if (const auto* d = value.as<double>()) {
        out += json_number(*d);
    } else if (const std::string* s = value.string()) {
        append_json_string(out, *s, style.ascii);
    } else if (list && (list->kind == List::Kind::kList || list->kind == List::Kind::kTuple)) {
        out += '[';
        for (size_t i = 0; i < list->items.size(); ++i) {
            out += i ? style.item : "";
            line(level + 1);
            json_value(out, list->items[i], style, limit, level + 1);
        }
        if (!list->items.empty())
            line(level);
        out += ']';
    } else if (const Dict* dict = value.as_dict()) {
        std::vector<const Dict::Entry*> entries;
        for (const auto& entry : dict->entries())
            entries.push_back(&entry);
        if (style.sort)
            std::stable_sort(entries.begin(), entries.end(),
                             [](const auto* x, const auto* y) { return compare(x->first, y->first) < 0; });
        out += '{';
        for (size_t i = 0; i < entries.size(); ++i) {
            out += i ? style.item : "";
            line(level + 1);
            append_json_string(out, json_key(entries[i]->first), style.ascii);
            out += style.key;
            json_value(out, entries[i]->second, style, limit, level + 1);
        }
        if (!entries.empty())
            line(level);
        out += '}';
    } else {
        throw ValueError(std::string("tojson: Object of type ") + value.type_name() +
                         " is not JSON serializable");
    }
}

}  // namespace

void append_json(std::string& out, const Value& value, const JsonStyle& style, size_t limit) {
    json_value(out, value, style, limit, 0);
    check(out, limit);
}

std::string percent_format(std::string_view format, const Value& arguments, size_t limit) {
    const List* tuple = arguments.as_list();
    if (tuple && tuple->kind != List::Kind::kTuple)
        tuple = nullptr;
    size_t used = 0;
    std::string out;
    for (size_t at = 0; at < format.size(); ++at) {
        check(out, limit);
        if (format[at] != '%') {
            out += format[at];
            continue;
        }
        auto here = [&] {
            if (at >= format.size())
                throw ValueError("incomplete format");
            return format[at];
        };
        ++at;
        if (here() == '%') {
            out += '%';
            continue;
        }
        const Value* value = nullptr;
        if (here() == '(') {
            const size_t close = format.find(')', at);
            const Dict* dict = arguments.as_dict();
            if (close == std::string_view::npos || !dict)
                throw ValueError("format requires a mapping");
            value = dict->find(format.substr(at + 1, close - at - 1));
            if (!value)
                throw ValueError("format: no such key");
            at = close + 1;
        }
        std::string flags;
        while (std::string_view("-+ 0#").find(here()) != std::string_view::npos)
            flags += format[at++];
        auto number = [&] {
            int n = 0;
            while (here() >= '0' && here() <= '9') {
                n = n * 10 + (format[at++] - '0');
                if (n > 10000)
                    throw ValueError("format: width or precision too large");
            }
            return n;
        };
        const int width = number();
        int precision = -1;
        if (here() == '.') {
            ++at;
            precision = number();
        }
        if (!value) {
            if (tuple ? used >= tuple->items.size() : used > 0)
                throw ValueError("not enough arguments for format string");
            value = tuple ? &tuple->items[used] : &arguments;
            ++used;
        }
        const char kind = here();
        std::string piece;
        if (kind == 's' || kind == 'r') {
            kind == 's' ? append_str(piece, *value, limit) : append_repr(piece, *value, limit);
            if (precision >= 0) {
                size_t end = 0;
                for (int i = 0; i < precision && end < piece.size(); ++i)
                    unicode::next_code_point(piece, end);
                piece.resize(end);
            }
            size_t length = 0;
            for (char c : piece)
                length += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
            const size_t pad = length < static_cast<size_t>(width) ? static_cast<size_t>(width) - length : 0;
            piece.insert(flags.find('-') == std::string::npos ? 0 : piece.size(), pad, ' ');
        } else {
            double real;
            if (!value->to_number(real))
                throw ValueError(std::string("format %") + kind + " needs a number");
            const std::string spec =
                "%" + flags + std::to_string(width) + (precision >= 0 ? "." + std::to_string(precision) : "");
            std::string buffer(static_cast<size_t>(width) + static_cast<size_t>(std::max(precision, 0)) + 400,
                               '\0');
            int length;
            if (std::string_view("dixXo").find(kind) != std::string_view::npos) {
                int64_t integer = 0;
                if (!value->to_integer(integer)) {
                    if (kind != 'd' && kind != 'i')
                        throw ValueError(std::string("format %") + kind + " needs an integer");
                    if (!(std::abs(real) < 9e18))
                        throw ValueError("integer too large");
                    integer = static_cast<int64_t>(real);
                }
                if (integer < 0 && kind != 'd' && kind != 'i')
                    throw ValueError(std::string("format %") + kind +
                                     " of a negative number is not supported");
                length = std::snprintf(buffer.data(), buffer.size(), (spec + "ll" + kind).c_str(),
                                       static_cast<long long>(integer));
            } else if (std::string_view("eEfFgG").find(kind) != std::string_view::npos) {
                length = std::snprintf(buffer.data(), buffer.size(), (spec + kind).c_str(), real);
            } else {
                throw ValueError(std::string("format %") + kind + " is not supported");
            }
            piece.assign(buffer, 0, static_cast<size_t>(std::max(length, 0)));
        }
        out += piece;
    }
    if (tuple ? used < tuple->items.size() : used == 0 && !arguments.as_dict())
        throw ValueError("not all arguments converted during string formatting");
    check(out, limit);
    return out;
}

}  // namespace llm::engine::jinja
