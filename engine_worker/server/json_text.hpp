// JSON text that is put together piece by piece.
#pragma once

#include <string>
#include <string_view>

namespace llm::engine {

// Appends `text` as a JSON string; bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

// Appends the shortest decimal number that reads back as the float `value`; what is not finite, or below
// -9999, becomes that: JSON has no -Infinity.
void append_json_number(std::string& out, double value);

}  // namespace llm::engine
