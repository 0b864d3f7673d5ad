// Routing by what engines have computed before (RoutingPolicy::prefix), and who may go ahead of its turn for
// it.
#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "ngx_module/core/core.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kPromptTokens = 2000;
constexpr uint32_t kPromptBytes = 8192;

// Keys of a body whose first `shared` bytes are those of `conversation`, and whose rest nobody else has.
PrefixKeys keys_for(uint32_t conversation, uint32_t shared = kPromptBytes, uint32_t bytes = kPromptBytes) {
    static uint32_t unique = 0;
    PrefixKeys keys;
    keys.bytes = bytes;
    const uint32_t rest = 0x80000000u + ++unique * 64;
    for (uint32_t i = 0; i < keys.count(); ++i) {
        keys.key[i] = PrefixKeys::covered(i) <= shared ? 1 + conversation * 64 + i : rest + i;
    }
    return keys;
}

// `keys`, but its first `count` ones are those of `conversation`.
PrefixKeys beginning_as(uint32_t conversation, uint32_t count, PrefixKeys keys) {
    const PrefixKeys others = keys_for(conversation);
    std::copy(others.key, others.key + count, keys.key);
    return keys;
}

class Prefix : public WithTwoClients {
  protected:
    void SetUp() override {
        WithTwoClients::SetUp();
        settings.routing = RoutingPolicy::prefix;
        settings.aging_us = -1;
        z.settings(settings);
    }

    // `keys` must live until it is sent.
    RequestArgs asking(const PrefixKeys& keys) {
        RequestArgs a = z.args();
        a.prompt_tokens = kPromptTokens;
        a.max_output_tokens = 1;
        a.stream = false;
        a.prefix = &keys;
        return a;
    }
    Verdict send(const PrefixKeys& keys, uint32_t client = 1) { return z.send(client, asking(keys)); }
    // The engine that a request goes to that ends at once.
    uint32_t engine_for(const PrefixKeys& keys) {
        const Verdict v = send(keys);
        EXPECT_EQ(v.decision, Decision::granted);
        z.end(v.ticket);
        return v.engine;
    }

    Settings settings;
};

TEST_F(Prefix, GoesWhereItsBeginningWasComputed) {
    ASSERT_TRUE(
        z.engines({{.url = "http://a"}, {.url = "http://b"}, {.url = "http://c"}, {.url = "http://d"}}));
    std::set<uint32_t> used;
    for (uint32_t conversation = 1; conversation <= 40; ++conversation) {
        const uint32_t engine = engine_for(keys_for(conversation));
        used.insert(engine);
        for (uint32_t turn = 1; turn <= 3; ++turn) {
            EXPECT_EQ(engine_for(keys_for(conversation, kPromptBytes, kPromptBytes * (1 + turn))), engine);
        }
    }
    EXPECT_EQ(used.size(), 4u) << "what is new goes anywhere";
}

TEST_F(Prefix, TheLongestBeginningDecides) {
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    const Verdict first = send(keys_for(1));   // a system prompt and a conversation
    const Verdict second = send(keys_for(2));  // keeps the other engine as busy
    ASSERT_NE(first.engine, second.engine);
    // 2 KiB are known to the second engine, all of it to the first
    EXPECT_EQ(engine_for(beginning_as(2, 2, keys_for(1))), first.engine);
}

TEST_F(Prefix, ABusyEngineIsPassedOver) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 64}, {.url = "http://b", .max_running = 64}}));
    const uint32_t engine = engine_for(keys_for(1));
    const Verdict running = send(keys_for(1));
    ASSERT_EQ(running.engine, engine);
    // half of the prompt is known there: (1000 + 64) · 2 against (2000 + 64) · 1
    EXPECT_NE(engine_for(keys_for(1, kPromptBytes / 2)), engine);
    z.end(running.ticket);
    EXPECT_EQ(engine_for(keys_for(1, kPromptBytes)), engine) << "all of it";
}

TEST_F(Prefix, ALargerEngineIsLessBusy) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 8}, {.url = "http://b", .max_running = 32}}));
    const uint32_t large = engine_for(keys_for(1));  // 2064 / 32 against 2064 / 8
    const Verdict running = send(keys_for(2));
    ASSERT_EQ(running.engine, large);
    // half is known there: 1064 · 2 / 32 against 2064 · 1 / 8
    EXPECT_EQ(engine_for(keys_for(2, kPromptBytes / 2)), large);
    EXPECT_EQ(engine_for(keys_for(3)), large);
}

