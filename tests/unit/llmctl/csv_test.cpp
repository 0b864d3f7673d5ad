#include "tools/llmctl/csv.hpp"

#include <gtest/gtest.h>

namespace llm::ctl {
namespace {

std::vector<CsvRow> rows(std::string_view text) {
    std::vector<CsvRow> out;
    EXPECT_EQ(parse_csv(text, out), "") << text;
    return out;
}

TEST(Csv, SplitsRowsAndFields) {
    EXPECT_EQ(rows("a,b\n1,\n"), (std::vector<CsvRow>{{"a", "b"}, {"1", std::nullopt}}));
    EXPECT_EQ(rows("\xef\xbb\xbf"
                   "a\r\n1\r\n"),
              (std::vector<CsvRow>{{"a"}, {"1"}}));
    EXPECT_EQ(rows("a\n\n\nb"), (std::vector<CsvRow>{{"a"}, {"b"}}));
    EXPECT_EQ(rows(",\n"), (std::vector<CsvRow>{{std::nullopt, std::nullopt}}));
    EXPECT_TRUE(rows("").empty());
}

TEST(Csv, QuotesHoldAnything) {
    EXPECT_EQ(rows("\"a,b\",\"c\"\"d\",\"e\nf\",\"\"\n"), (std::vector<CsvRow>{{"a,b", "c\"d", "e\nf", ""}}));
    EXPECT_EQ(rows("\"\""), (std::vector<CsvRow>{{""}}));
}

TEST(Csv, SaysWhereItIsBroken) {
    std::vector<CsvRow> out;
    EXPECT_NE(parse_csv("a\n\"b", out).find("line 2"), std::string::npos);
    EXPECT_NE(parse_csv("a\nb\"c", out).find("line 2"), std::string::npos);
    EXPECT_NE(parse_csv("\"a\"b", out), "");
}

}  // namespace
}  // namespace llm::ctl
