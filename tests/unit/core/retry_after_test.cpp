// Does Retry-After spread those who obey it?
#include <map>
#include <queue>
#include <random>

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

// A client that comes back at once pushes those away who do as they are told: they were told to wait for a
// minute, and not to try again.
TEST(RetryAfter, OneWhoDoesNotObeyMakesNobodyElseWait) {
    TestZone z;
    z.load({{.id = 1, .threshold = 3}, {.id = 2, .threshold = 0}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 4}}));
    std::vector<Ticket> running;
    for (uint32_t i = 0; i < 50; ++i) {  // four seats for 0.4 s each: 10 a second
        const Verdict one = z.send(1);
        ASSERT_EQ(one.decision, Decision::granted);
        z.now += 400'000;
        z.end(one.ticket, 10, 10);
    }
    for (uint32_t i = 0; i < 7; ++i) {
        running.push_back(z.send(1).ticket);
    }
    const Verdict before = z.send(1);
    ASSERT_EQ(before.reason, Outcome::rejected_threshold);
    EXPECT_TRUE(before.should_retry);
    uint32_t pushed = 0;
    for (uint32_t i = 0; i < 200; ++i) {
        const Verdict stubborn = z.send(2);
        ASSERT_EQ(stubborn.reason, Outcome::rejected_threshold);
        pushed += stubborn.should_retry ? 0 : 1;
    }
    EXPECT_GT(pushed, 0u) << "its own requests stand one behind the other";
    const Verdict after = z.send(1);
    ASSERT_EQ(after.reason, Outcome::rejected_threshold);
    EXPECT_TRUE(after.should_retry);
    EXPECT_LT(after.retry_after_ms, before.retry_after_ms + 5000);
}

// One client of threshold 10 sends 60 requests at once to 16 seats; returns the last refusal, of 34.
Verdict last_of_a_crowd(TestZone& z) {
    Verdict last;
    for (uint32_t i = 0; i < 60; ++i) {
        last = z.send(1);
        EXPECT_EQ(last.decision, i < 16 ? Decision::granted : i < 26 ? Decision::queued : Decision::rejected);
        EXPECT_TRUE(i < 26 || last.should_retry) << "refusal " << i - 25;
    }
    return last;
}

// What was dispatched lately says how much was asked for; how soon seats come free is known from those who
// had one.
class AfterALull : public ::testing::TestWithParam<bool> {};