TEST_F(Prefix, WhoeverHasWaitedGoesWhereItsBeginningWasComputed) {
    z.load({{.id = 1, .max_running = 1}, {.id = 2}});
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    for (uint32_t conversation = 1; conversation <= 20; ++conversation) {
        const uint32_t home = engine_for(keys_for(conversation));
        const Verdict first = send(keys_for(100 + conversation));
        ASSERT_EQ(first.decision, Decision::granted);
        ASSERT_EQ(send(keys_for(conversation)).decision, Decision::queued) << "its max_running holds it back";
        z.end(first.ticket);
        std::vector<Ticket> tickets;
        ASSERT_EQ(z.take_all(&tickets).size(), 1u);
        EXPECT_EQ(z.end(tickets[0]).engine, home);
    }
}

TEST_F(Prefix, ARequestWithoutKeysHasNone) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = send(keys_for(1));
    const PrefixKeys known = keys_for(1);
    z.drop(send(known, 2).ticket);
    RequestArgs without = asking(known);  // and takes the place of that one
    without.prefix = nullptr;
    without.cookie = 20;
    z.send(2, without);
    RequestArgs first = asking(known);
    first.cookie = 10;
    z.send(1, first);
    z.end(running.ticket, kPromptTokens, 1);
    EXPECT_EQ(z.take_all(), std::vector<uint64_t>{10});
}

TEST_F(Prefix, ShortPromptsGoWhereThereIsRoom) {
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    RequestArgs a = z.args();
    a.prompt_tokens = 10;
    const PrefixKeys keys = keys_for(1);
    a.prefix = &keys;
    std::set<uint32_t> engines;
    for (int i = 0; i < 2; ++i) {
        engines.insert(z.send(1, a).engine);
    }
    EXPECT_EQ(engines.size(), 2u) << "64 of 74 tokens count whatever an engine has";
}

TEST_F(Prefix, IsForgottenAfterTenMinutes) {
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    const uint32_t engine = engine_for(keys_for(1));
    z.pass(500'000'000);
    EXPECT_EQ(engine_for(keys_for(1)), engine);
    z.pass(500'000'000);
    EXPECT_EQ(engine_for(keys_for(1)), engine) << "it was used since";
    uint32_t again = 0;
    for (uint32_t conversation = 100; conversation < 130; ++conversation) {
        const uint32_t first = engine_for(keys_for(conversation));
        z.pass(610'000'000);
        again += engine_for(keys_for(conversation)) == first ? 1 : 0;
    }
    EXPECT_GT(again, 0u);
    EXPECT_LT(again, 30u) << "it goes anywhere";
}

TEST_F(Prefix, ARestartedEngineHasNothing) {
    z.settings(settings);
    EngineReport a = TestZone::report("a", 1, 1);
    EngineReport b = TestZone::report("b", 1, 1);
    z.apply(a);
    z.apply(b);
    const Verdict first = send(keys_for(1));
    const Verdict second = send(keys_for(2));
    ASSERT_NE(first.engine, second.engine);
    z.end(first.ticket);
    z.end(second.ticket);
    z.pass(8'000'000);
    EngineReport& restarted = z.engine(first.engine).id == std::string("a") ? a : b;
    restarted.boot = 2;
    z.apply(restarted);
    z.pass(1'000'000);
    EXPECT_EQ(engine_for(beginning_as(2, 1, keys_for(1))), second.engine)
        << "1 KiB there, nothing any more here";
}

TEST_F(Prefix, AnEngineThatRunsForMonthsIsStillKnown) {
    ASSERT_TRUE(
        z.engines({{.url = "http://a"}, {.url = "http://b"}, {.url = "http://c"}, {.url = "http://d"}}));
    for (uint32_t day = 10; day <= 120; day += 10) {
        z.tick(int64_t{10} * 24 * 3600 * 1'000'000);
        const uint32_t engine = engine_for(keys_for(day));
        for (uint32_t turn = 0; turn < 8; ++turn) {
            EXPECT_EQ(engine_for(keys_for(day)), engine) << "day " << day;
        }
    }
}

