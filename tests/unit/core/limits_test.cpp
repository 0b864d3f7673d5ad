// threshold, max_running, tokens_per_minute, queue size.
#include <set>

#include "ngx_module/core/core.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

class Limits : public ::testing::Test {
  protected:
    void start(const std::vector<TestClient>& clients, uint32_t seats = 1) {
        z.load(clients);
        ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = seats}}));
    }
    TestZone z;
};

TEST_F(Limits, UnknownModelAndForbiddenModel) {
    start({{.id = 1, .models = "x, m"}, {.id = 2, .models = "x"}});
    RequestArgs a = z.args();
    a.model = "nobody-serves-this";
    EXPECT_EQ(z.send(1, a).reason, Outcome::rejected_model_not_found);
    EXPECT_EQ(model_count(z.zone), 1u) << "a client's words make no entries";
    EXPECT_EQ(read_outcome(z.zone, kNone, Outcome::rejected_model_not_found), 0u) << "its owner counts it";
    EXPECT_EQ(z.send(1).decision, Decision::granted);
    EXPECT_EQ(z.send(2).reason, Outcome::rejected_model_not_allowed);
}

TEST_F(Limits, ThresholdNeverRefusesWhatCanRunAtOnce) {
    start({{.id = 1, .threshold = 0}}, 2);
    EXPECT_EQ(z.send(1).decision, Decision::granted);
    EXPECT_EQ(z.send(1).decision, Decision::granted);
    const Verdict v = z.send(1);
    EXPECT_EQ(v.decision, Decision::rejected);
    EXPECT_EQ(v.reason, Outcome::rejected_threshold);
    EXPECT_GE(v.retry_after_ms, 1000u);
    EXPECT_LE(v.retry_after_ms, 60000u);
    EXPECT_EQ(v.limit_requests, 0u);
    EXPECT_EQ(v.remaining_requests, 0u);
}

TEST_F(Limits, ThresholdCountsThisTokensWaitingRequests) {
    start({{.id = 1, .threshold = 2}, {.id = 2, .threshold = 2}});
    z.send(1);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_threshold);
    const Verdict other = z.send(2);
    EXPECT_EQ(other.decision, Decision::queued) << "another token has its own count";
    EXPECT_EQ(other.limit_requests, 2u);
    EXPECT_EQ(other.remaining_requests, 1u);
}

TEST_F(Limits, ThresholdCountsPerModel) {
    z.load({{.id = 1, .threshold = 1}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1}}));
    z.send(1);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_threshold);
    RequestArgs other = z.args();
    other.model = "k";
    EXPECT_EQ(z.send(1, other).decision, Decision::queued);
}

TEST_F(Limits, ScopeQueueCountsEverybody) {
    start({{.id = 1, .threshold = 2}, {.id = 2, .threshold = 1}});
    Settings s;
    s.threshold_scope = ThresholdScope::queue;
    z.settings(s);
    z.send(1);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(2).reason, Outcome::rejected_threshold);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_threshold);
}

TEST_F(Limits, AristoteRefusesWhenTheDepthExceedsTheThreshold) {
    start({{.id = 1, .threshold = 1}, {.id = 2, .threshold = 0}});
    RequestArgs a = z.args();
    a.exceeds = true;
    z.send(1, a);
    EXPECT_EQ(z.send(2, a).decision, Decision::queued) << "depth 0 does not exceed 0";
    EXPECT_EQ(z.send(2, a).reason, Outcome::rejected_threshold);
    EXPECT_EQ(z.send(1, a).decision, Decision::queued) << "depth 1 does not exceed 1";
    EXPECT_EQ(z.send(1, a).reason, Outcome::rejected_threshold);
}

TEST_F(Limits, MaxRunningWaitsWithoutBlockingOthers) {
    start({{.id = 1, .max_running = 1}, {.id = 2}}, 2);
    const Verdict first = z.send(1);
    const Verdict second = z.send(1);
    EXPECT_EQ(second.decision, Decision::queued) << "its own limit, although there is room";
    EXPECT_EQ(z.send(2).decision, Decision::granted);
    EXPECT_EQ(z.check(), "");
    RequestSnapshot snapshot;
    {
        ZoneLock lock(z.zone);
        ASSERT_TRUE(snapshot_request(lock, second.ticket, snapshot));
    }
    EXPECT_TRUE(snapshot.held_back);
    z.end(first.ticket);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{1}));
}

TEST_F(Limits, MaxRunningIsTheCodeOnlyWhereThresholdIsZero) {
    start({{.id = 1, .threshold = 0, .max_running = 1}, {.id = 2, .threshold = 1, .max_running = 1}}, 8);
    z.send(1);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_max_running);
    z.send(2);
    EXPECT_EQ(z.send(2).decision, Decision::queued);
    EXPECT_EQ(z.send(2).reason, Outcome::rejected_threshold);
}

