#include "shared/command_line.hpp"

#include <gtest/gtest.h>

#include <string>

namespace llm {
namespace {

std::string hidden(std::string text) {
    char program[] = "program";
    char* argv[] = {program, text.data(), nullptr};
    hide_passwords(2, argv);
    return text;
}

TEST(CommandLine, PasswordsOfUrlsAreCovered) {
    EXPECT_EQ(hidden("redis://engine:se@cr:et@host:6379/0"), "redis://engine:********@host:6379/0");
    EXPECT_EQ(hidden("redis://:secret@host"), "redis://:******@host");
    EXPECT_EQ(hidden("unix://u:secret@/run/redis.sock?db=1"), "unix://u:******@/run/redis.sock?db=1");
    EXPECT_EQ(hidden("--redis=redis://u:secret@host"), "--redis=redis://u:******@host");
    EXPECT_EQ(hidden("https://user:secret@gateway/llm/"), "https://user:******@gateway/llm/");
    EXPECT_EQ(hidden("postgresql:///llm?user=a&password=secret&sslmode=require"),
              "postgresql:///llm?user=a&password=******&sslmode=require");
    EXPECT_EQ(hidden("host=db password=secret dbname=llm"), "host=db password=****** dbname=llm");
    EXPECT_EQ(hidden("password="), "password=");
}

TEST(CommandLine, TheRestStaysAsItIs) {
    for (const char* text : {"", "--redis", "redis://host:6379/0", "redis://user@host", "http://[::1]:8000", "gpu0@host:1",
                             "http://host:1/a@b", "://", "unix:/run/redis.sock", "a:b@c"}) {
        EXPECT_EQ(hidden(text), text);
    }
}

}  // namespace
}  // namespace llm
