#include "engine_worker/reporter/report_maker.hpp"

#include <gtest/gtest.h>

namespace llm::reporter {
namespace {

constexpr uint64_t kStart = 1'763'700'000'000;

class Maker : public testing::Test {
  protected:
    Maker() {
        options_.fixed.id = "e";
        options_.fixed.url = "http://e:1";
        options_.fixed.ttl_ms = 3000;
        maker_ = std::make_unique<ReportMaker>(options_);
    }

    static Observation up(double tokens, double seconds = 0, double waiting = 0) {
        Observation out;
        out.health = Health::up;
        out.models = {"m"};
        out[Field::running] = 2;
        out[Field::waiting] = waiting;
        out[Field::tokens_in] = tokens;
        out[Field::tokens_out] = tokens;
        out[Field::decode_tokens] = tokens;
        out[Field::user_seconds] = seconds;
        out[Field::completed] = tokens / 10;
        return out;
    }
    static Observation is(Health health, bool with_models = true) {
        Observation out;
        out.health = health;
        out.why = "why";
        out.models = with_models ? std::vector<std::string>{"m"} : std::vector<std::string>{};
        return out;
    }
    std::optional<EngineReport> take(const Observation& seen, double now) {
        return maker_->take(seen, now, kStart + static_cast<uint64_t>(now * 1000));
    }
    // The state told at `now`, or "silence".
    std::string state(const Observation& seen, double now) {
        const auto report = take(seen, now);
        return report ? std::string(to_string(report->state)) : "silence";
    }

