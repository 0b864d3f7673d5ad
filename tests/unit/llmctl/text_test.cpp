#include "tools/llmctl/text.hpp"

#include <gtest/gtest.h>

#include <clocale>

namespace llm::ctl {
namespace {

TEST(Text, NothingSteersATerminal) {
    EXPECT_EQ(visible("plain äöü 模型"), "plain äöü 模型");
    EXPECT_EQ(visible("a\x1b[2Jb\r\n\t"), "a?[2Jb???");
    EXPECT_EQ(visible("a\u009bb\u202ec\u200bd\u2066e"), "a?b?c?d?e");
    EXPECT_EQ(visible("a\u061cb"), "a?b");
    EXPECT_EQ(visible("\xff\xc0\x80\xed\xa0\x80 \xe6\xa8"), "???? ??");
    EXPECT_EQ(visible(std::string_view("a\0b", 3)), "a?b");
}

TEST(Text, FitsWideCharacters) {
    ASSERT_NE(std::setlocale(LC_CTYPE, "C.UTF-8"), nullptr);
    EXPECT_EQ(columns_of("ab模型"), 6u);
    EXPECT_EQ(fit("ab", 4), "ab  ");
    EXPECT_EQ(fit("ab", 4, true), "  ab");
    EXPECT_EQ(fit("abcdef", 4), "abc…");
    EXPECT_EQ(fit("模型模型", 4), "模… ");
    EXPECT_EQ(fit("模型", 4), "模型");
    EXPECT_EQ(fit("abc", 0), "");
}

TEST(Text, TablesKeepToTheirWidth) {
    Table table({"NAME", ">N"});
    table.add({"a name that is rather long", "1"});
    table.add({"b", "1000"});
    EXPECT_EQ(table.text(),
              "NAME                           N\na name that is rather long     1\nb                         "
              "  1000\n");
    for (const std::string& line : table.lines(20)) {
        EXPECT_LE(columns_of(line), 20u) << line;
    }
    for (const std::string& line : table.lines(3)) {
        EXPECT_LE(columns_of(line), 3u) << line;
    }
}

TEST(Text, NumbersForPeople) {
    EXPECT_EQ(duration_text(12), "12 ms");
    EXPECT_EQ(duration_text(1500), "1.5 s");
    EXPECT_EQ(duration_text(90'000), "90 s");
    EXPECT_EQ(duration_text(600'000), "10 min");
    EXPECT_EQ(duration_text(-1), "");
    EXPECT_EQ(amount_text(0), "0");
    EXPECT_EQ(amount_text(2.5), "2.5");
    EXPECT_EQ(amount_text(999), "999");
    EXPECT_EQ(amount_text(12'345), "12.3k");
    EXPECT_EQ(amount_text(5'000'000), "5.0M");
}

}  // namespace
}  // namespace llm::ctl
