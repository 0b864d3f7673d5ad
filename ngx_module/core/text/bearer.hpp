// The `Authorization` header (RFC 6750, section 2.1; RFC 9110, section 11.6.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llm::core {

enum class BearerStatus : uint8_t {
    ok,
    missing,    // no header, or nothing in it
    malformed,  // another scheme, no token, more than one, a byte that is not visible ASCII, or too long
};

struct Bearer {
    BearerStatus status = BearerStatus::missing;
    std::string_view token;  // into the header value; empty unless ok
};

constexpr size_t kMaxBearerToken = 4096;

// Whether a header can bring this token: 1..4096 visible ASCII bytes.
bool is_bearer_token(std::string_view text);

// `Bearer` in any case, one or more spaces, a token of 1..4096 visible ASCII bytes. Spaces and tabs around
// the value are no part of it. More generous than RFC 6750's token68, because keys with other punctuation are
// in use.
Bearer parse_bearer(std::string_view header_value);

// As `llm_compat aristote` wants it: exactly two words, the first exactly `Bearer`.
Bearer parse_bearer_exact(std::string_view header_value);

}  // namespace llm::core
