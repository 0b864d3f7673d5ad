#include "shared/siphash.hpp"

#include <gtest/gtest.h>

#include <string>

namespace llm {
namespace {

// The key of the authors' vectors: bytes 0, 1, 2, … 15.
constexpr SipKey kKey = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

// As `openssl mac -macopt size:16 -macopt hexkey:000102030405060708090a0b0c0d0e0f SIPHASH` prints it.
std::string hex(const SipTag& tag) {
    std::string text;
    for (uint64_t word : tag) {
        for (int i = 0; i < 8; ++i) {
            constexpr char kDigits[] = "0123456789abcdef";
            const auto byte = static_cast<uint8_t>(word >> (8 * i));
            text += kDigits[byte >> 4];
            text += kDigits[byte & 15];
        }
    }
    return text;
}

TEST(SipHash, KnownAnswers) {
    EXPECT_EQ(hex(siphash128(kKey, "")), "a3817f04ba25a8e66df67214c7550293");
    EXPECT_EQ(hex(siphash128(kKey, std::string_view("\0", 1))), "da87c1d86b99af44347659119b22fc45");
    EXPECT_EQ(hex(siphash128(kKey, "12345678")), "86da31e21d1241e0e933a215f9e2faae");
    EXPECT_EQ(hex(siphash128(kKey, "sk-0123456789abcdefghij")), "2b64a4df9bf84bd79b9b05b823c6282a");
}

TEST(SipHash, DependsOnTheKey) {
    EXPECT_NE(siphash128(kKey, "token"), siphash128({kKey[0] ^ 1, kKey[1]}, "token"));
    EXPECT_NE(siphash128(kKey, "token"), siphash128({kKey[0], kKey[1] ^ 1}, "token"));
}

}  // namespace
}  // namespace llm
