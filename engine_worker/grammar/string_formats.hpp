// The `format`s of JSON Schema that are enforced.
#pragma once

#include <string>
#include <string_view>

namespace llm::engine {

// A pattern for regex.hpp that holds strings of the format only (not all of them: no leap seconds, no 29th
// of February, ASCII in host names and addresses). Empty: the format is not known.
std::string_view format_pattern(std::string_view format);

// The known formats, for error messages.
std::string known_formats();

}  // namespace llm::engine