TEST_P(AfterALull, ACrowdIsInvitedByWhatTheEnginesCanDo) {
    TestZone z;
    z.load({{.id = 1, .threshold = 10}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 16}}));
    // one a second, for a quarter of a second each: 16 seats serve 64 a second
    for (uint32_t i = 0; i < 40; ++i) {
        const Ticket one = z.send(1).ticket;
        z.pass(250'000);
        if (GetParam()) {  // the engine is done with it, and the client still reads
            ZoneLock lock(z.zone);
            release_lease(lock, one, z.now, z.wakes);
        } else {
            z.end(one);
        }
        z.pass(750'000);
        z.end(one);  // nothing where it has ended
    }
    z.pass(300'000'000);
    EXPECT_LE(last_of_a_crowd(z).retry_after_ms, 10'000u);
    // an engine that gives none back is not what it was
    z.pass(30'000'000);
    EXPECT_GT(z.send(1).retry_after_ms, 30'000u);
}

INSTANTIATE_TEST_SUITE_P(ClientsRead, AfterALull, ::testing::Bool());

// What was spread beyond the longest time came back at once there.
TEST(RetryAfter, TheLastOnesInvitedComeOneByOne) {
    TestZone z;
    z.load({{.id = 1, .threshold = 4}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 4}}));
    for (uint32_t i = 0; i < 400; ++i) {  // a hundred a second
        const Verdict one = z.send(1);
        ASSERT_EQ(one.decision, Decision::granted);
        z.now += 10'000;
        z.end(one.ticket, 10, 10);
    }
    std::mt19937 random(7);
    std::map<uint32_t, uint32_t> invited;  // by the second
    for (uint32_t i = 0; i < 4000; ++i) {
        RequestArgs args = z.args();
        args.random = static_cast<uint32_t>(random());
        const Verdict v = z.send(1, args);
        ASSERT_TRUE(i < 8 || v.decision == Decision::rejected);
        if (v.decision == Decision::rejected && v.should_retry) {
            ASSERT_LE(v.retry_after_ms, 60'000u);
            invited[v.retry_after_ms / 1000]++;
        }
    }
    ASSERT_GE(invited.size(), 55u);
    const uint32_t usual = invited[30];
    for (const auto& [second, count] : invited) {
        EXPECT_LE(count, usual * 5 / 2) << "in second " << second;
    }
}

// Whether the model has had a request before or not.
TEST(RetryAfter, WhoFindsNoEngineHasTimeForOne) {
    TestZone z;
    z.load({{.id = 1}});
    {
        ZoneLock lock(z.zone);
        set_redis_state(lock, true, z.now);
    }
    EngineReport report = TestZone::report("gpu0");
    report.state = EngineState::failed;
    z.apply(report);
    for (const uint32_t random : {0u, 0x80000000u, 0xffffffffu}) {
        RequestArgs args = z.args();
        args.random = random;
        const Verdict v = z.send(1, args);
        ASSERT_EQ(v.reason, Outcome::rejected_no_engine);
        EXPECT_GE(v.retry_after_ms, 3'000u);
        EXPECT_LE(v.retry_after_ms, 7'700u);
        EXPECT_TRUE(v.should_retry);
    }
}

TEST(RetryAfter, TheFirstCrowdOfAllIsInvited) {
    TestZone z;
    z.load({{.id = 1, .threshold = 10}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 16}}));
    for (uint32_t i = 0; i < 26; ++i) {
        z.send(1);
    }
    for (uint32_t i = 0; i < 16; ++i) {
        EXPECT_TRUE(z.send(1).should_retry) << i;
    }
}

// Engines that others may use give it no seat.
TEST(RetryAfter, WhoMayUseItsOwnEnginesOnlyIsInvitedByThese) {
    TestZone z;
    z.load({{.id = 1, .threshold = 10, .organisation = "lab"}, {.id = 2}});
    ASSERT_TRUE(z.engines(
        {{.url = "http://a", .max_running = 1, .org = "lab"}, {.url = "http://b", .max_running = 64}}));
    RequestArgs own = z.args();
    own.mode = RoutingMode::private_only;
    ASSERT_EQ(z.send(1, own).decision, Decision::granted);
    for (uint32_t i = 0; i < 64; ++i) {
        ASSERT_EQ(z.send(2).decision, Decision::granted);
    }
    for (uint32_t i = 0; i < 10; ++i) {
        ASSERT_EQ(z.send(1, own).decision, Decision::queued);
    }
    const Verdict refused = z.send(1, own);
    ASSERT_EQ(refused.reason, Outcome::rejected_threshold);
    EXPECT_FALSE(refused.should_retry) << "ten wait for one seat of some 5 s";
}

// 20 seats of 2 s each: 10 requests/s. 60 s of arrivals at 15/s, then 8/s. Those who are refused come back
// when they were told to; those told not to come back stay away.
class RetryAfterBurst : public ::testing::TestWithParam<ThresholdScope> {};

// Scope `token`: one key that a whole application shares. Scope `queue`: 40 keys, one queue.
TEST_P(RetryAfterBurst, ThoseWhoObeyAreAdmittedAfterABurst) {
    TestZone z(16u << 20);
    Settings settings;
    settings.threshold_scope = GetParam();
    z.settings(settings);
    const uint32_t keys = GetParam() == ThresholdScope::token ? 1 : 40;
    std::vector<TestClient> clients;
    for (uint32_t id = 0; id < keys; ++id) {
        clients.push_back({.id = id, .threshold = 100});
    }
    z.load(clients);
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 20}}));
    struct Event {
        int64_t at;
        int kind;  // 0 fresh arrival, 1 comes back, 2 ends
        uint32_t client;
        Ticket ticket;
        bool operator<(const Event& other) const { return at > other.at; }
    };
    std::priority_queue<Event> events;
    const int64_t begin = z.now;
    uint64_t random = 7;
    auto draw = [&random](uint32_t n) {
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<uint32_t>((random >> 33) % n);
    };
    for (int64_t at = 0; at < 240'000'000;) {
        events.push({begin + at, 0, draw(keys), {}});
        const int64_t mean = at < 60'000'000 ? 1'000'000 / 15 : 1'000'000 / 8;
        at += mean / 2 + draw(static_cast<uint32_t>(mean));
    }
    uint32_t came_back = 0;
    uint32_t admitted = 0;
    int64_t next_sweep = begin;
    while (!events.empty()) {
        const Event event = events.top();
        events.pop();
        z.now = event.at;
        if (z.now >= next_sweep) {
            z.tick();
            next_sweep = z.now + 250'000;
        }
        if (event.kind == 2) {
            z.end(event.ticket, 100, 100);
        } else {
            const Verdict v = z.send(event.client);
            const bool later = event.at > begin + 60'000'000;
            came_back += event.kind == 1 && later ? 1 : 0;
            admitted += event.kind == 1 && later && v.decision != Decision::rejected ? 1 : 0;
            if (v.decision == Decision::granted) {
                events.push({z.now + 1'800'000 + draw(400'000), 2, event.client, v.ticket});
            } else if (v.decision == Decision::rejected && v.should_retry) {
                events.push({z.now + int64_t{v.retry_after_ms} * 1000, 1, event.client, {}});
            }
        }
        std::vector<Ticket> taken;
        const auto cookies = z.take_all(&taken);
        for (size_t i = 0; i < taken.size(); ++i) {
            events.push({z.now + 1'800'000 + draw(400'000), 2, static_cast<uint32_t>(cookies[i]), taken[i]});
        }
    }
    RecordProperty("came_back", static_cast<int>(came_back));
    std::printf("%u came back after the burst, %u admitted\n", came_back, admitted);
    ASSERT_GT(came_back, 20u);
    EXPECT_GE(admitted, 0.9 * came_back);
}

INSTANTIATE_TEST_SUITE_P(Scopes, RetryAfterBurst,
                         ::testing::Values(ThresholdScope::token, ThresholdScope::queue));

}  // namespace
}  // namespace llm::core
