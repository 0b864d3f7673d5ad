#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

class Requests : public ::testing::Test {
  protected:
    void SetUp() override {
        z.load({{.id = 1}, {.id = 2}, {.id = 3}});
        ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    }
    TestZone z;
};

TEST_F(Requests, GrantedAtOnceThenQueuedThenGrantedOnFinish) {
    const Verdict first = z.send(1);
    ASSERT_EQ(first.decision, Decision::granted);
    EXPECT_EQ(first.engine, 0u);
    const Verdict second = z.send(2);
    ASSERT_EQ(second.decision, Decision::queued);
    EXPECT_EQ(second.position, 1u);
    const Verdict third = z.send(2);
    EXPECT_EQ(third.position, 2u);
    EXPECT_TRUE(z.events().empty());

    z.wakes.clear();
    EXPECT_TRUE(z.end(first.ticket).valid);
    EXPECT_TRUE(z.wakes.contains(z.process));
    const auto events = z.events();
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].kind, EventKind::granted);
    EXPECT_EQ(events[0].ticket, second.ticket);
    EXPECT_EQ(events[0].cookie, 2u);
    uint32_t engine = kNone;
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(take_up(lock, second.ticket, z.now, engine, z.wakes));
        EXPECT_TRUE(take_up(lock, second.ticket, z.now, engine, z.wakes)) << "idempotent";
    }
    EXPECT_EQ(engine, 0u);
    EXPECT_EQ(z.totals().running, 1u);
    EXPECT_EQ(z.totals().queued, 1u);
    EXPECT_EQ(z.check(), "");
    z.end(second.ticket);
    z.end(second.ticket);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{2}));
    z.end(third.ticket);
    EXPECT_EQ(z.totals().running, 0u);
    EXPECT_EQ(z.totals().held, 0u);
    EXPECT_EQ(read_outcome(z.zone, 0, Outcome::completed), 3u);
}

TEST_F(Requests, AnotherQueueTimeoutCountsFromTheArrival) {
    const Verdict running = z.send(1);
    const Verdict waiting = z.send(2);
    z.now += 10'000'000;
    ZoneLock lock(z.zone);
    EXPECT_EQ(set_queue_timeout(lock, waiting.ticket, 15'000, z.now), 5'000'000);
    EXPECT_EQ(set_queue_timeout(lock, waiting.ticket, 300'000, z.now), 290'000'000);
    EXPECT_EQ(set_queue_timeout(lock, waiting.ticket, 10, z.now), 0);
    EXPECT_EQ(set_queue_timeout(lock, running.ticket, 10, z.now), -1);
    EXPECT_EQ(set_queue_timeout(lock, {}, 10, z.now), -1);
}

TEST_F(Requests, WakesOnceUntilDrained) {
    const Verdict a = z.send(1);
    std::vector<Verdict> waiting;
    for (int i = 0; i < 3; ++i) {
        waiting.push_back(z.send(2));
    }
    z.wakes.clear();
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 3}}));
    EXPECT_TRUE(z.wakes.contains(z.process));
    z.wakes.clear();
    z.end(a.ticket);
    EXPECT_FALSE(z.wakes.contains(z.process)) << "already signalled";
    EXPECT_EQ(z.take_all().size(), 3u);
}

TEST_F(Requests, CancelInEveryState) {
    const Verdict running = z.send(1);
    const Verdict queued = z.send(2);
    const Verdict granted = z.send(3);
    EXPECT_TRUE(z.drop(queued.ticket));
    EXPECT_FALSE(z.drop(queued.ticket)) << "stale";
    EXPECT_EQ(z.check(), "");
    EXPECT_TRUE(z.drop(running.ticket));
    ASSERT_EQ(z.totals().granted, 1u);
    EXPECT_TRUE(z.drop(granted.ticket));
    EXPECT_TRUE(z.events().empty());
    EXPECT_EQ(z.totals().held, 0u);
    EXPECT_EQ(read_outcome(z.zone, 0, Outcome::cancelled_queued), 2u);
    EXPECT_EQ(read_outcome(z.zone, 0, Outcome::cancelled_running), 1u);
}

