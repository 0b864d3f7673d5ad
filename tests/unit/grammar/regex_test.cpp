#include "engine_worker/grammar/regex.hpp"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "engine_worker/grammar/char_set.hpp"
#include "engine_worker/tokenizer/unicode.hpp"
#include "tests/unit/grammar/grammar_support.hpp"

namespace llm::engine {
namespace {

using testing::Reading;

bool matches(const std::string& pattern, const std::string& text, int32_t min = 0, int32_t max = kUnbounded) {
    GrammarBuilder builder;
    const int32_t rule = builder.add_rule();
    const int32_t done = builder.add_node(rule);
    builder.end(done);
    add_json_text(builder, builder.start(rule), parse_regex(pattern), min, max, done);
    const std::string quoted = json_quoted(text);
    return testing::read_with(builder.finish(rule), quoted.substr(1, quoted.size() - 2)) == Reading::whole;
}

TEST(Regex, FindsWhatEcmaScriptFinds) {
    EXPECT_TRUE(matches("^a+b?$", "aaab"));
    EXPECT_FALSE(matches("^a+b?$", "b"));
    EXPECT_TRUE(matches("b", "abc")) << "not anchored";
    EXPECT_FALSE(matches("b", "ac"));
    EXPECT_TRUE(matches("^(?:ab|cd){2,3}$", "abcdab"));
    EXPECT_FALSE(matches("^(?:ab|cd){2,3}$", "ab"));
    EXPECT_FALSE(matches("^(?:ab|cd){2,3}$", "abababab"));
    EXPECT_TRUE(matches("^a$|^b", "bcd"));
    EXPECT_FALSE(matches("^a$|^b", "ab"));
    EXPECT_TRUE(matches("^[^a-y]z*?$", "\xC3\xA9zz")) << "a class is of characters, not of bytes";
    EXPECT_FALSE(matches("^.$", "\n"));
    EXPECT_TRUE(matches("^\\S\\s\\w\\d\\D\\W$", "x\t_7a-"));
    EXPECT_TRUE(matches("^\\u00e9\\x41\\u{1F680}\\uD83D\\uDE80$",
                        "\xC3\xA9"
                        "A\xF0\x9F\x9A\x80\xF0\x9F\x9A\x80"));
    EXPECT_TRUE(matches("^(?<year>\\d{4})\\.[\\]\\-x]$", "2024.-"));
    EXPECT_TRUE(matches("^\"\\\\$", "\"\\")) << "what JSON escapes";
    EXPECT_TRUE(matches("^\\x01$", "\x01"));
    EXPECT_TRUE(matches("", "anything"));
}

TEST(Regex, CountsCharactersBesideThePattern) {
    EXPECT_TRUE(matches("^a+$", "aaa", 2, 3));
    EXPECT_FALSE(matches("^a+$", "a", 2, 3));
    EXPECT_FALSE(matches("^a+$", "aaaa", 2, 3));
    EXPECT_TRUE(matches("^[\xC3\xA9]+$", "\xC3\xA9\xC3\xA9", 2, 2));
    EXPECT_TRUE(matches("^a+$", "aaaaaaa", 2));
}

// In any order, and side by side, and one within another.
TEST(Regex, TakesClassesOfManyCharacters) {
    std::vector<uint32_t> all;
    for (uint32_t c = 0; c < 15000; ++c) {
        all.push_back(0x20000 + 2 * (c * 7919 % 15000));  // each once
    }
    std::string members;
    for (const uint32_t c : all) {
        unicode::append_utf8(members, c);
    }
    EXPECT_TRUE(matches("^[" + members + "]+$", members.substr(0, 400)));
    EXPECT_FALSE(matches("^[" + members + "]$", "\xF0\xA0\x80\x81")) << "U+20001 lies between two of them";
    CharSet set;
    for (const auto& [low, high] : std::vector<std::pair<uint32_t, uint32_t>>{
             {10, 12}, {20, 22}, {13, 13}, {30, 40}, {32, 33}, {15, 18}, {14, 31}, {50, 50}, {49, 51}}) {
        set.add(low, high);
    }
    ASSERT_EQ(set.ranges().size(), 2U);
    EXPECT_EQ(set.ranges()[0].low, 10U);
    EXPECT_EQ(set.ranges()[0].high, 40U);
    EXPECT_EQ(set.ranges()[1].low, 49U);
    EXPECT_EQ(set.ranges()[1].high, 51U);
    EXPECT_THROW(parse_regex(std::string(200'000, 'a')), GrammarError);
}

TEST(Regex, NamesWhatItDoesNotKnow) {
    for (const std::string pattern :
         {"(?=a)", "(?<!a)b", "a\\b", "(a)\\1", "\\p{L}", "(a", "a)", "[a", "a**", "a{2", "a{3,2}", "x^",
          "(a$)", "\\u12", "\\", "{", "a{99999999999}", "[z-a]"}) {
        EXPECT_THROW(parse_regex(pattern), GrammarError) << pattern;
    }
    EXPECT_THROW(matches("^(a{1000}){1000}$", ""), GrammarError) << "too large";
}

}  // namespace
}  // namespace llm::engine
