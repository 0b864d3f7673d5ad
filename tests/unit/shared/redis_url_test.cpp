#include "shared/redis_url.hpp"

#include <gtest/gtest.h>

namespace llm {
namespace {

TEST(RedisUrl, Forms) {
    RedisUrl url;
    ASSERT_EQ(parse_redis_url("redis://127.0.0.1", url), "");
    EXPECT_EQ(url.host, "127.0.0.1");
    EXPECT_EQ(url.port, 6379);
    EXPECT_FALSE(url.tls);

    ASSERT_EQ(parse_redis_url("rediss://me:p%40ss:w@[::1]:7000/3", url), "");
    EXPECT_TRUE(url.tls);
    EXPECT_EQ(url.user, "me");
    EXPECT_EQ(url.password, "p@ss:w");
    EXPECT_EQ(url.host, "::1");
    EXPECT_EQ(url.port, 7000);
    EXPECT_EQ(url.database, 3u);

    ASSERT_EQ(parse_redis_url("redis://:secret@redis.example:6380/", url), "");
    EXPECT_EQ(url.user, "");
    EXPECT_EQ(url.password, "secret");
    EXPECT_EQ(url.host, "redis.example");

    ASSERT_EQ(parse_redis_url("unix:/run/redis.sock?db=2", url), "");
    EXPECT_EQ(url.socket_path, "/run/redis.sock");
    EXPECT_EQ(url.database, 2u);
}

TEST(RedisUrl, WhatIsWrongIsSaid) {
    RedisUrl url;
    for (const char* text : {"", "http://h", "redis://", "redis://:6379", "redis://h:0", "redis://h:65536", "redis://h:x",
                             "redis://h/x", "redis://%zz@h", "unix:relative", "unix:/s?x=1", "redis://[::1"}) {
        EXPECT_NE(parse_redis_url(text, url), "") << text;
    }
}

}  // namespace
}  // namespace llm