TEST_F(Requests, AbandonedCountsForNothing) {
    const Verdict first = z.send(1);
    const Verdict second = z.send(2);
    z.abandon(first.ticket, Outcome::engine_error);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{2})) << "its seat is free";
    z.abandon(first.ticket, Outcome::engine_error);
    for (size_t i = 0; i < kOutcomes; ++i) {
        EXPECT_EQ(read_outcome(z.zone, 0, static_cast<Outcome>(i)), 0u);
    }
    EXPECT_EQ(read_model_histogram(z.zone, 0, ModelHistogram::duration).count, 0u);
    z.end(second.ticket);
    EXPECT_EQ(read_outcome(z.zone, 0, Outcome::completed), 1u);
    EXPECT_EQ(z.check(), "");
}

TEST_F(Requests, EndedFromOutsideIsCountedByWhoeverHearsOfIt) {
    z.send(1);
    const Verdict told = z.send(2);
    const Verdict dropped = z.send(3);
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(abort_request(lock, told.ticket, z.now, z.wakes));
        EXPECT_TRUE(abort_request(lock, dropped.ticket, z.now, z.wakes));
    }
    EXPECT_TRUE(z.drop(dropped.ticket)) << "its client left before its owner was told";
    EXPECT_EQ(read_outcome(z.zone, 0, Outcome::cancelled_queued), 1u);
    EXPECT_EQ(z.events().size(), 1u);
    EXPECT_EQ(read_outcome(z.zone, 0, Outcome::cancelled_queued), 1u) << "the owner answers and counts";
}

TEST_F(Requests, StaleTicketsAreHarmlessAfterReuse) {
    const Verdict old = z.send(1);
    z.end(old.ticket);
    const Verdict fresh = z.send(2);
    ASSERT_EQ(fresh.ticket.index, old.ticket.index) << "the slot is used again";
    EXPECT_FALSE(z.end(old.ticket).valid);
    EXPECT_FALSE(z.drop(old.ticket));
    EXPECT_EQ(z.totals().running, 1u);
    z.end(fresh.ticket);
}

TEST_F(Requests, TimeOutSaysWhetherAnEngineWasThere) {
    const Verdict running = z.send(1);
    const Verdict one = z.send(2);
    const Verdict two = z.send(2);
    Timeout answer;
    {
        ZoneLock lock(z.zone);
        z.now += 60'000'000;
        answer = time_out(lock, one.ticket, z.now, 1, z.wakes);
    }
    EXPECT_TRUE(answer.ended);
    EXPECT_EQ(answer.reason, Outcome::rejected_queue_timeout);
    EXPECT_GE(answer.retry_after_ms, 1000u);
    EXPECT_LE(answer.retry_after_ms, 60000u);
    {
        ZoneLock lock(z.zone);
        EXPECT_FALSE(time_out(lock, one.ticket, z.now, 1, z.wakes).ended);
        EXPECT_TRUE(drain_engine(lock, "http://a", true, z.now, z.wakes));
        answer = time_out(lock, two.ticket, z.now, 1, z.wakes);
    }
    EXPECT_TRUE(answer.ended);
    EXPECT_EQ(answer.reason, Outcome::rejected_no_engine);
    z.end(running.ticket);
}