TEST_F(Prefix, WhatWasUsedLongestAgoMakesRoom) {
    ASSERT_TRUE(z.engines({{.url = "http://a"}}));
    const uint32_t sets = plan_zone(z.bytes()).prefix_sets;
    const uint32_t model = find_model(z.zone, "m");
    PrefixKeys keys;
    keys.bytes = PrefixKeys::kFirstBytes;
    const auto place_of = [&](uint32_t key) {
        keys.key[0] = key;
        return uint64_t{mix32(keys_for_model(keys, model).key[0])} * sets >> 32;
    };
    std::vector<PrefixKeys> together;  // of one place, which has room for all but one
    const uint64_t place = place_of(1);
    for (uint32_t key = 1; together.size() <= kPrefixWays; ++key) {
        if (place_of(key) == place) {
            together.push_back(keys);
        }
    }
    const PrefixKeys newest = together.back();
    together.pop_back();
    uint32_t engine = 0;
    for (const PrefixKeys& one : together) {
        engine = engine_for(one);
        z.pass(10'000'000);
    }
    for (int i = 0; i < 2; ++i) {
        engine_for(together[0]);
        z.pass(10'000'000);
    }
    engine_for(newest);
    ZoneLock lock(z.zone);
    const Core c(lock, z.now, z.wakes);
    EXPECT_EQ(prefix_part(c, keys_for_model(newest, model), engine), 1);
    for (size_t i = 0; i < together.size(); ++i) {
        EXPECT_EQ(prefix_part(c, keys_for_model(together[i], model), engine), i == 1 ? 0 : 1) << i;
    }
}

TEST_F(Prefix, AnotherModelSharesNothing) {
    ASSERT_TRUE(
        z.engines({{.url = "http://a", .models = {"m", "k"}}, {.url = "http://b", .models = {"m", "k"}}}));
    const PrefixKeys keys = keys_for(1);
    uint32_t apart = 0;
    for (int i = 0; i < 40; ++i) {
        z.pass(610'000'000);  // all is forgotten
        const uint32_t engine = engine_for(keys);
        RequestArgs a = asking(keys);
        a.model = "k";
        const Verdict v = z.send(1, a);
        apart += v.engine != engine ? 1 : 0;
        z.end(v.ticket);
    }
    EXPECT_GT(apart, 0u) << "as coins fall";
}

TEST_F(Prefix, OtherPoliciesTakeNoNotice) {
    settings.routing = RoutingPolicy::round_robin;
    z.settings(settings);
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    const uint32_t engine = engine_for(keys_for(1));
    EXPECT_NE(engine_for(keys_for(1)), engine);
}

// One seat is taken; `waiting` requests of different clients wait for it. Answers whose turn comes first.
class Window : public Prefix {
  protected:
    static constexpr uint32_t kStricter = 7;  // a client of a higher band

    void SetUp() override {
        Prefix::SetUp();
        std::vector<TestClient> clients;
        for (uint32_t id = 1; id <= 20; ++id) {
            clients.push_back({.id = id, .priority = 1, .band = id == kStricter ? 1 : 0});
        }
        z.load(clients);
        ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
        running = send(keys_for(1), 1);
        ASSERT_EQ(running.decision, Decision::granted);
    }
    void wait(uint32_t client, const PrefixKeys& keys, int64_t timeout_us = 60'000'000,
              std::string_view model = "m") {
        RequestArgs a = asking(keys);
        a.model = model;
        a.cookie = client;
        a.queue_timeout_us = timeout_us;
        ASSERT_EQ(z.send(client, a).decision, Decision::queued);
    }
    uint64_t next() {
        z.end(running.ticket, kPromptTokens, 1);
        std::vector<Ticket> tickets;
        const auto cookies = z.take_all(&tickets);
        EXPECT_EQ(cookies.size(), 1u);
        running.ticket = tickets.at(0);
        return cookies.at(0);
    }
    Verdict running;
};

TEST_F(Window, WhoFitsTheEngineBestGoesFirst) {
    wait(2, keys_for(2));
    wait(3, keys_for(1, kPromptBytes / 4));
    wait(4, keys_for(1, kPromptBytes / 2));
    EXPECT_EQ(next(), 4u);
    EXPECT_EQ(next(), 3u);
    EXPECT_EQ(next(), 2u);
}

TEST_F(Window, WithoutAnythingKnownTheOrderStays) {
    for (uint32_t client : {5u, 3u, 2u, 4u}) {
        wait(client, keys_for(client));
    }
    for (uint32_t client : {5u, 3u, 2u, 4u}) {
        EXPECT_EQ(next(), client);
    }
}

TEST_F(Window, NobodyPassesAStricterClass) {
    wait(kStricter, keys_for(7));
    wait(2, keys_for(1));
    EXPECT_EQ(next(), kStricter);
    EXPECT_EQ(next(), 2u);
}

