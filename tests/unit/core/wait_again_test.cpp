// Requests that their engine lost while all others were full.
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

class WaitAgain : public ::testing::Test {
  protected:
    // Two engines: the lost one ran two requests, the other has none to spare, not even the seat over its limit.
    void SetUp() override {
        z.load({{.id = 1}, {.id = 2}, {.id = 3, .tokens_per_minute = 250}});
        report(kLost, 2);
        a = z.send(1);
        b = z.send(2);
        report(kFull, 1);
        over.push_back(z.send(3).ticket);
        const Verdict one_more = z.send(2);
        ASSERT_EQ(one_more.decision, Decision::queued);
        over.push_back(one_more.ticket);
        ASSERT_EQ(lose(a.ticket, 1).action, RetryAction::again);  // the seat over the limit
        ASSERT_EQ(z.engine(full).held, 2u);
        z.drop(one_more.ticket);
        z.events();
    }

    ApplyResult report(const char* id, uint32_t max_running, uint64_t boot = 1) {
        EngineReport r = TestZone::report(id, boot, ++seq_);
        r.max_running = max_running;
        return z.apply(r);
    }

    RetryAnswer lose(Ticket ticket, uint32_t retries = 1, Failure cause = Failure::reset) {
        ZoneLock lock(z.zone);
        return retry(lock, ticket, cause, retries, WhenFull::wait, z.now, 1, z.wakes);
    }

    // Everything on the engine that is full comes to its end.
    void make_room() {
        z.end(a.ticket);
        z.end(over[0]);
    }

    // Where it was granted; kNone: it still waits.
    uint32_t take(Ticket ticket) {
        z.events();
        ZoneLock lock(z.zone);
        uint32_t engine = kNone;
        return take_up(lock, ticket, z.now, engine, z.wakes) ? engine : kNone;
    }

    static constexpr const char* kLost = "lost";
    static constexpr const char* kFull = "full";
    const uint32_t lost = 0;
    const uint32_t full = 1;
    TestZone z;
    Verdict a, b;
    std::vector<Ticket> over;

  private:
    uint64_t seq_ = 0;
};

