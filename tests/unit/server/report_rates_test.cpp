#include <gtest/gtest.h>

#include "engine_worker/server/report_publisher.hpp"

namespace llm::engine {
namespace {

TEST(RecentRates, CoverTheLastTwoSeconds) {
    RecentRates rates;
    EngineReport report;
    // Two users, 10 tokens/s each for four seconds, then silence.
    for (int i = 0; i <= 40; ++i) {
        report.tokens_out = 2.0 * i;
        report.decode_tokens = 2.0 * i;
        report.user_seconds = 0.2 * i;
        rates.apply(report, 100 + 0.1 * i);
    }
    EXPECT_NEAR(report.tokens_per_second, 20, 1e-6);
    EXPECT_NEAR(report.tokens_per_second_per_user, 10, 1e-6);
    for (int i = 1; i <= 30; ++i) {
        rates.apply(report, 104 + 0.1 * i);
    }
    EXPECT_EQ(report.tokens_per_second, 0);
    EXPECT_EQ(report.tokens_per_second_per_user, 0);
}

// What a restarted engine counts from zero is no speed below zero: gateways refuse such a report.
TEST(RecentRates, BeginAnewWithEveryBoot) {
    RecentRates rates;
    EngineReport report;
    report.boot = 1;
    report.tokens_out = report.decode_tokens = 400;
    report.user_seconds = 20;
    rates.apply(report, 100);
    report.boot = 2;
    report.tokens_out = report.decode_tokens = 30;
    report.user_seconds = 1;
    rates.apply(report, 100.5);
    EXPECT_EQ(report.tokens_per_second, 0);
    EXPECT_EQ(report.tokens_per_second_per_user, 0);
    report.tokens_out = report.decode_tokens = 50;
    report.user_seconds = 2;
    rates.apply(report, 101.5);
    EXPECT_NEAR(report.tokens_per_second, 20, 1e-6);
    EXPECT_NEAR(report.tokens_per_second_per_user, 20, 1e-6);
}

}  // namespace
}  // namespace llm::engine
