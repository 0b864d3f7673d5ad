#include "ngx_module/core/text/bearer.hpp"

#include <gtest/gtest.h>

#include <string>

namespace llm::core {
namespace {

using namespace std::string_view_literals;

TEST(Bearer, TakesTheToken) {
    for (std::string_view value :
         {"Bearer sk-1"sv, "bearer sk-1"sv, "BEARER   sk-1"sv, " Bearer sk-1\t "sv}) {
        const Bearer bearer = parse_bearer(value);
        EXPECT_EQ(bearer.status, BearerStatus::ok) << value;
        EXPECT_EQ(bearer.token, "sk-1") << value;
    }
    EXPECT_EQ(parse_bearer("Bearer !~a,b;c=\"d\"").token, "!~a,b;c=\"d\"");
}

TEST(Bearer, KnowsNothingFromSomethingElse) {
    for (auto parse : {parse_bearer, parse_bearer_exact}) {
        for (std::string_view value : {""sv, " "sv, "\t "sv}) {
            EXPECT_EQ(parse(value).status, BearerStatus::missing);
        }
        for (std::string_view value :
             {"Bearer"sv, "Bearer "sv, "sk-1"sv, "Basic dTpw"sv, "Bearersk-1"sv, "Bearer a b"sv,
              "Bearer a\tb"sv, "Bearer a\0b"sv, "Bearer \x80"sv, "Bearer a\x7f"sv, "Bearer a\x1f"sv,
              "Beareb a"sv, "Bearer: a"sv, "\"Bearer a\""sv}) {
            const Bearer bearer = parse(value);
            EXPECT_EQ(bearer.status, BearerStatus::malformed) << value;
            EXPECT_EQ(bearer.token, "") << value;
        }
    }
}

TEST(Bearer, BoundsTheToken) {
    const std::string longest(kMaxBearerToken, 't');
    EXPECT_EQ(parse_bearer("Bearer " + longest).status, BearerStatus::ok);
    EXPECT_EQ(parse_bearer("Bearer " + longest + "t").status, BearerStatus::malformed);
    EXPECT_TRUE(is_bearer_token(longest));
    for (const std::string& none : {longest + "t", std::string(), std::string("a b"), std::string("t\xc3\xb6k")}) {
        EXPECT_FALSE(is_bearer_token(none));
    }
}

TEST(Bearer, IsExactWhereAsked) {
    EXPECT_EQ(parse_bearer_exact("Bearer sk-1").token, "sk-1");
    EXPECT_EQ(parse_bearer_exact("Bearer \t sk-1").token, "sk-1");
    EXPECT_EQ(parse_bearer("Bearer\tsk-1").status, BearerStatus::malformed);
    EXPECT_EQ(parse_bearer_exact("bearer sk-1").status, BearerStatus::malformed);
    EXPECT_EQ(parse_bearer_exact("BEARER sk-1").status, BearerStatus::malformed);
}

}  // namespace
}  // namespace llm::core
