// The engine that a request goes to, by what engines have computed before (RoutingPolicy::prefix).
#include <algorithm>
#include <set>
#include <string>
#include <vector>

#include "tests/unit/core/prefix_fixture.hpp"

namespace llm::core {
namespace {

// `keys`, but its first `count` ones are those of `conversation`.
PrefixKeys beginning_as(uint32_t conversation, uint32_t count, PrefixKeys keys) {
    const PrefixKeys others = keys_for(conversation);
    std::copy(others.key, others.key + count, keys.key);
    return keys;
}

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

}  // namespace
}  // namespace llm::core
