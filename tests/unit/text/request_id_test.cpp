#include "ngx_module/core/text/request_id.hpp"

#include <gtest/gtest.h>

#include <string>

namespace llm::core {
namespace {

TEST(RequestId, AcceptsExactlyTheAllowedBytes) {
    const std::string allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
    EXPECT_TRUE(valid_request_id(allowed));
    for (int byte = 0; byte < 256; ++byte) {
        const char c = static_cast<char>(byte);
        EXPECT_EQ(valid_request_id(std::string("a") + c), allowed.find(c) != std::string::npos) << byte;
    }
}

TEST(RequestId, BoundsTheLength) {
    EXPECT_FALSE(valid_request_id(""));
    EXPECT_TRUE(valid_request_id(std::string(kMaxRequestId, 'a')));
    EXPECT_FALSE(valid_request_id(std::string(kMaxRequestId + 1, 'a')));
}

TEST(RequestId, FormatsRandomBytes) {
    const uint8_t random[16] = {0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd,
                                0xef, 0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xff};
    const auto id = format_request_id(random);
    EXPECT_EQ(std::string(id.data(), id.size()), "000123456789abcdef1032547698baff");
    EXPECT_TRUE(valid_request_id({id.data(), id.size()}));
}

}  // namespace
}  // namespace llm::core
