// x-request-id: the client's own if it is harmless, else 32 hexadecimal digits.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace llm::core {

constexpr size_t kMaxRequestId = 128;

// [A-Za-z0-9._:-]{1,128}: nothing that could break a log line or a header.
bool valid_request_id(std::string_view id);

// Lower-case hexadecimal digits of 16 random bytes; not NUL-terminated.
std::array<char, 32> format_request_id(std::span<const uint8_t, 16> random);

}  // namespace llm::core
