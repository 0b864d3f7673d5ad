#include "shared/token_hash.hpp"

#include <openssl/sha.h>

#include <cstring>

#include "shared/hex.hpp"

namespace llm {
TokenHash hash_token(std::string_view token) {
    TokenHash out;
    SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), out.data());
    return out;
}

std::string to_hex(const TokenHash& hash) {
    std::string out;
    out.reserve(hash.size() * 2);
    for (uint8_t byte : hash) {
        out += hex_digit(byte >> 4);
        out += hex_digit(byte);
    }
    return out;
}

bool from_hex(std::string_view text, TokenHash& out) {
    if (text.size() != out.size() * 2) {
        return false;
    }
    for (size_t i = 0; i < out.size(); ++i) {
        const int high = hex_value(text[2 * i]);
        const int low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) {
            return false;
        }
        out[i] = static_cast<uint8_t>(high * 16 + low);
    }
    return true;
}

bool equal_constant_time(const TokenHash& a, const TokenHash& b) {
    uint64_t difference = 0;
    for (size_t i = 0; i < a.size(); i += sizeof(uint64_t)) {
        uint64_t x;
        uint64_t y;
        std::memcpy(&x, a.data() + i, sizeof(x));
        std::memcpy(&y, b.data() + i, sizeof(y));
        difference |= x ^ y;
    }
    return difference == 0;
}

}  // namespace llm