TEST_F(Requests, TimeDuringWhichEverythingStoodStillIsNoWaiting) {
    const Verdict running = z.send(1);
    z.tick();
    z.now += 1'000'000;
    z.tick();
    const Verdict next = z.send(2);
    z.now += 60'000'000;
    z.tick();
    {
        ZoneLock lock(z.zone);
        const Timeout answer = time_out(lock, next.ticket, z.now, 1, z.wakes);
        EXPECT_FALSE(answer.ended);
        EXPECT_EQ(answer.again_ms, 60'000u);
        EXPECT_TRUE(time_out(lock, next.ticket, z.now + 60'000'000, 1, z.wakes).ended) << "once";
    }
    z.end(running.ticket);
}

TEST_F(Requests, NoTimeOutBeforeItsTime) {
    const Verdict running = z.send(1);
    const Verdict next = z.send(2);
    const int64_t end = z.now + 60'000'000;
    {
        ZoneLock lock(z.zone);
        EXPECT_EQ(time_out(lock, next.ticket, end - 59'999'001, 1, z.wakes).again_ms, 60'000u);
        const Timeout early = time_out(lock, next.ticket, end - 1, 1, z.wakes);
        EXPECT_FALSE(early.ended || early.stale);
        EXPECT_EQ(early.again_ms, 1u) << "a timer of 0 ms would fire without end";
        EXPECT_TRUE(time_out(lock, next.ticket, end, 1, z.wakes).ended);
    }
    z.end(running.ticket);
}

TEST_F(Requests, TimeOutLeavesAGrantAlone) {
    const Verdict running = z.send(1);
    const Verdict next = z.send(2);
    z.end(running.ticket);
    ZoneLock lock(z.zone);
    EXPECT_FALSE(time_out(lock, next.ticket, z.now, 1, z.wakes).ended);
    EXPECT_TRUE(cancel(lock, next.ticket, Why::client_gone, z.now, z.wakes));
}

TEST_F(Requests, ExpiredGrantReturnsToTheHeadAndItsOwnerGetsNothingUntilItBeats) {
    const uint32_t other = z.attach(2000);
    const Verdict running = z.send(1);
    RequestArgs mine = z.args();
    mine.process = other;
    mine.cookie = 77;
    const Verdict late = z.send(2, mine);
    const Verdict behind = z.send(3);
    z.end(running.ticket);
    EXPECT_EQ(z.totals().granted, 1u);
    const SweepResult swept = z.tick(kGrantLifeUs + 1);
    EXPECT_EQ(swept.expired_grants, 1u);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{3})) << "the one behind goes first now";
    uint32_t engine;
    {
        ZoneLock lock(z.zone);
        EXPECT_FALSE(take_up(lock, late.ticket, z.now, engine, z.wakes)) << "a late grant is refused";
        RequestSnapshot snapshot;
        ASSERT_TRUE(snapshot_request(lock, late.ticket, snapshot));
        EXPECT_TRUE(snapshot.parked);
    }
    z.end(behind.ticket);
    EXPECT_EQ(z.totals().granted, 0u) << "its owner is still silent";
    {
        ZoneLock lock(z.zone);
        heartbeat(lock, other, z.now, z.wakes);
    }
    const auto events = z.events(other);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].cookie, 77u);
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(take_up(lock, late.ticket, z.now, engine, z.wakes));
    }
    z.end(late.ticket);
}

TEST_F(Requests, AGrantThatExpiredIsNoAttempt) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    const Verdict first = z.send(1);
    const Verdict second = z.send(1);
    const Verdict waiting = z.send(2);
    z.end(first.ticket);
    uint32_t engine;
    {
        z.now += kGrantLifeUs + 1;
        ZoneLock lock(z.zone);
        heartbeat(lock, z.process, z.now, z.wakes);
        EXPECT_FALSE(take_up(lock, waiting.ticket, z.now, engine, z.wakes));
    }
    ASSERT_EQ(z.take_all(), (std::vector<uint64_t>{2}));
    ZoneLock lock(z.zone);
    EXPECT_EQ(retry(lock, waiting.ticket, Failure::status_503, 1, WhenFull::fail, z.now, 0, z.wakes).action, RetryAction::again)
        << "the first attempt that an engine saw";
    EXPECT_EQ(finish(lock, waiting.ticket, Outcome::completed, Usage(), z.now, z.wakes).attempts, 2u);
    finish(lock, second.ticket, Outcome::completed, Usage(), z.now, z.wakes);
}

