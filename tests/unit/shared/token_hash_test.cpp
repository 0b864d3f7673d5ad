#include "shared/token_hash.hpp"

#include <gtest/gtest.h>

namespace llm {
namespace {

// FIPS 180-2, appendix B.1
const char* const kAbc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

TEST(TokenHash, KnownAnswer) { EXPECT_EQ(to_hex(hash_token("abc")), kAbc); }

TEST(TokenHash, HexRoundTrip) {
    TokenHash hash;
    ASSERT_TRUE(from_hex("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", hash));
    EXPECT_TRUE(equal_constant_time(hash, hash_token("abc")));
    EXPECT_FALSE(equal_constant_time(hash, hash_token("abd")));
    EXPECT_FALSE(from_hex("ba78", hash));
    EXPECT_FALSE(from_hex(std::string(64, 'g'), hash));
}

}  // namespace
}  // namespace llm
