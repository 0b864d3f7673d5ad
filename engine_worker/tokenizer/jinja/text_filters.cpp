// Filters of text and numbers, and those that take any value.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/python_format.hpp"
#include "engine_worker/tokenizer/jinja/python_text.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine::jinja {
namespace {

// The filters that are one function of the text; what was markup stays markup.
template <std::string (*function)(std::string_view)>
Value text_function(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("filter", args, {});
    const Value text = in.to_string(value);
    return in.make_text(function(*text.string()), text.is_markup());
}

void need_defined(Interpreter& in, const Value& value) {
    if (const auto* undefined = value.as<Undefined>())
        in.fail(*undefined->message);
}

Value do_string(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("string", args, {});
    return in.to_string(value);
}

Value do_safe(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("safe", args, {});
    return in.make_text(in.text_of(value), true);
}

Value do_escape(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("escape", args, {});
    return value.is_markup() ? value : in.make_text(escape_html(in.text_of(value)), true);
}

Value do_forceescape(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("forceescape", args, {});
    return in.make_text(escape_html(in.text_of(value)), true);
}

Value do_trim(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("trim", args, {"chars"});
    const Value text = in.to_string(value);
    const bool chars = p.has(0) && !p.get(0)->is_none();
    const std::string_view stripped = chars ? left_strip(right_strip(*text.string(), p.text(0)), p.text(0))
                                            : left_strip(right_strip(*text.string()));
    return in.make_text(std::string(stripped), text.is_markup());
}

Value do_replace(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("replace", args, {"old", "new", "count"});
    const bool counted = p.has(2) && !p.get(2)->is_none();
    const std::optional<std::string> out =
        replace(in.text_of(value), in.text_of(p.need(0)), in.text_of(p.need(1)),
                counted ? p.integer(2, -1) : -1, in.limits().output);
    if (!out)
        in.fail("the template produces too much text");
    return in.make_text(*out);
}

Value do_center(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("center", args, {"width"});
    const auto width = static_cast<size_t>(std::clamp<int64_t>(p.integer(0, 80), 0, 1 << 20));
    const Value text = in.to_string(value);
    return in.make_text(pad(*text.string(), width, " ", 'c'), text.is_markup());
}

Value do_indent(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("indent", args, {"width", "first", "blank"});
    need_defined(in, value);
    if (!value.is_string())
        in.fail(std::string("indent: needs a string, not ") + value.type_name());
    std::string unit = "    ";
    if (p.has(0))
        unit = p.get(0)->is_string()
                   ? p.text(0)
                   : std::string(static_cast<size_t>(std::clamp<int64_t>(p.integer(0, 4), 0, 10000)), ' ');
    const std::string text = in.text_of(value) + "\n";
    const auto lines = split_lines(text, false);
    in.charge_memory(lines.size() * unit.size());
    std::string out = p.boolean(1, false) ? unit : "";
    for (size_t i = 0; i < lines.size(); ++i) {
        if (i > 0)
            out.append("\n").append(!lines[i].empty() || p.boolean(2, false) ? unit : "");
        out += lines[i];
    }
    // With blank=true the empty line behind the last newline counts, as in jinja2.
    return in.make_text(std::move(out), value.is_markup());
}

Value do_truncate(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("truncate", args, {"length", "killwords", "end", "leeway"});
    const Value text = in.to_string(value);
    const std::string& whole = *text.string();
    const std::string end = p.text(2, "...");
    const int64_t wanted = p.integer(0, 255);
    const bool leeway_given = p.has(3) && !p.get(3)->is_none();
    const int64_t leeway = leeway_given ? p.integer(3, 5) : 5;
    const auto keep = wanted - static_cast<int64_t>(length(end));
    if (keep < 0 || leeway < 0)
        in.fail("truncate: length is shorter than its end");
    if (static_cast<int64_t>(length(whole)) - leeway <= wanted)
        return text;
    std::string_view head = std::string_view(whole).substr(0, byte_offset(whole, static_cast<size_t>(keep)));
    if (!p.boolean(1, false))
        head = head.substr(0, std::min(head.rfind(' '), head.size()));
    return in.make_text(std::string(head) + end);
}

Value do_wordcount(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("wordcount", args, {});
    const std::string text = in.text_of(value);
    int64_t words = 0;
    bool inside = false;
    for (size_t at = 0; at < text.size();) {
        const bool word = unicode::is_word(unicode::next_code_point(text, at));
        words += word && !inside;
        inside = word;
    }
    return Value(words);
}

// jinja2's title: a word begins behind white space, a hyphen or an opening bracket.
Value do_title(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("title", args, {});
    std::string out;
    bool start = true;
    const std::string text = in.text_of(value);
    for (std::string_view character : characters(text)) {
        size_t at = 0;
        const char32_t c = unicode::next_code_point(character, at);
        const bool separator = is_python_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<';
        out += start && !separator ? upper(character) : lower(character);
        start = separator;
    }
    return in.make_text(std::move(out));
}

Value do_format(Interpreter& in, const Value& value, Arguments& args) {
    if (!args.positional.empty() && !args.named.empty())
        in.fail("format: takes positional or keyword arguments, not both");
    Value given = in.make_list(args.positional, List::Kind::kTuple);
    if (!args.named.empty()) {
        Dict dict;
        for (const auto& [name, argument] : args.named)
            dict.set(Value(name), argument);
        given = Value::dict(std::move(dict));
    }
    const Value text = in.to_string(value);
    return in.make_text(percent_format(*text.string(), given, in.limits().output), text.is_markup());
}

// ---- Numbers

Value do_int(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("int", args, {"default", "base"});
    need_defined(in, value);
    int64_t integer;
    if (value.as_large())
        return value;
    if (value.to_integer(integer))
        return Value(integer);
    std::optional<double> real;
    if (const std::string* text = value.string()) {
        if (const auto parsed = parse_integer(*text, static_cast<int>(p.integer(1, 10))))
            return Value(*parsed);
        real = parse_float(*text);
    } else if (const auto* number = value.as<double>()) {
        real = *number;
    }
    if (real && std::isfinite(*real)) {
        if (!(std::abs(*real) < 9.2e18))
            in.fail("integer too large");
        return Value(static_cast<int64_t>(*real));
    }
    return p.has(0) ? *p.get(0) : Value(0);
}

Value do_float(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("float", args, {"default"});
    need_defined(in, value);
    double real;
    if (value.to_number(real))
        return Value(real);
    if (const std::string* text = value.string())
        if (const auto parsed = parse_float(*text))
            return Value(*parsed);
    return p.has(0) ? *p.get(0) : Value(0.0);
}

Value do_round(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("round", args, {"precision", "method"});
    const std::string method = p.text(1, "common");
    const int64_t precision = std::clamp<int64_t>(p.integer(0, 0), -300, 300);
    double real;
    need_defined(in, value);
    if (value.as_large())
        in.fail("integer too large");
    if (!value.to_number(real))
        in.fail(std::string("round: needs a number, not ") + value.type_name());
    const double scale = std::pow(10.0, static_cast<double>(precision));
    if (method == "ceil")
        return Value(std::ceil(real * scale) / scale);
    if (method == "floor")
        return Value(std::floor(real * scale) / scale);
    if (method != "common")
        in.fail("round: method must be common, ceil or floor");
    const bool integer = !value.is_float();
    double rounded;
    if (precision >= 0) {  // the decimal expansion rounds correctly, halves to even, as Python's round()
        char buffer[700];
        std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), real);
        rounded = std::strtod(buffer, nullptr);
    } else {
        rounded = std::nearbyint(real * scale) / scale;
    }
    return integer ? Value(static_cast<int64_t>(rounded)) : Value(rounded);
}