TEST_F(Limits, TokensPerMinuteSlides) {
    start({{.id = 1, .tokens_per_minute = 300}, {.id = 2, .threshold = 0, .tokens_per_minute = 100}}, 8);
    const Verdict first = z.send(1);
    z.now += 10'000'000;
    z.end(first.ticket, 100, 250);  // 100 at dispatch, 250 now
    const Verdict held = z.send(1);
    EXPECT_EQ(held.decision, Decision::queued);
    const Verdict two = z.send(2);
    EXPECT_EQ(two.decision, Decision::granted);
    const Verdict refused = z.send(2);
    EXPECT_EQ(refused.reason, Outcome::rejected_tokens_per_minute);
    EXPECT_GE(refused.retry_after_ms, 55'000u) << "until the minute has passed";
    // 100 tokens leave the minute 60..62 s after the first dispatch: 250 are left, below 300.
    z.tick(49'000'000);
    EXPECT_TRUE(z.take_all().empty());
    z.tick(3'000'000);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{1}));
    EXPECT_EQ(z.check(), "");
}

TEST_F(Limits, ACorrectionOfTokensThatHaveLeftTheMinuteTakesNobodyElsesBack) {
    start({{.id = 1, .threshold = 0, .tokens_per_minute = 1000}}, 8);
    RequestArgs long_one = z.args();
    long_one.prompt_tokens = 900;  // far too many, as it turns out
    const Verdict first = z.send(1, long_one);
    ASSERT_EQ(first.decision, Decision::granted);
    z.now += 70'000'000;
    RequestArgs second = z.args();
    second.prompt_tokens = 950;
    const Verdict other = z.send(1, second);
    ASSERT_EQ(other.decision, Decision::granted);
    z.end(first.ticket, 10, 100);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_tokens_per_minute) << "950 and 100 are in the minute";
    z.end(other.ticket, 50, 0);
    const Verdict third = z.send(1);
    EXPECT_EQ(third.decision, Decision::granted) << "what is in the minute still is corrected: 50 and 100";
    z.end(third.ticket, 0, 0);
    EXPECT_EQ(z.check(), "");
}

