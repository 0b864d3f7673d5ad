#include "engine_worker/reporter/metrics_text.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace llm::reporter {
namespace {

TEST(MetricsText, ReadsSamples) {
    std::vector<Sample> samples;
    EXPECT_EQ(parse_metrics_text("# HELP a:b text\n# TYPE a:b gauge\r\n"
                                 "a:b{x=\"1\", y=\"q\\\"\\\\\\n,}\" ,} 2.5 1700000000\n"
                                 "plain 7\n"
                                 "  spaced   +1e3  \n"
                                 "empty{} -Inf\n"
                                 "h_bucket{le=\"+Inf\"} NaN # {trace=\"z\"} 0.5",
                                 samples),
              "");
    ASSERT_EQ(samples.size(), 5u);
    EXPECT_EQ(samples[0].name, "a:b");
    EXPECT_EQ(samples[0].label("x"), "1");
    EXPECT_EQ(samples[0].label("y"), "q\"\\\n,}");
    EXPECT_EQ(samples[0].label("z"), "");
    EXPECT_EQ(samples[0].value, 2.5);
    EXPECT_EQ(samples[1].value, 7);
    EXPECT_EQ(samples[2].value, 1000);
    EXPECT_TRUE(std::isinf(samples[3].value) && samples[3].value < 0);
    EXPECT_TRUE(std::isnan(samples[4].value));
}

TEST(MetricsText, SaysWhatIsNoMetrics) {
    std::vector<Sample> samples;
    EXPECT_NE(parse_metrics_text("<!DOCTYPE html><html>", samples).find("HTML"), std::string::npos);
    EXPECT_NE(parse_metrics_text("\n  {\"detail\":\"Not Found\"}", samples).find("JSON"), std::string::npos);
    EXPECT_NE(parse_metrics_text(" \n", samples).find("empty"), std::string::npos);
    for (const char* bad :
         {"a 1\nb", "a{x} 1", "a{x=\"1} 1", "a{x=\"1\"", "a one", "a 1x", "{x=\"1\"} 2", "a{x=1} 2"}) {
        EXPECT_NE(parse_metrics_text(bad, samples), "") << bad;
    }
    EXPECT_NE(parse_metrics_text("a 1\nb two\n", samples).find("line 2"), std::string::npos);
}

}  // namespace
}  // namespace llm::reporter
