#include "engine_worker/scheduler/text_output.hpp"

#include <gtest/gtest.h>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"

namespace llm::engine {
namespace {

struct Result {
    std::string text;
    bool stopped = false;
    std::vector<std::string> pieces;
};

// Every byte is a token here, so every stop string crosses token borders.
Result run(const std::string& text, const std::vector<std::string>& stops, bool include_stop = false) {
    const auto tokenizer = make_byte_tokenizer();
    TextOutput output(*tokenizer, stops, include_stop);
    Result result;
    for (const unsigned char c : text) {
        std::string piece;
        result.stopped = output.push(c, piece);
        result.pieces.push_back(piece);
        result.text += piece;
        if (result.stopped) {
            return result;
        }
    }
    std::string rest;
    result.stopped = output.finish(rest);
    result.text += rest;
    return result;
}

TEST(TextOutput, PassesTextThroughWithoutStops) {
    const Result result = run("hello", {});
    EXPECT_EQ(result.text, "hello");
    EXPECT_EQ(result.pieces[0], "h");
    EXPECT_FALSE(result.stopped);
}

TEST(TextOutput, StopsBeforeTheStopString) {
    const Result result = run("one two three", {"two"});
    EXPECT_TRUE(result.stopped);
    EXPECT_EQ(result.text, "one ");
}

TEST(TextOutput, LeavesTheStopStringInIfAsked) {
    EXPECT_EQ(run("one two three", {"two"}, true).text, "one two");
}

TEST(TextOutput, GivesHeldTextBackWhenItWasNoStop) {
    const Result result = run("abcabd", {"abce"});
    EXPECT_FALSE(result.stopped);
    EXPECT_EQ(result.text, "abcabd");
    EXPECT_EQ(result.pieces[2], "");     // "abc" may still become "abce"
    EXPECT_EQ(result.pieces[3], "abc");  // no longer
}

TEST(TextOutput, TheEarliestOfSeveralStopsWins) {
    EXPECT_EQ(run("xxENDyySTOP", {"STOP", "END"}).text, "xx");
    EXPECT_EQ(run("aab", {"ab", "b"}).text, "a");
    EXPECT_EQ(run("aaab", {"aab"}).text, "a");  // overlapping starts
}

TEST(TextOutput, NeverEmitsHalfACharacter) {
    const Result result = run("a\xC3\xA9\xE2\x82\xAC", {});
    EXPECT_EQ(result.text, "a\xC3\xA9\xE2\x82\xAC");
    EXPECT_EQ(result.pieces[1], "");
    EXPECT_EQ(result.pieces[2], "\xC3\xA9");
    EXPECT_EQ(run("a\xC3", {}).text, "a\xEF\xBF\xBD");  // an end inside a character
}

TEST(TextOutput, FindsAStopOfMultibyteCharacters) {
    const Result result = run("price 5\xE2\x82\xAC and", {"\xE2\x82\xAC"});
    EXPECT_TRUE(result.stopped);
    EXPECT_EQ(result.text, "price 5");
}

// At every possible border the text up to the stop must be the same as when searched at once.
TEST(TextOutput, AgreesWithASearchOverTheWholeText) {
    const std::string alphabet = "ab";
    for (uint32_t bits = 0; bits < 1u << 10; ++bits) {
        std::string text;
        for (int i = 0; i < 10; ++i) {
            text += alphabet[bits >> i & 1];
        }
        for (const std::string stop : {"aba", "abb", "aabb"}) {
            const size_t at = text.find(stop);
            const Result result = run(text, {stop});
            ASSERT_EQ(result.stopped, at != std::string::npos) << text << " " << stop;
            ASSERT_EQ(result.text, text.substr(0, at)) << text << " " << stop;
        }
    }
}

}  // namespace
}  // namespace llm::engine
