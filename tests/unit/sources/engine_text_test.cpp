// Small pure parts around engines and connections: URLs, back-off, log text.
#include <gtest/gtest.h>

#include "ngx_module/sources/backoff.hpp"
#include "ngx_module/sources/engine_url.hpp"
#include "ngx_module/sources/log_text.hpp"

namespace llm::nginx::sources {
namespace {

TEST(EngineUrl, TakesHostsAndPorts) {
    EngineUrl url;
    ASSERT_TRUE(parse_engine_url("http://10.0.0.5:8000", url));
    EXPECT_FALSE(url.tls);
    EXPECT_EQ(url.host, "10.0.0.5");
    EXPECT_EQ(url.port, 8000);
    EXPECT_EQ(url.authority, "10.0.0.5:8000");
    ASSERT_TRUE(parse_engine_url("https://engine.example.org/", url));
    EXPECT_TRUE(url.tls);
    EXPECT_EQ(url.port, 443);
    EXPECT_EQ(url.authority, "engine.example.org");
    ASSERT_TRUE(parse_engine_url("http://[2001:db8::1]", url));
    EXPECT_EQ(url.host, "2001:db8::1");
    EXPECT_EQ(url.port, 80);
    EXPECT_EQ(url.authority, "[2001:db8::1]");
    ASSERT_TRUE(parse_engine_url("http://[::1]:9", url));
    EXPECT_EQ(url.port, 9);
}

TEST(EngineUrl, RefusesTheRest) {
    EngineUrl url;
    for (const char* bad : {"", "http://", "ftp://h", "h:80", "http://h:", "http://h:0", "http://h:65536",
                            "http://h:8x", "http://u@h", "http://h/path", "http://h?x", "http://[::1",
                            "http://[]", "http://[::1]8", "http://::1", "http://h :80"}) {
        EXPECT_FALSE(parse_engine_url(bad, url)) << bad;
    }
}

TEST(Backoff, GrowsWithJitterUpToItsCap) {
    for (const uint32_t random : {0u, 1u, 12345u, 0xffffffffu}) {
        Backoff backoff(100, 1'000);
        uint32_t full = 100;
        for (int i = 0; i < 100; ++i) {
            const uint32_t delay = backoff.next(random);
            EXPECT_GE(delay, full / 2);
            EXPECT_LE(delay, full);
            full = std::min(full * 2, 1'000u);
        }
        backoff.reset();
        EXPECT_LE(backoff.next(random), 100u);
    }
    Backoff spread(100, 1'000);
    EXPECT_NE(spread.next(1), Backoff(100, 1'000).next(2));
}

TEST(LogText, HasNoControlCharactersAndAnEnd) {
    EXPECT_EQ(printable("a\nb\x1b[31m\x7f"), "a?b?[31m?");
    EXPECT_EQ(printable("Grüße"), "Grüße");
    EXPECT_EQ(printable(std::string(500, 'x'), 10), "xxxxxxxxxx");
}

}  // namespace
}  // namespace llm::nginx::sources
