// The `format`s of JSON Schema that are enforced.
#pragma once

#include <string>
#include <string_view>

namespace llm::engine {

// A pattern for regex.hpp that holds strings of the format only (not all of them: no leap seconds, no 29th
// of February, ASCII in host names and addresses). Empty: the format is not known.
std::string_view format_pattern(std::string_view format);

// True for a name that no draft of JSON Schema defines ("password", "int32"): it is a remark, as the drafts
// have it.
bool format_is_remark(std::string_view format);

// True for a pattern with look-ahead that zod 4 writes beside `format`, and that holds all of
// format_pattern(): regex.hpp has no look-ahead, and does not need it here.
bool pattern_covers_format(std::string_view pattern, std::string_view format);

// The known formats, for error messages.
std::string known_formats();

}  // namespace llm::engine
