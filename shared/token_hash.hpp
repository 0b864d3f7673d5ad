// SHA-256 of an API token: the only form in which tokens are kept in memory, in logs' place, and in the database.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace llm {

using TokenHash = std::array<uint8_t, 32>;

// SHA-256 of the token's bytes as sent, without the scheme. Never fails, never allocates.
TokenHash hash_token(std::string_view token);

// 64 lower-case hexadecimal digits, as in the database column token_sha256.
std::string to_hex(const TokenHash& hash);

// Accepts 64 hexadecimal digits of either case; false on anything else.
bool from_hex(std::string_view text, TokenHash& out);

// Equality in time that depends on nothing but the length.
bool equal_constant_time(const TokenHash& a, const TokenHash& b);

}  // namespace llm
