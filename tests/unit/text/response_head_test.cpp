#include "ngx_module/core/text/response_head.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace llm::core {
namespace {

// Parses a copy that ends where the text ends, so that a sanitizer sees every byte read too far.
bool parse(const std::string& text, ResponseHead& head) {
    static std::vector<char> kept;
    kept.assign(text.begin(), text.end());
    const char* begin = kept.data();
    return parse_response_head(begin, begin + kept.size(), begin + kept.size(), head);
}

TEST(ResponseHead, TakesAnOrdinaryHeadApart) {
    const std::string text =
        "HTTP/1.1 201 Created at last\r\nContent-Type: a/b; c=d\r\nX-Empty:\r\nX-Blank:  \r\n"
        "content-length:   5 \r\n\r\nhello";
    ResponseHead head;
    ASSERT_TRUE(parse(text, head));
    EXPECT_EQ(head.status, 201U);
    EXPECT_EQ(head.status_line, "201 Created at last");
    ASSERT_EQ(head.count, 4U);
    EXPECT_EQ(head.fields[0].name, "Content-Type");
    EXPECT_EQ(head.fields[0].value, "a/b; c=d");
    EXPECT_EQ(head.fields[1].value, "");
    EXPECT_EQ(head.fields[2].value, "");
    EXPECT_EQ(head.fields[3].name, "content-length");
    EXPECT_EQ(head.fields[3].value, "5");
    EXPECT_EQ(std::string(head.end, 5), "hello");
}

TEST(ResponseHead, SaysNoUntilTheHeadIsWhole) {
    const std::string text = "HTTP/1.1 200 OK\r\nServer: uvicorn and more than sixteen\r\nA: b\r\n\r\n";
    ResponseHead head;
    for (size_t size = 0; size < text.size(); ++size) {
        EXPECT_FALSE(parse(text.substr(0, size), head)) << size;
    }
    EXPECT_TRUE(parse(text, head));
}

TEST(ResponseHead, DoesNotBelieveBytesBehindTheEnd) {
    const std::string text = "HTTP/1.1 200 OK\r\nA: b\r\n\r\n";
    ResponseHead head;
    for (size_t size = 0; size < text.size(); ++size) {
        EXPECT_FALSE(parse_response_head(text.data(), text.data() + size, text.data() + text.size(), head))
            << size;
    }
}

TEST(ResponseHead, LeavesTheRestToNginx) {
    ResponseHead head;
    for (const char* text :
         {"HTTP/1.0 200 OK\r\n\r\n", "HTTP/2 200\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
          "HTTP/1.1 103 Hints\r\n\r\n", "HTTP/1.1 99 X\r\n\r\n", "HTTP/1.1 600 X\r\n\r\n",
          "HTTP/1.1 2x0 X\r\n\r\n", "HTTP/1.1 2000 X\r\n\r\n", "HTTP/1.1  200 OK\r\n\r\n",
          "http/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\n\n", "HTTP/1.1 200 O\x01K\r\n\r\n",
          "HTTP/1.1 200 OK\r\nA: b\n\r\n", "HTTP/1.1 200 OK\r\nA: b\r\r\n\r\n",
          "HTTP/1.1 200 OK\r\nA\r\n\r\n", "HTTP/1.1 200 OK\r\n: b\r\n\r\n",
          "HTTP/1.1 200 OK\r\nA: b\tc\r\n\r\n",
          "HTTP/1.1 200 OK\r\nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn: b\r\n\r\n"}) {
        EXPECT_FALSE(parse(text, head)) << text;
    }
}

TEST(ResponseHead, CountsFields) {
    std::string text = "HTTP/1.1 200 OK\r\n";
    ResponseHead head;
    for (size_t i = 0; i < ResponseHead::kMaxFields; ++i) {
        text += "A: b\r\n";
    }
    EXPECT_TRUE(parse(text + "\r\n", head));
    EXPECT_EQ(head.count, ResponseHead::kMaxFields);
    EXPECT_FALSE(parse(text + "A: b\r\n\r\n", head));
}

const HeaderName* intern(HeaderNames& names, const std::string& name, int& fresh) {
    return names.intern(name, name.size(), [&](HeaderName&) { ++fresh; });
}

TEST(HeaderNames, KeepsEachSpellingOnce) {
    HeaderNames names;
    int fresh = 0;
    const HeaderName* first = intern(names, "Content-Type", fresh);
    ASSERT_NE(first, nullptr);
    EXPECT_STREQ(first->lower, "content-type");
    EXPECT_EQ(intern(names, "Content-Type", fresh), first);
    const HeaderName* other = intern(names, "content-type", fresh);
    EXPECT_NE(other, first);
    EXPECT_EQ(other->hash, first->hash);
    EXPECT_EQ(fresh, 2);
}

TEST(HeaderNames, HashesAsNginxDoes) {
    HeaderNames names;
    int fresh = 0;
    uint64_t hash = 0;
    for (char c : std::string("x-a_1")) {
        hash = hash * 31 + static_cast<uint8_t>(c);
    }
    EXPECT_EQ(intern(names, "X-A_1", fresh)->hash, hash);
}

TEST(HeaderNames, ComparesBytesBeyondTheFirstBlock) {
    HeaderNames names;
    int fresh = 0;
    const std::string padded = "access-control-allow-origin              ";
    const HeaderName* first = intern(names, "access-control-allow-origin", fresh);
    EXPECT_EQ(names.intern(std::string_view(padded).substr(0, 27), padded.size(), [](HeaderName&) {}), first);
    EXPECT_NE(intern(names, "access-control-allow-methods", fresh), first);
    EXPECT_NE(intern(names, "access-control-allow-origim", fresh), first);
    EXPECT_EQ(fresh, 3);
}

TEST(HeaderNames, RefusesWhatIsNoOrdinaryName) {
    HeaderNames names;
    int fresh = 0;
    for (const std::string& name :
         {std::string(), std::string("a b"), std::string("a\0b", 3), std::string("a:"),
          std::string("caf\xc3\xa9"), std::string(HeaderName::kCapacity, 'a')}) {
        EXPECT_EQ(intern(names, name, fresh), nullptr) << name;
    }
    EXPECT_EQ(fresh, 0);
}

TEST(HeaderNames, StaysBoundedAndKeepsWhatItHas) {
    HeaderNames names;
    int fresh = 0;
    const HeaderName* first = intern(names, "server", fresh);
    int refused = 0;
    for (int i = 0; i < 10000; ++i) {
        refused += intern(names, "x-" + std::to_string(i), fresh) == nullptr ? 1 : 0;
    }
    EXPECT_GT(refused, 9000);
    EXPECT_EQ(intern(names, "server", fresh), first);
}

}  // namespace
}  // namespace llm::core