TEST_F(Requests, WhatTheGatewayItselfCouldNotSendCostsNothing) {
    const Verdict v = z.send(1);
    {
        ZoneLock lock(z.zone);
        finish(lock, v.ticket, Outcome::rejected_internal_error, Usage(), z.now, z.wakes);
    }
    EXPECT_EQ(read_model_tokens(z.zone, 0).prompt, 0u);
}

TEST_F(Requests, SilentOwnerGetsNoGrants) {
    const uint32_t other = z.attach(2000);
    const Verdict running = z.send(1);
    RequestArgs silent = z.args();
    silent.process = other;
    const Verdict first = z.send(2, silent);
    const Verdict second = z.send(3);
    z.now += kHeartbeatLifeUs + 1;
    {
        ZoneLock lock(z.zone);
        heartbeat(lock, z.process, z.now, z.wakes);
    }
    z.end(running.ticket);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{3}));
    z.end(second.ticket);
    EXPECT_EQ(z.totals().queued, 1u);
    z.drop(first.ticket);
}

TEST_F(Requests, ThoseWhoRejoinFindTheirPlacesAmongThoseWhoStayed) {
    // One client, so one queue, with the requests of two workers in turn; one worker is silent again and again.
    const uint32_t other = z.attach(2000);
    const Verdict running = z.send(1);
    std::vector<uint64_t> expected;
    std::vector<Ticket> tickets;
    for (uint64_t i = 1; i <= 60; ++i) {
        RequestArgs a = z.args();
        a.process = i % 3 == 0 ? z.process : other;
        a.cookie = i;
        tickets.push_back(z.send(2, a).ticket);
    }
    for (uint64_t i = 1; i <= 60; ++i) {
        if (i % 7 == 0) {
            z.drop(tickets[i - 1]);
        } else {
            expected.push_back(i);
        }
        if (i % 20 == 0) {
            z.tick(kHeartbeatLifeUs + 1);  // the other one is silent and its requests are set aside
            EXPECT_EQ(z.check(), "");
            ZoneLock lock(z.zone);
            heartbeat(lock, other, z.now, z.wakes);
        }
        EXPECT_EQ(z.check(), "");
    }
    std::vector<uint64_t> order;
    Ticket last = running.ticket;
    while (order.size() < expected.size()) {
        z.end(last);
        for (const uint32_t process : {z.process, other}) {
            for (const Event& event : z.events(process)) {
                uint32_t engine;
                ZoneLock lock(z.zone);
                ASSERT_TRUE(take_up(lock, event.ticket, z.now, engine, z.wakes));
                order.push_back(event.cookie);
                last = event.ticket;
            }
        }
    }
    EXPECT_EQ(order, expected);
    z.end(last);
}

TEST_F(Requests, ReapedProcessGivesEverythingBack) {
    const uint32_t other = z.attach(2000);
    RequestArgs theirs = z.args();
    theirs.process = other;
    ASSERT_EQ(z.send(1, theirs).decision, Decision::granted);
    ASSERT_EQ(z.send(1, theirs).decision, Decision::queued);
    const Verdict mine = z.send(2);
    ASSERT_EQ(mine.decision, Decision::queued);
    ProcessView views[4];
    ASSERT_EQ(list_processes(z.zone, views, 4), 2u);
    EXPECT_EQ(views[1].pid, 2000);
    EXPECT_EQ(views[1].requests, 2u);
    {
        ZoneLock lock(z.zone);
        EXPECT_EQ(reap_process(lock, other, views[1].epoch + 1, z.now, z.wakes), 0u) << "another epoch";
        EXPECT_EQ(reap_process(lock, other, views[1].epoch, z.now, z.wakes), 1u);
    }
    EXPECT_EQ(read_counters(z.zone).leases_reaped, 1u);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{2}));
    EXPECT_EQ(z.attach(3000), other) << "the slot is free again";
    z.end(mine.ticket);
    EXPECT_EQ(z.totals().running, 0u);
}