TEST_F(WaitAgain, UntilAnotherEngineHasRoom) {
    const RetryAnswer answer = lose(b.ticket);
    EXPECT_EQ(answer.action, RetryAction::wait);
    EXPECT_EQ(answer.attempts, 1u);
    EXPECT_EQ(answer.wait_ms, 60'000u);
    EXPECT_EQ(z.totals().queued, 1u);
    EXPECT_EQ(z.engine(lost).held, 0u);
    EXPECT_EQ(z.check(), "");
    EXPECT_EQ(take(b.ticket), kNone);
    make_room();
    EXPECT_EQ(take(b.ticket), full);
    {
        ZoneLock lock(z.zone);
        EXPECT_EQ(served_as(lock, b.ticket).attempts, 2u);
    }
    EXPECT_EQ(z.end(b.ticket).attempts, 2u);
    EXPECT_EQ(z.totals().held, 0u);
    EXPECT_EQ(z.check(), "");
}

TEST_F(WaitAgain, AfterAServerErrorToo) {
    EXPECT_EQ(lose(b.ticket, 1, Failure::status_5xx).action, RetryAction::wait);
    make_room();
    EXPECT_EQ(take(b.ticket), full);
}

TEST_F(WaitAgain, OthersMayGoWhereItDoesNot) {
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    const Verdict fresh = z.send(1);
    EXPECT_EQ(fresh.decision, Decision::granted) << "it blocks nobody";
    EXPECT_EQ(fresh.engine, lost);
    EXPECT_EQ(z.check(), "");
    z.end(fresh.ticket);
    EXPECT_EQ(take(b.ticket), kNone);
}

TEST_F(WaitAgain, BeforeThoseOfItsClientThatCameLater) {
    report(kLost, 1);  // held twice: nobody goes there for now
    const Verdict later = z.send(2);
    ASSERT_EQ(later.decision, Decision::queued);
    report(kLost, 2);
    EXPECT_EQ(take(later.ticket), lost) << "a has left it";
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    const Verdict last = z.send(2);
    EXPECT_EQ(last.engine, lost);
    const Verdict waiting = z.send(2);
    ASSERT_EQ(waiting.decision, Decision::queued);
    make_room();
    EXPECT_EQ(take(b.ticket), full);
    EXPECT_EQ(take(waiting.ticket), kNone);
}

TEST_F(WaitAgain, CostsNothingMeanwhile) {
    const Verdict mine = z.send(3);  // its 100 tokens beside those of over[0], of 250 a minute
    ASSERT_EQ(mine.engine, lost);
    EXPECT_EQ(lose(mine.ticket).action, RetryAction::wait);
    report(kLost, 4);
    EXPECT_EQ(z.send(3).decision, Decision::granted);
    EXPECT_EQ(z.send(3).decision, Decision::granted);
    EXPECT_EQ(z.send(3).decision, Decision::queued);
    EXPECT_EQ(z.check(), "");
}

TEST_F(WaitAgain, ForTheTimeThatItHasNotWaitedYet) {
    report(kLost, 1);
    const Verdict late = z.send(1);
    ASSERT_EQ(late.decision, Decision::queued);
    z.pass(20'000'000);
    report(kLost, 2);
    report(kFull, 1);
    ASSERT_EQ(take(late.ticket), lost);
    z.pass(300'000'000);  // the engine had it so long
    report(kLost, 2);
    report(kFull, 1);
    const RetryAnswer answer = lose(late.ticket);
    EXPECT_EQ(answer.action, RetryAction::wait);
    EXPECT_NEAR(answer.wait_ms, 40'000, 300);
    ZoneLock lock(z.zone);
    const Timeout timeout = time_out(lock, late.ticket, z.now + 40'000'000, 0, z.wakes);
    EXPECT_TRUE(timeout.ended);
    EXPECT_EQ(timeout.reason, Outcome::rejected_queue_timeout);
}

TEST_F(WaitAgain, ATimeInWhichAllStoodStillWasNoWaiting) {
    report(kLost, 1);
    const Verdict late = z.send(1);
    ASSERT_EQ(late.decision, Decision::queued);
    z.pass(20'000'000);
    z.tick(300'000'000);
    report(kLost, 2);
    report(kFull, 1);
    ASSERT_EQ(take(late.ticket), lost);
    const RetryAnswer answer = lose(late.ticket);
    EXPECT_EQ(answer.action, RetryAction::wait);
    EXPECT_NEAR(answer.wait_ms, 40'000, 300);
}

TEST_F(WaitAgain, InVainWhenTheOthersGo) {
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    EngineReport r = TestZone::report(kFull, 1, 1000);
    r.state = EngineState::failed;
    z.apply(r);
    ZoneLock lock(z.zone);
    EXPECT_EQ(time_out(lock, b.ticket, z.now + 60'000'000, 0, z.wakes).reason, Outcome::rejected_no_engine);
}

TEST_F(WaitAgain, TheLostEngineIsGoodAgainAfterItsNextStart) {
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    report(kLost, 2);
    EXPECT_EQ(take(b.ticket), kNone) << "the same process";
    report(kLost, 2, 2);
    EXPECT_EQ(take(b.ticket), lost);
}

TEST_F(WaitAgain, TheLostEngineIsGoodAgainAfterItsProbe) {
    const Verdict more = z.send(1);
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    EXPECT_EQ(lose(more.ticket, 0).action, RetryAction::fail) << "the third in a row: its breaker opens";
    z.end(more.ticket, 0, 0, Outcome::engine_error);
    z.pass(6'000'000);
    const Verdict probe = z.send(1);
    ASSERT_EQ(probe.engine, lost);
    {
        ZoneLock lock(z.zone);
        response_head(lock, probe.ticket, 200, z.now, 1, z.wakes);
    }
    EXPECT_EQ(take(b.ticket), lost);
}

TEST_F(WaitAgain, TheLostEngineIsGoodAgainWhenItHasGoneOnAnswering) {
    const Verdict before = z.send(1);
    ASSERT_EQ(before.engine, lost);
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    const auto answered = [&](Ticket ticket) {
        ZoneLock lock(z.zone);
        response_head(lock, ticket, 200, z.now, 1, z.wakes);
    };
    z.pass(10'000);
    const Verdict soon = z.send(1);
    ASSERT_EQ(soon.engine, lost);
    z.pass(6'000'000);
    answered(before.ticket);
    answered(soon.ticket);
    z.end(before.ticket);
    z.end(soon.ticket);
    EXPECT_EQ(take(b.ticket), kNone) << "they had got there before, or hardly later";
    const Verdict later = z.send(1);
    ASSERT_EQ(later.engine, lost);
    answered(later.ticket);
    EXPECT_EQ(take(b.ticket), lost);
    EXPECT_EQ(z.check(), "");
}

TEST_F(WaitAgain, AGrantThatExpiresIsNoAttempt) {
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    make_room();
    ASSERT_EQ(z.engine(full).held, 1u);
    z.tick(kGrantLifeUs + 1, false);
    EXPECT_EQ(take(b.ticket), kNone) << "too late";
    EXPECT_EQ(z.check(), "");
    z.tick();  // its owner beats again
    EXPECT_EQ(take(b.ticket), full);
    ZoneLock lock(z.zone);
    EXPECT_EQ(served_as(lock, b.ticket).attempts, 2u);
}

TEST_F(WaitAgain, NotWithoutNeedOrHope) {
    EXPECT_EQ(lose(b.ticket, 0).action, RetryAction::fail) << "no attempt is left";
    EXPECT_EQ(lose(b.ticket, 1, Failure::status_4xx).action, RetryAction::fail) << "that was an answer";
    EXPECT_EQ(lose(b.ticket, 1, Failure::status_503).action, RetryAction::again) << "so was that";
}

TEST_F(WaitAgain, NotWhereNobodyElseIsUsable) {
    EngineReport r = TestZone::report(kFull, 1, 1000);
    r.state = EngineState::draining;
    z.apply(r);
    EXPECT_EQ(lose(b.ticket).action, RetryAction::fail);
    EXPECT_EQ(z.totals().queued, 0u);
}

TEST_F(WaitAgain, NotForAClientThatIsNoneAnyMore) {
    ZoneLock lock(z.zone);
    remove_client(lock, hash_of(2), 2, z.now, z.wall, z.wakes);
    EXPECT_EQ(retry(lock, b.ticket, Failure::reset, 1, WhenFull::wait, z.now, 1, z.wakes).action, RetryAction::fail);
}

TEST_F(WaitAgain, RevokedWhileItWaits) {
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    {
        ZoneLock lock(z.zone);
        remove_client(lock, hash_of(2), 2, z.now, z.wall, z.wakes);
    }
    const auto events = z.events();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].kind, EventKind::revoked);
    EXPECT_EQ(z.totals().queued, 0u);
}

TEST_F(WaitAgain, InTheOldOrderAfterAReloadThatChangesIt) {
    EXPECT_EQ(lose(b.ticket).action, RetryAction::wait);
    Settings s;
    s.scheduler = Scheduler::strict;
    z.settings(s);
    EXPECT_EQ(z.check(), "");
    make_room();
    EXPECT_EQ(take(b.ticket), full);
}

TEST(WaitAgainAndAgain, GoesWhereItHasNotFailedYet) {
    TestZone z;
    z.load({{.id = 1}});
    uint64_t seq = 0;
    const auto report = [&](const char* id, uint32_t running) {
        EngineReport r = TestZone::report(id, 1, ++seq);
        r.max_running = 1;
        r.running = running;  // others': from another gateway
        z.apply(r);
    };
    const auto lose = [&](Ticket ticket) {
        ZoneLock lock(z.zone);
        return retry(lock, ticket, Failure::reset, 2, WhenFull::wait, z.now, 1, z.wakes).action;
    };
    report("first", 0);
    const Verdict v = z.send(1);
    ASSERT_EQ(v.decision, Decision::granted);
    report("second", 9);
    report("third", 9);
    ASSERT_EQ(lose(v.ticket), RetryAction::wait);
    report("second", 0);
    ASSERT_EQ(z.take_all().size(), 1u);
    ASSERT_EQ(z.engine(1).held, 1u);
    report("second", 9);
    EXPECT_EQ(lose(v.ticket), RetryAction::wait);
    EXPECT_EQ(z.totals().queued, 1u) << "the first engine has room, but has failed as well";
    report("third", 0);
    EXPECT_EQ(z.take_all().size(), 1u);
    EXPECT_EQ(z.engine(2).held, 1u);
    EXPECT_EQ(z.end(v.ticket).attempts, 3u);
}

// An engine that fails now and then must not leave a pool behind each time: whoever looks for work walks them all.
TEST(TemporaryPools, GoWithTheLastThatWaits) {
    TestZone z;
    z.load({{.id = 1}});
    uint64_t seq = 0;
    for (uint64_t boot = 1; boot <= 3; ++boot) {
        EngineReport r = TestZone::report("other", 1, ++seq);
        r.running = 99;
        z.apply(r);
        z.apply(TestZone::report("flapping", boot, ++seq));
        const Verdict granted = z.send(1);
        const Verdict dropped = z.send(1);
        const Verdict aborted = z.send(1);
        for (const Verdict* v : {&granted, &dropped, &aborted}) {
            ZoneLock lock(z.zone);
            ASSERT_EQ(retry(lock, v->ticket, Failure::reset, 1, WhenFull::wait, z.now, 1, z.wakes).action,
                      RetryAction::wait);
        }
        z.drop(dropped.ticket);
        {
            ZoneLock lock(z.zone);
            abort_request(lock, aborted.ticket, z.now, z.wakes);
        }
        EXPECT_EQ(z.check(), "");
        r.seq = ++seq;
        r.running = 0;
        z.apply(r);
        EXPECT_EQ(z.totals().queued, 0u);
        EXPECT_EQ(z.check(), "");
        z.take_all();
        z.end(granted.ticket);
    }
}

// There are more pairs of models and engines than pools.
TEST(TemporaryPools, AreTakenAgain) {
    TestZone z(plan_zone(1).min_bytes);
    z.load({{.id = 1}});
    std::vector<std::string> models;
    for (uint32_t m = 0; m < 12; ++m) {
        models.push_back("m" + std::to_string(m));
    }
    constexpr uint32_t kEngines = 14;
    ASSERT_GT(kEngines * models.size(), plan_zone(1).pools);
    uint64_t seq = 0;
    for (uint32_t lost = 0; lost < kEngines; ++lost) {
        for (uint32_t e = 0; e < kEngines; ++e) {
            EngineReport r = TestZone::report("e" + std::to_string(e), 1, ++seq);
            r.models = models;
            r.max_running = 4;
            r.running = e == lost ? 0 : 9;  // others': from another gateway
            z.apply(r);
        }
        for (const std::string& model : models) {
            RequestArgs args = z.args();
            args.model = model;
            const Verdict v = z.send(1, args);
            ASSERT_EQ(v.decision, Decision::granted);
            {
                ZoneLock lock(z.zone);
                ASSERT_EQ(retry(lock, v.ticket, Failure::reset, 1, WhenFull::wait, z.now, 1, z.wakes).action,
                          RetryAction::wait)
                    << "engine " << lost << " " << model;
                response_head(lock, v.ticket, 200, z.now, 1, z.wakes);
            }
            ASSERT_EQ(z.check(), "");
            z.drop(v.ticket);
            const Verdict well = z.send(1, args);  // keeps the breaker closed
            ZoneLock lock(z.zone);
            response_head(lock, well.ticket, 200, z.now, 1, z.wakes);
            cancel(lock, well.ticket, Why::client_gone, z.now, z.wakes);
        }
    }
}

}  // namespace
}  // namespace llm::core
