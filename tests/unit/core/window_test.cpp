// Who may go ahead of its turn to an engine that knows its prompt (RoutingPolicy::prefix).
#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "tests/unit/core/prefix_fixture.hpp"

namespace llm::core {
namespace {

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