TEST_F(Requests, DetachedProcessLeavesNothing) {
    const uint32_t other = z.attach(2000);
    RequestArgs theirs = z.args();
    theirs.process = other;
    z.send(1, theirs);
    z.send(1, theirs);
    {
        ZoneLock lock(z.zone);
        detach_process(lock, other, z.now, z.wakes);
    }
    EXPECT_EQ(z.totals().queued + z.totals().running + z.totals().granted, 0u);
}

TEST_F(Requests, AbortTellsTheOwner) {
    const Verdict running = z.send(1);
    const Verdict waiting = z.send(2);
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(abort_request(lock, waiting.ticket, z.now, z.wakes));
        EXPECT_TRUE(abort_request(lock, running.ticket, z.now, z.wakes));
        EXPECT_FALSE(abort_request(lock, Ticket{9999, 1}, z.now, z.wakes));
    }
    const auto events = z.events();
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[0].kind, EventKind::aborted);
    EXPECT_EQ(events[0].ticket, waiting.ticket);
    EXPECT_EQ(events[1].ticket, running.ticket);
    EXPECT_FALSE(z.drop(waiting.ticket)) << "freed by the event";
    EXPECT_TRUE(z.drop(running.ticket));
}

TEST_F(Requests, EarlyReleaseFreesTheSeatOnce) {
    const Verdict first = z.send(1);
    const Verdict second = z.send(2);
    {
        ZoneLock lock(z.zone);
        release_lease(lock, first.ticket, z.now, z.wakes);
        release_lease(lock, first.ticket, z.now, z.wakes);
    }
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{2}));
    EXPECT_EQ(z.totals().held, 1u);
    EXPECT_TRUE(z.end(first.ticket).valid);
    EXPECT_EQ(z.totals().held, 1u);
    z.end(second.ticket);
}

TEST_F(Requests, SeatsCount) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 8}}));
    RequestArgs wide = z.args();
    wide.seats = 5;
    const Verdict a = z.send(1, wide);
    EXPECT_EQ(z.engine(0).held, 5u);
    const Verdict b = z.send(1, wide);
    EXPECT_EQ(b.decision, Decision::granted) << "held 5 < 8";
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    z.end(a.ticket);
    EXPECT_EQ(z.take_all().size(), 1u);
    EXPECT_EQ(z.engine(0).held, 6u);
}

TEST_F(Requests, ObserveRefusesAndQueuesNothing) {
    z.load({{.id = 1, .threshold = 0}, {.id = 2, .threshold = 5}, {.id = 3}});
    z.send(3);
    RequestArgs watch = z.args();
    watch.observe = true;
    const Verdict refused = z.send(1, watch);
    EXPECT_EQ(refused.decision, Decision::granted);
    EXPECT_EQ(refused.would, Outcome::rejected_threshold);
    EXPECT_FALSE(refused.would_queue);
    const Verdict queued = z.send(2, watch);
    EXPECT_EQ(queued.decision, Decision::granted);
    EXPECT_EQ(queued.would, Outcome::completed);
    EXPECT_TRUE(queued.would_queue);
    EXPECT_EQ(read_counters(z.zone).observed_rejections, 1u);
    EXPECT_EQ(read_counters(z.zone).observed_queued, 1u);
}

TEST_F(Requests, RetryRules) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    const Verdict v = z.send(1);
    const uint32_t first = v.engine;
    ZoneLock lock(z.zone);
    RetryAnswer again = retry(lock, v.ticket, Failure::stale_connection, 1, WhenFull::fail, z.now, 1, z.wakes);
    EXPECT_EQ(again.action, RetryAction::again);
    EXPECT_EQ(again.engine, first);
    EXPECT_EQ(again.attempts, 1u);
    again = retry(lock, v.ticket, Failure::connect, 1, WhenFull::fail, z.now, 1, z.wakes);
    EXPECT_EQ(again.action, RetryAction::again);
    EXPECT_EQ(again.engine, 1 - first);
    EXPECT_EQ(again.attempts, 2u);
    EXPECT_EQ(queue_totals(lock).held, 1u);
    again = retry(lock, v.ticket, Failure::connect, 1, WhenFull::fail, z.now, 1, z.wakes);
    EXPECT_EQ(again.action, RetryAction::fail);
    EXPECT_EQ(finish(lock, v.ticket, Outcome::engine_error, {}, z.now, z.wakes).attempts, 2u);
}