TEST_F(Window, NeitherInTheQueueOfAnotherModel) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1}}));
    wait(kStricter, keys_for(7), 60'000'000, "m");
    wait(2, keys_for(1), 60'000'000, "k");
    EXPECT_EQ(next(), kStricter);
    wait(kStricter, keys_for(7), 60'000'000, "k");
    wait(3, keys_for(1), 60'000'000, "m");
    EXPECT_EQ(next(), kStricter);
}

TEST_F(Window, TheQueuesOfAllModelsAreOne) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1}}));
    for (uint32_t client = 2; client <= 6; ++client) {
        wait(client, keys_for(client), 60'000'000, client % 2 == 0 ? "k" : "m");
    }
    for (uint32_t client = 2; client <= 6; ++client) {
        EXPECT_EQ(next(), client);
    }
}

TEST_F(Window, AStricterClassThatIsHeldBackDoesNotCount) {
    z.load({{.id = 1}, {.id = 2}, {.id = 3}, {.id = kStricter, .band = 1, .max_running = 1}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    ASSERT_EQ(send(keys_for(7), kStricter).decision, Decision::granted);
    wait(kStricter, keys_for(7));
    wait(2, keys_for(2));
    wait(3, keys_for(1));
    EXPECT_EQ(next(), 3u);
}

TEST_F(Window, WhatAnotherEngineKnowsDoesNotCount) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    const Verdict other = send(keys_for(9), 20);
    ASSERT_NE(other.engine, running.engine);
    wait(2, keys_for(2));
    wait(3, keys_for(9));
    EXPECT_EQ(next(), 2u);
    z.end(other.ticket);
    EXPECT_EQ(z.take_all(), std::vector<uint64_t>{3});
}

TEST_F(Window, WhatIsForgottenDoesNotCount) {
    z.pass(610'000'000);
    wait(2, keys_for(2));
    wait(3, keys_for(1));
    EXPECT_EQ(next(), 2u);
}

TEST_F(Window, AJumpMustBeWorthIt) {
    constexpr uint32_t kKnown = kPromptBytes / 2;
    wait(2, keys_for(1, kKnown, kPromptBytes));
    wait(3, keys_for(1, kKnown, kPromptBytes - 12));  // .5007 against .5
    EXPECT_EQ(next(), 2u);
    EXPECT_EQ(next(), 3u);
    wait(2, keys_for(1, kKnown, kPromptBytes));
    wait(3, keys_for(1, kKnown, kPromptBytes - 92));  // .5057
    EXPECT_EQ(next(), 3u);
}

TEST_F(Window, IsOpenAlsoWhenNobodyHasWaitedLong) {
    settings.aging_us = 30'000'000;
    z.settings(settings);
    for (uint32_t i = 0; i < 30; ++i) {
        wait(2, keys_for(1000 + i));
        wait(3, keys_for(1));
        EXPECT_EQ(next(), 3u);
        EXPECT_EQ(next(), 2u);
    }
}

TEST_F(Window, AReloadWithoutThePolicyClosesIt) {
    wait(2, keys_for(2));
    wait(3, keys_for(1));
    settings.routing = RoutingPolicy::throughput;
    z.settings(settings);
    EXPECT_EQ(next(), 2u);
}

TEST_F(Window, WithinAFlowTheOrderOfArrivalStays) {
    wait(2, keys_for(2));
    const PrefixKeys known = keys_for(1);
    RequestArgs later = asking(known);
    later.cookie = 200;
    ASSERT_EQ(z.send(2, later).decision, Decision::queued);
    EXPECT_EQ(next(), 2u);
    EXPECT_EQ(next(), 200u);
}

TEST_F(Window, SixteenAreLookedAt) {
    for (uint32_t client = 2; client <= 20; ++client) {
        if (client != kStricter) {
            wait(client, keys_for(client >= 19 ? 1 : client));
        }
    }
    EXPECT_EQ(next(), 2u) << "19 is the seventeenth";
    EXPECT_EQ(next(), 19u) << "now it is among them";
    EXPECT_EQ(next(), 20u);
    EXPECT_EQ(next(), 3u);
}

TEST_F(Window, SixteenOfAllModelsAreLookedAt) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1}}));
    std::vector<TestClient> clients;
    for (uint32_t id = 1; id <= 60; ++id) {
        clients.push_back({.id = id});
    }
    z.load(clients);
    z.end(running.ticket);
    const PrefixKeys keys = keys_for(1);
    RequestArgs known_to_k = asking(keys);
    known_to_k.model = "k";
    running = z.send(1, known_to_k);
    ASSERT_EQ(running.decision, Decision::granted);
    uint32_t before = 20;
    for (const auto& [many, one] : {std::pair("m", "k"), std::pair("k", "m")}) {
        for (uint32_t i = 1; i <= 20; ++i) {
            const bool known = i == 16 || i == 20;
            wait(before + i, keys_for(known ? 1 : before + i), 60'000'000, known ? one : many);
        }
        for (uint32_t i : {16u, 1u, 2u, 3u}) {
            EXPECT_EQ(next(), before + i);
        }
        EXPECT_EQ(next(), before + 20) << "now it is among them";
        for (uint32_t i = 4; i <= 19; i += i == 15 ? 2 : 1) {
            EXPECT_EQ(next(), before + i);
        }
        before += 20;
    }
}