Value do_abs(Interpreter& in, const Value& value, Arguments& args) {
    Parameters("abs", args, {});
    need_defined(in, value);
    if (value.as_large())
        return value;
    int64_t integer;
    double real;
    if (value.to_integer(integer)) {
        if (integer == INT64_MIN)
            in.fail("integer too large");
        return Value(integer < 0 ? -integer : integer);
    }
    if (!value.to_number(real))
        in.fail(std::string("abs: needs a number, not ") + value.type_name());
    return Value(std::abs(real));
}

// ---- Any value

Value do_default(Interpreter&, const Value& value, Arguments& args) {
    const Parameters p("default", args, {"default_value", "boolean"});
    if (!value.is_undefined() && !(p.boolean(1, false) && !value.truthy()))
        return value;
    return p.has(0) ? *p.get(0) : Value("");
}

Value do_tojson(Interpreter& in, const Value& value, Arguments& args) {
    const Parameters p("tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
    JsonStyle style;
    style.ascii = p.boolean(0, false);
    style.sort = p.boolean(3, false);
    if (p.has(1) && !p.get(1)->is_none()) {
        style.pretty = true;
        style.item.assign(1, ',');
        style.indent =
            p.get(1)->is_string()
                ? p.text(1)
                : std::string(static_cast<size_t>(std::clamp<int64_t>(p.integer(1, 0), 0, 1000)), ' ');
    }
    if (p.has(2) && !p.get(2)->is_none()) {
        const std::vector<Value> pair = in.iterate(*p.get(2));
        if (pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
            in.fail("tojson: separators must be two strings");
        style.item = *pair[0].string();
        style.key = *pair[1].string();
    }
    std::string out;
    append_json(out, value, style, in.limits().output);
    return in.make_text(std::move(out));
}

struct Entry {
    std::string_view name;
    Filter filter;
};
constexpr Entry kFilters[] = {
    {"abs", do_abs},
    {"capitalize", text_function<capitalize>},
    {"center", do_center},
    {"d", do_default},
    {"default", do_default},
    {"e", do_escape},
    {"escape", do_escape},
    {"float", do_float},
    {"forceescape", do_forceescape},
    {"format", do_format},
    {"indent", do_indent},
    {"int", do_int},
    {"lower", text_function<lower>},
    {"replace", do_replace},
    {"round", do_round},
    {"safe", do_safe},
    {"string", do_string},
    {"title", do_title},
    {"tojson", do_tojson},
    {"trim", do_trim},
    {"truncate", do_truncate},
    {"upper", text_function<upper>},
    {"wordcount", do_wordcount},
};

}  // namespace

Filter find_text_filter(std::string_view name) {
    for (const Entry& entry : kFilters)
        if (entry.name == name)
            return entry.filter;
    return nullptr;
}

}  // namespace llm::engine::jinja