TEST_F(Requests, RetryTakesOneSeatOverTheLimitElsewhere) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    const Verdict one = z.send(1);
    const Verdict two = z.send(1);
    ASSERT_NE(one.engine, two.engine);
    {
        ZoneLock lock(z.zone);
        const RetryAnswer again = retry(lock, one.ticket, Failure::reset, 1, WhenFull::fail, z.now, 1, z.wakes);
        EXPECT_EQ(again.action, RetryAction::again);
        EXPECT_EQ(again.engine, two.engine);
    }
    EXPECT_EQ(z.engine(two.engine).held, 2u);
    z.end(one.ticket);
    z.end(two.ticket);
}

TEST_F(Requests, RefusedByTheOnlyEngineTriesItAgainThenPasses) {
    const Verdict v = z.send(1);
    ZoneLock lock(z.zone);
    RetryAnswer again = retry(lock, v.ticket, Failure::status_503, 1, WhenFull::fail, z.now, 1, z.wakes);
    EXPECT_EQ(again.action, RetryAction::again);
    EXPECT_EQ(again.engine, v.engine);
    again = retry(lock, v.ticket, Failure::status_503, 1, WhenFull::fail, z.now, 1, z.wakes);
    EXPECT_EQ(again.action, RetryAction::pass);
    finish(lock, v.ticket, Outcome::completed, {}, z.now, z.wakes);
}

TEST_F(Requests, PlacesInTheQueue) {
    z.load({{.id = 1}, {.id = 2, .band = 1}, {.id = 3, .band = 2}});
    const Ticket running = z.send(1).ticket;
    const auto places = [this](const std::vector<Ticket>& tickets) {
        std::vector<uint32_t> out;
        const ZoneLock lock(z.zone);
        for (const Ticket ticket : tickets) {
            out.push_back(queue_position(lock, ticket));
        }
        return out;
    };
    std::vector<Ticket> waiting;
    const auto wait = [&](uint32_t client) {
        const Verdict v = z.send(client);
        EXPECT_EQ(v.decision, Decision::queued);
        waiting.push_back(v.ticket);
        EXPECT_EQ(v.position, places({v.ticket})[0]) << "what it is told when it comes";
    };
    wait(1);
    wait(1);
    EXPECT_EQ(places(waiting), (std::vector<uint32_t>{1, 2}));
    wait(3);
    wait(3);
    wait(2);
    EXPECT_EQ(places(waiting), (std::vector<uint32_t>{4, 5, 1, 2, 3})) << "higher bands first, the lowest behind all of them";
    EXPECT_TRUE(z.drop(waiting[2]));
    EXPECT_EQ(places(waiting), (std::vector<uint32_t>{3, 4, 0, 1, 2}));
    EXPECT_EQ(places({running}), (std::vector<uint32_t>{0}));
    z.end(running);
    std::vector<Ticket> next;
    z.take_all(&next);
    EXPECT_EQ(next, std::vector<Ticket>{waiting[3]});
    EXPECT_EQ(places(waiting), (std::vector<uint32_t>{2, 3, 0, 0, 1}));
    z.end(next[0]);
}

TEST_F(Requests, WithoutAProcessSlotNothingIsHeld) {
    RequestArgs stray = z.args();
    stray.process = kNone;
    const Verdict v = z.send(1, stray);
    EXPECT_EQ(v.decision, Decision::rejected);
    EXPECT_EQ(v.reason, Outcome::rejected_queue_full);
}

}  // namespace
}  // namespace llm::core
