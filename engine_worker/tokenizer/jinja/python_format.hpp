// Values as text, the way Python spells them: str(), repr(), json.dumps() and the % operator.
#pragma once

#include <string>
#include <string_view>

#include "engine_worker/tokenizer/jinja/value.hpp"

namespace llm::engine::jinja {

// Appends str(value) / repr(value) to `out`; both throw TemplateError past `limit` bytes in `out`.
void append_str(std::string& out, const Value& value, size_t limit);
void append_repr(std::string& out, const Value& value, size_t limit);

// repr() of a float: the shortest digits that read back, exponent from 1e16 on and below 1e-4.
std::string float_repr(double value);
std::string string_repr(std::string_view text);

struct JsonStyle {
    bool pretty = false;      // an indent was given (may be empty)
    std::string indent;       // one level
    std::string item = ", ";  // between items
    std::string key = ": ";   // after a key
    bool ascii = false;       // \uXXXX for everything above ASCII
    bool sort = false;        // keys in order
};
// json.dumps(). Throws ValueError on what JSON has no form for.
void append_json(std::string& out, const Value& value, const JsonStyle& style, size_t limit);

// format % arguments (a tuple for several, a dict for %(name)s).
std::string percent_format(std::string_view format, const Value& arguments, size_t limit);

}  // namespace llm::engine::jinja
