// The breaker: when an engine is left alone, and tried again.
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

using EngineBreaker = WithTwoClients;

void fail_once(TestZone& z, uint32_t retries = 0) {
    const Verdict v = z.send(1);
    ASSERT_EQ(v.decision, Decision::granted);
    ZoneLock lock(z.zone);
    retry(lock, v.ticket, Failure::connect, retries, WhenFull::fail, z.now, 0x80000000u, z.wakes);
    finish(lock, v.ticket, Outcome::engine_error, {}, z.now, z.wakes);
}

// Of the one engine that there is then.
void open_breaker(TestZone& z) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 8}}));
    for (int i = 0; i < 3; ++i) {
        fail_once(z);
    }
}

TEST_F(EngineBreaker, BreakerOpensProbesAndCloses) {
    ASSERT_NO_FATAL_FAILURE(open_breaker(z));
    EXPECT_EQ(z.engine(0).breaker, Breaker::open);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_no_engine);
    z.tick(5'000'000);
    const Verdict probe = z.send(1);
    ASSERT_EQ(probe.decision, Decision::granted);
    EXPECT_EQ(z.engine(0).breaker, Breaker::half_open);
    EXPECT_EQ(z.send(2).reason, Outcome::rejected_no_engine) << "one probe at a time";
    {
        ZoneLock lock(z.zone);
        response_head(lock, probe.ticket, 200, z.now, 1, z.wakes);
    }
    EXPECT_EQ(z.engine(0).breaker, Breaker::closed);
    EXPECT_EQ(z.send(2).decision, Decision::granted);
}

TEST_F(EngineBreaker, AFailedProbeBacksOffForLonger) {
    ASSERT_NO_FATAL_FAILURE(open_breaker(z));
    z.tick(5'000'000);
    fail_once(z);
    z.tick(5'000'000);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_no_engine) << "7.5 s with this jitter";
    z.tick(5'000'000);
    EXPECT_EQ(z.send(1).decision, Decision::granted);
}

TEST_F(EngineBreaker, ACancelledProbeLetsAnotherThrough) {
    ASSERT_NO_FATAL_FAILURE(open_breaker(z));
    z.tick(5'000'000);
    const Verdict probe = z.send(1);
    z.drop(probe.ticket);
    EXPECT_EQ(z.send(1).decision, Decision::granted);
}

TEST_F(EngineBreaker, WaitingRequestsProbeWhenThePauseIsOver) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(2);
    const Verdict waiting = z.send(1);
    {
        ZoneLock lock(z.zone);
        for (int i = 0; i < 3; ++i) {
            retry(lock, running.ticket, Failure::reset, 0, WhenFull::fail, z.now, 1, z.wakes);
        }
        finish(lock, running.ticket, Outcome::engine_error, {}, z.now, z.wakes);
    }
    EXPECT_EQ(z.totals().queued, 1u);
    z.tick(5'000'000);
    EXPECT_EQ(z.take_all().size(), 1u);
    z.end(waiting.ticket);
}

}  // namespace
}  // namespace llm::core