TEST_F(Window, WhoHasWaitedForMostOfItsTimeGoesFirst) {
    wait(2, keys_for(2), 10'000'000);
    wait(3, keys_for(1));
    z.pass(6'000'000);
    EXPECT_EQ(next(), 3u);
    wait(4, keys_for(1));
    z.pass(1'500'000);
    EXPECT_EQ(next(), 2u);
    EXPECT_EQ(next(), 4u);
}

TEST_F(Window, TimeThatStoodStillIsNoWaiting) {
    wait(2, keys_for(2));
    wait(3, keys_for(1));
    z.tick(300'000'000);  // the machine was suspended
    EXPECT_EQ(next(), 3u);
    wait(4, keys_for(1));
    z.pass(43'000'000);
    EXPECT_EQ(next(), 2u);
    EXPECT_EQ(next(), 4u);
}

TEST_F(Window, OfThoseTheOldestGoesFirst) {
    wait(4, keys_for(4));
    wait(3, keys_for(1));
    EXPECT_EQ(next(), 3u);  // so that its counter is ahead of the others'
    wait(3, keys_for(1003), 10'000'000);
    wait(2, keys_for(1002), 10'000'000);
    wait(5, keys_for(1005), 10'000'000);
    z.pass(7'500'000);
    for (uint32_t client : {3u, 2u, 5u, 4u}) {
        EXPECT_EQ(next(), client);
    }
}

TEST_F(Window, StrictHasNone) {
    settings.scheduler = Scheduler::strict;
    z.settings(settings);
    wait(2, keys_for(2));
    wait(3, keys_for(1));
    EXPECT_EQ(next(), 2u);
}

TEST_F(Window, TheSlackIsOfTheOneThatJumps) {
    z.load({{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4, .priority = 4}});
    wait(2, keys_for(2));
    for (int i = 0; i < 3; ++i) {  // a request costs it 500, and 1,024 are its slack
        wait(4, keys_for(1));
        EXPECT_EQ(next(), 4u);
    }
    wait(4, keys_for(1));
    for (int i = 0; i < 3; ++i) {  // 2,002 of 4,096
        wait(3, keys_for(1));
        EXPECT_EQ(next(), 3u);
    }
    wait(3, keys_for(1));
    EXPECT_EQ(next(), 2u);
    EXPECT_EQ(next(), 4u);
    EXPECT_EQ(next(), 3u);
}

TEST_F(Window, NobodyGetsMoreThanTheSlackAhead) {
    // All but client 2 always fit, it never does; all have much waiting.
    constexpr double kCost = kPromptTokens + 2.0;
    const std::map<uint32_t, int32_t> weights = {{2, 1}, {3, 1}, {4, 4}, {5, 2}, {6, 1}};
    std::vector<TestClient> clients = {{.id = 1}};
    for (auto [client, weight] : weights) {
        clients.push_back({.id = client, .priority = weight});
    }
    z.load(clients);
    std::map<uint32_t, uint32_t> waiting;
    std::map<uint32_t, double> service;
    std::map<uint32_t, double> worst;
    for (int i = 0; i < 1000; ++i) {
        for (auto [client, weight] : weights) {
            for (; waiting[client] < 2; ++waiting[client]) {
                wait(client, keys_for(client == 2 ? 1000 + static_cast<uint32_t>(i) : 1));
            }
        }
        const auto client = static_cast<uint32_t>(next());
        waiting.at(client)--;
        service[client] += kCost / weights.at(client);
        for (auto [other, weight] : weights) {
            worst[other] = std::max(worst[other], service[other] - service[2]);
        }
    }
    for (auto [client, weight] : weights) {
        if (client != 2) {
            EXPECT_LE(worst[client], (4096 + kCost) / weight) << client;
            EXPECT_GT(worst[client], 4096 / weight) << client << ": the slack is used";
        }
    }
    EXPECT_EQ(z.check(), "");
}

}  // namespace
}  // namespace llm::core