TEST_F(Limits, HoweverManyAreHeldByTheirTokensEachIsLetGo) {
    TestZone many(16u << 20);
    std::vector<TestClient> clients;
    for (uint32_t i = 1; i <= 1500; ++i) {
        clients.push_back({.id = i, .tokens_per_minute = i <= 2 ? 10u : 1000u});
    }
    many.load(clients);
    ASSERT_TRUE(many.engines({{.url = "http://a", .max_running = 100'000}}));
    many.end(many.send(1).ticket, 10, 0);
    EXPECT_EQ(many.send(1).decision, Decision::queued);
    many.now += 30'000'000;
    for (uint32_t i = 2; i <= 1500; ++i) {  // they use theirs up later, and will be held for longer
        many.end(many.send(i).ticket, 2000, 0);
        EXPECT_EQ(many.send(i).decision, Decision::queued);
    }
    many.tick(33'000'000);
    many.tick(0);
    EXPECT_EQ(many.take_all(), (std::vector<uint64_t>{1}));
}

TEST_F(Limits, QueueSize) {
    start({{.id = 1}});
    Settings s;
    s.queue_size = 2;
    z.settings(s);
    z.send(1);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    const Verdict full = z.send(1);
    EXPECT_EQ(full.reason, Outcome::rejected_queue_full);
}

TEST_F(Limits, ZoneFullRefusesAndLeavesTheRestAlone) {
    start({{.id = 1}});
    const Verdict running = z.send(1);
    uint32_t queued = 0;
    Verdict v;
    while ((v = z.send(1)).decision == Decision::queued) {
        queued++;
    }
    EXPECT_EQ(v.reason, Outcome::rejected_queue_full);
    EXPECT_EQ(queued + 1, z.zone.plan().requests);
    z.end(running.ticket);
    EXPECT_EQ(z.take_all().size(), 1u);
}

TEST_F(Limits, MoreClientsThanAccountsAreServedInTurn) {
    TestZone small(plan_zone(1).min_bytes);
    std::vector<TestClient> clients;
    for (uint32_t i = 0; i < 200; ++i) {
        clients.push_back({.id = i});
    }
    small.load(clients);
    ASSERT_TRUE(small.engines({{.url = "http://a", .max_running = 4}}));
    ASSERT_LT(small.zone.plan().accounts, 200u);
    for (uint32_t round = 0; round < 3; ++round) {
        for (uint32_t i = 0; i < 200; ++i) {
            const Verdict v = small.send(i);
            ASSERT_EQ(v.decision, Decision::granted);
            small.end(v.ticket);
        }
    }
    EXPECT_EQ(small.check(), "");
}

// The clients that are held back for their tokens, as the sweep goes through them; fails where that list is not whole.
std::set<uint32_t> held_for_tokens(TestZone& z) {
    const Tables t(z.zone);
    std::set<uint32_t> listed;
    uint32_t before = kNone;
    for (uint32_t i = t.header.held_head; i != kNone; i = t.accounts[i].held_next) {
        EXPECT_EQ(t.accounts[i].held_prev, before);
        EXPECT_TRUE(t.accounts[i].used != 0 && t.accounts[i].held_tokens != 0) << i;
        if (!listed.insert(i).second) {
            ADD_FAILURE() << "a circle at " << i;
            break;
        }
        before = i;
    }
    EXPECT_EQ(t.header.held_tail, before);
    for (uint32_t i = 0; i < t.header.account_end; ++i) {
        EXPECT_EQ(t.accounts[i].used != 0 && t.accounts[i].held_tokens != 0, listed.count(i) != 0) << i;
    }
    return listed;
}

TEST_F(Limits, AccountsOfClientsWithoutTokensLeftAreGivenToOthersToo) {
    TestZone small(plan_zone(1).min_bytes);
    std::vector<TestClient> clients;
    for (uint32_t i = 0; i < 200; ++i) {
        clients.push_back({.id = i, .tokens_per_minute = i % 2 == 0 ? 50U : 0U});
    }
    small.load(clients);
    ASSERT_TRUE(small.engines({{.url = "http://a", .max_running = 4}}));
    ASSERT_LT(small.zone.plan().accounts, 200u);
    for (uint32_t i = 0; i < 200; ++i) {
        const Verdict v = small.send(i);
        ASSERT_EQ(v.decision, Decision::granted);
        small.end(v.ticket, 100, 100);
    }
    EXPECT_EQ(held_for_tokens(small).size(), small.zone.plan().accounts / 2);
    EXPECT_EQ(small.check(), "");
    for (uint32_t second = 0; second < 130; ++second) {
        small.tick(1'000'000);
    }
    EXPECT_TRUE(held_for_tokens(small).empty());
}

TEST(Pools, AskingForWhatNobodyServesTakesNoRoom) {
    TestZone z(plan_zone(1).min_bytes);
    z.load({{.id = 1, .organisation = "org0"}, {.id = 2, .organisation = "org1"}, {.id = 3, .organisation = "org2"},
            {.id = 4, .organisation = "org3"}, {.id = 5, .organisation = "org4"}});
    std::vector<TestZone::Static> engines;
    std::vector<std::string> models;
    for (uint32_t m = 0; m < z.zone.plan().models; ++m) {
        models.push_back("m" + std::to_string(m));
        if (m % kMaxEngineModels == 0) {
            engines.push_back({.url = "http://all" + std::to_string(m), .models = {}});
        }
        engines.back().models.push_back(models.back());
    }
    for (uint32_t o = 0; o < 5; ++o) {
        engines.push_back({.url = "http://e" + std::to_string(o), .models = {"m0"}, .org = "org" + std::to_string(o)});
    }
    ASSERT_TRUE(z.engines(engines));
    RequestArgs a = z.args();
    a.mode = RoutingMode::private_only;
    for (const std::string& model : models) {
        for (uint32_t client = 1; client <= 5; ++client) {
            a.model = model;
            const Verdict v = z.send(client, a);
            if (model == "m0") {
                EXPECT_EQ(v.decision, Decision::granted);
                z.end(v.ticket);
            } else {
                EXPECT_EQ(v.reason, Outcome::rejected_no_engine) << model;
            }
        }
    }
    a.mode = RoutingMode::any;
    for (const std::string& model : models) {
        a.model = model;
        const Verdict v = z.send(1, a);
        EXPECT_EQ(v.decision, Decision::granted) << model << " " << outcome_name(v.reason);
        z.end(v.ticket);
    }
}

// More organisations and models than there are places for pools; all engines serve all models.
class CrowdedPools : public ::testing::Test {
  protected:
    static constexpr uint32_t kOrgs = 6;

    void SetUp() override {
        std::vector<TestClient> clients;
        std::vector<TestZone::Static> engines;
        for (uint32_t m = 0; m < std::min(z.zone.plan().models, kMaxEngineModels); ++m) {
            models.push_back("m" + std::to_string(m));
        }
        for (uint32_t o = 0; o < kOrgs; ++o) {
            const std::string org = "org" + std::to_string(o);
            clients.push_back({.id = o + 1, .organisation = org});
            engines.push_back({.url = "http://" + org, .models = models, .max_running = 1, .org = org});
        }
        z.load(clients);
        ASSERT_TRUE(z.engines(engines));
        ASSERT_GT(kOrgs * models.size(), z.zone.plan().pools);
    }

    Verdict send(uint32_t client, const std::string& model) {
        RequestArgs a = z.args();
        a.mode = RoutingMode::private_only;
        a.model = model;
        return z.send(client, a);
    }

    TestZone z{plan_zone(1).min_bytes};
    std::vector<std::string> models;
};

TEST_F(CrowdedPools, ThoseThatNobodyUsesMakeRoom) {
    const Verdict running = send(1, "m0");
    const Verdict queued = send(1, "m1");
    ASSERT_EQ(running.decision, Decision::granted);
    ASSERT_EQ(queued.decision, Decision::queued);
    for (uint32_t client = 2; client <= kOrgs; ++client) {
        for (const std::string& model : models) {
            const Verdict v = send(client, model);
            ASSERT_EQ(v.decision, Decision::granted) << client << " " << model << " " << outcome_name(v.reason);
            z.end(v.ticket);
        }
        z.tick();
        ASSERT_EQ(z.check(), "");
    }
    EXPECT_EQ(z.totals().queued, 1u) << "whose pool has stayed";
    z.end(running.ticket);
    EXPECT_EQ(z.take_all().size(), 1u);
    EXPECT_EQ(z.check(), "");
}

TEST_F(CrowdedPools, WhereAllAreUsedTheNextIsRefusedUntilOneIsNot) {
    std::vector<Ticket> running;
    std::vector<Ticket> waiting;
    uint32_t refused = 0;
    for (uint32_t client = 1; client <= kOrgs; ++client) {
        for (const std::string& model : models) {
            const Verdict v = send(client, model);
            if (v.decision == Decision::rejected) {
                EXPECT_EQ(v.reason, Outcome::rejected_queue_full);
                ++refused;
            } else {
                (v.decision == Decision::granted ? running : waiting).push_back(v.ticket);
            }
        }
    }
    EXPECT_GT(refused, 0u);
    EXPECT_EQ(send(kOrgs, models.back()).reason, Outcome::rejected_queue_full);
    EXPECT_TRUE(z.drop(waiting.front()));
    z.tick();
    EXPECT_NE(send(kOrgs, models.back()).decision, Decision::rejected);
    EXPECT_EQ(z.check(), "");
}

TEST_F(Limits, RetryAfterSpreadsThoseWhoAreRefused) {
    start({{.id = 1, .threshold = 1}}, 4);
    std::vector<Ticket> running;
    for (int i = 0; i < 4; ++i) {
        running.push_back(z.send(1).ticket);
    }
    z.send(1);
    for (int i = 0; i < 50; ++i) {  // one dispatch each 200 ms: a drain rate of 5/s
        z.tick(200'000);
        z.end(running[static_cast<size_t>(i) % 4]);
        std::vector<Ticket> taken;
        z.take_all(&taken);
        ASSERT_EQ(taken.size(), 1u);
        running[static_cast<size_t>(i) % 4] = taken[0];
        z.send(1);
    }
    uint32_t before = 0;
    uint32_t last = 0;
    for (int i = 0; i < 40; ++i) {
        const Verdict v = z.send(1);
        ASSERT_EQ(v.reason, Outcome::rejected_threshold);
        EXPECT_GE(v.retry_after_ms, before / 2);
        before = v.retry_after_ms;
        last = v.retry_after_ms;
    }
    EXPECT_GT(last, 20'000u) << "the fortieth does not come back with the first";
    Verdict v;
    for (int i = 0; i < 200; ++i) {
        v = z.send(1);
    }
    EXPECT_EQ(v.retry_after_ms, 60'000u);
    EXPECT_FALSE(v.should_retry);
}

TEST_F(Limits, RoutingModes) {
    z.load({{.id = 1, .organisation = "cs"}, {.id = 2, .organisation = "bio"}, {.id = 3}});
    ASSERT_TRUE(z.engines(
        {{.url = "http://cs", .max_running = 1, .org = "cs"}, {.url = "http://x", .max_running = 1}}));
    RequestArgs only = z.args();
    only.mode = RoutingMode::private_only;
    EXPECT_EQ(z.send(2, only).reason, Outcome::rejected_no_engine);
    EXPECT_EQ(z.send(3, only).reason, Outcome::rejected_no_engine);
    RequestArgs first = z.args();
    first.mode = RoutingMode::private_first;
    const Verdict a = z.send(1, first);
    EXPECT_EQ(a.engine, 0u) << "prefers its own";
    const Verdict b = z.send(1, first);
    EXPECT_EQ(b.engine, 1u) << "takes any other with room at once";
    const Verdict c = z.send(1, only);
    EXPECT_EQ(c.decision, Decision::queued);
    z.end(b.ticket);
    EXPECT_TRUE(z.take_all().empty()) << "private-only does not take the foreign place";
    z.end(a.ticket);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{1}));
}

}  // namespace
}  // namespace llm::core