    MakerOptions options_;
    std::unique_ptr<ReportMaker> maker_;
};

TEST_F(Maker, CountsFromTheBootOn) {
    const auto first = take(up(1000, 50), 1);
    ASSERT_TRUE(first);
    EXPECT_EQ(first->state, EngineState::ready);
    EXPECT_EQ(first->tokens_out, 0);  // others have had those
    EXPECT_EQ(first->user_seconds, 0);
    EXPECT_GE(first->boot, kStart + 1000);
    EXPECT_LE(first->boot, kStart + 1010);
    EXPECT_TRUE(first->has_counters);
    const auto second = take(up(1200, 60), 3);
    EXPECT_EQ(second->boot, first->boot);
    EXPECT_EQ(second->tokens_out, 200);
    EXPECT_EQ(second->decode_tokens, 200);
    EXPECT_EQ(second->user_seconds, 10);
    EXPECT_EQ(second->completed, 20);
    EXPECT_EQ(second->uptime_s, 2);
}

TEST_F(Maker, ARestartIsANewBootAndLosesNothing) {
    take(up(1000, 50), 1);
    const auto before = take(up(1100, 55), 2);
    const auto after = take(up(30, 2), 3);
    EXPECT_GT(after->boot, before->boot);
    EXPECT_EQ(after->tokens_out, 30);
    EXPECT_EQ(after->user_seconds, 2);
    EXPECT_EQ(after->uptime_s, 0);
}

TEST_F(Maker, ANewStartTimeIsANewBoot) {
    Observation seen = up(10);
    seen[Field::started] = 1000;
    const uint64_t boot = take(seen, 1)->boot;
    seen[Field::started] = 1000.4;  // clocks are read twice
    EXPECT_EQ(take(seen, 2)->boot, boot);
    seen = up(20);
    seen[Field::started] = 1500;
    EXPECT_GT(take(seen, 3)->boot, boot);
}

TEST_F(Maker, WhatIsMissingOnceIsNotARestart) {
    take(up(1000, 50), 1);
    take(up(1100, 55), 2);
    Observation gap;
    gap.health = Health::up;
    gap.models = {"m"};
    const auto during = take(gap, 3);
    EXPECT_FALSE(during->has_counters);
    EXPECT_EQ(during->tokens_out, 100);  // never falls
    const auto after = take(up(1150, 56), 4);
    EXPECT_EQ(after->boot, during->boot);
    EXPECT_EQ(after->tokens_out, 150);
    EXPECT_TRUE(after->has_counters);
}

TEST_F(Maker, ACounterThatAppearsLateStartsAtItsOwnValue) {
    Observation seen = up(10);
    seen[Field::user_seconds].reset();
    EXPECT_FALSE(take(seen, 1)->has_counters);
    EXPECT_EQ(take(up(20, 5), 2)->user_seconds, 5);
}

TEST_F(Maker, OnlyThoseWhoWaitedForASecondWait) {
    EXPECT_EQ(take(up(1, 0, 5), 1)->waiting, 0u);
    EXPECT_EQ(take(up(1, 0, 5), 1.5)->waiting, 0u);
    EXPECT_EQ(take(up(1, 0, 4), 2)->waiting, 4u);
    EXPECT_EQ(take(up(1, 0, 9), 2.5)->waiting, 4u);
    EXPECT_EQ(take(up(1, 0, 9), 3.6)->waiting, 9u);
    EXPECT_EQ(take(up(1, 0, 0), 3.7)->waiting, 0u);
}

TEST_F(Maker, States) {
    EXPECT_EQ(state(is(Health::absent, false), 1), "silence");  // of what models?
    EXPECT_EQ(state(is(Health::strange), 2), "silence");
    EXPECT_EQ(state(is(Health::silent), 2), "silence");
    EXPECT_EQ(state(is(Health::absent), 3), "loading");
    EXPECT_EQ(state(is(Health::not_ready), 4), "loading");
    EXPECT_EQ(state(up(1), 5), "ready");
    EXPECT_EQ(state(is(Health::silent), 100), "silence");   // busy
    EXPECT_EQ(state(is(Health::strange), 100), "silence");  // a proxy answers for it
    EXPECT_EQ(state(is(Health::not_ready), 101), "failed");
    EXPECT_EQ(state(up(2), 102), "ready");
    EXPECT_EQ(state(is(Health::absent), 103), "silence");  // restarting, perhaps
    EXPECT_EQ(state(is(Health::absent), 107.9), "silence");
    EXPECT_EQ(state(is(Health::absent), 108), "failed");
    EXPECT_EQ(state(up(3), 109), "ready");
    EXPECT_EQ(state(is(Health::absent), 110), "silence");
    EXPECT_EQ(state(is(Health::silent), 111), "silence");  // somebody listens
    EXPECT_EQ(state(is(Health::absent), 200), "silence");
    EXPECT_EQ(state(is(Health::absent), 205), "failed");
}

TEST_F(Maker, AFailedEngineRunsNothing) {
    take(up(5), 1);
    const auto report = take(is(Health::not_ready), 2);
    EXPECT_EQ(report->running, 0u);
    EXPECT_EQ(report->models, std::vector<std::string>{"m"});
}

TEST_F(Maker, LimitsOfTheOperatorGoFirst) {
    Observation seen = up(1);
    EXPECT_EQ(take(seen, 1)->max_running, 64u);
    seen[Field::max_running] = 12;
    seen[Field::max_context] = 4096;
    EXPECT_EQ(take(seen, 2)->max_running, 12u);
    EXPECT_EQ(take(seen, 2)->max_context, 4096u);
    options_.fixed.max_running = 3;
    options_.fixed.max_context = 100;
    options_.has_max_running = options_.has_max_context = true;
    ReportMaker other(options_);
    EXPECT_EQ(other.take(seen, 1, kStart)->max_running, 3u);
    EXPECT_EQ(other.take(seen, 1, kStart)->max_context, 100u);
}

TEST_F(Maker, TokensAndTheirSecondsMoveTogether) {
    take(up(1000, 50), 1);
    auto report = take(up(1100, 50), 2);  // the seconds are printed in steps
    EXPECT_EQ(report->tokens_out, 100);
    EXPECT_EQ(report->decode_tokens, 0);
    EXPECT_EQ(report->user_seconds, 0);
    report = take(up(1200, 60), 3);
    EXPECT_EQ(report->decode_tokens, 200);
    EXPECT_EQ(report->user_seconds, 10);
    report = take(up(1200, 61), 4);
    EXPECT_EQ(report->user_seconds, 10);
    report = take(up(1220, 61), 5);
    EXPECT_EQ(report->decode_tokens, 220);
    EXPECT_EQ(report->user_seconds, 11);
}

TEST_F(Maker, WithoutTimesNoSpeedIsClaimed) {
    Observation seen = up(10);
    seen[Field::user_seconds].reset();
    seen[Field::decode_tokens].reset();
    take(seen, 1);
    seen[Field::tokens_out] = 30;
    const std::string json = to_json(*take(seen, 2));
    EXPECT_EQ(json.find("user_seconds"), std::string::npos);
    EXPECT_EQ(json.find("decode_tokens"), std::string::npos);
    EXPECT_NE(json.find("\"tokens_out\":20"), std::string::npos);
    EngineReport parsed;
    EXPECT_EQ(parse_engine_report(json, parsed), "");
    EXPECT_FALSE(parsed.has_counters);
}

}  // namespace
}  // namespace llm::reporter
