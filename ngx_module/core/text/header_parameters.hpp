// `; name=value` lists of Content-Type and Content-Disposition (RFC 9110, section 5.6.6). Internal to
// core/text.
#pragma once

#include <cstdint>
#include <string_view>

namespace llm::core {

struct Parameter {
    std::string_view name;
    std::string_view value;  // without quotes; escapes are left as they are
    bool escaped = false;
};

enum class Taken : uint8_t { parameter, end, malformed };

// Takes a token (RFC 9110, section 5.6.2) from the front of `text`; empty if there is none.
std::string_view take_token(std::string_view& text);

// Takes `; name=value` or `; name="value"` from the front of `text`. O(its size).
Taken take_parameter(std::string_view& text, Parameter& parameter);

}  // namespace llm::core
