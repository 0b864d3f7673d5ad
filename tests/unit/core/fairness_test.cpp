// The order of service: shares, bounds, classes, aging, the lift rule, refunds (docs/scheduler.md, "Order").
#include <algorithm>
#include <cmath>
#include <map>

#include "ngx_module/core/core.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

// Keeps `backlog` requests of each client waiting and ends the oldest running request each step.
class Saturated {
  public:
    Saturated(TestZone& z, std::vector<uint32_t> clients, uint32_t backlog, uint32_t seats)
        : z_(z), clients_(std::move(clients)), backlog_(backlog), seats_(seats) {
        refill();
    }

    // Ends one request of random size; the next one starts.
    void step() {
        z_.tick(20'000);
        if (running_.empty()) {
            return;
        }
        const auto [ticket, client] = running_.front();
        running_.erase(running_.begin());
        random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
        const uint32_t prompt = 50 + static_cast<uint32_t>(random_ >> 33) % 400;
        const uint32_t output = 20 + static_cast<uint32_t>(random_ >> 40) % 300;
        z_.end(ticket, prompt, output);
        service[client] += prompt + 2.0 * output;
        waiting_[client]--;
        refill();
    }

    std::map<uint32_t, double> service;

  private:
    void refill() {
        collect();
        for (uint32_t client : clients_) {
            while (waiting_[client] < backlog_ + seats_) {
                RequestArgs a = z_.args();
                a.stream = false;
                a.prompt_tokens = 250;
                a.max_output_tokens = 320;
                const Verdict v = z_.send(client, a);
                ASSERT_NE(v.decision, Decision::rejected);
                waiting_[client]++;
                if (v.decision == Decision::granted) {
                    running_.push_back({v.ticket, client});
                }
            }
        }
        collect();
    }

    void collect() {
        for (const Event& event : z_.events()) {
            ZoneLock lock(z_.zone);
            uint32_t engine;
            ASSERT_TRUE(take_up(lock, event.ticket, z_.now, engine, z_.wakes));
            running_.push_back({event.ticket, static_cast<uint32_t>(event.cookie)});
        }
    }

    TestZone& z_;
    std::vector<uint32_t> clients_;
    uint32_t backlog_;
    uint32_t seats_;
    std::map<uint32_t, uint32_t> waiting_;
    std::vector<std::pair<Ticket, uint32_t>> running_;
    uint64_t random_ = 1;
};

TEST(Fairness, SharesFollowTheWeights) {
    TestZone z;
    z.load({{.id = 1, .priority = 1},
            {.id = 2, .priority = 2},
            {.id = 3, .priority = 4},
            {.id = 4, .priority = 1, .weight = 3.0}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 8}}));
    Saturated load(z, {1, 2, 3, 4}, 4, 8);
    for (int i = 0; i < 200; ++i) {
        load.step();
    }
    const auto before = load.service;
    for (int i = 0; i < 8000; ++i) {
        load.step();
    }
    double total = 0;
    std::map<uint32_t, double> got;
    for (auto [client, amount] : load.service) {
        got[client] = amount - before.at(client);
        total += got[client];
    }
    const std::map<uint32_t, double> weight = {{1, 1}, {2, 2}, {3, 4}, {4, 3}};
    double sum = 0;
    double squares = 0;
    for (auto [client, w] : weight) {
        EXPECT_NEAR(got[client] / total, w / 10, 0.01) << client;
        sum += got[client] / w;
        squares += got[client] / w * got[client] / w;
    }
    EXPECT_GE(sum * sum / (4 * squares), 0.99);
    EXPECT_EQ(z.check(), "");
}

TEST(Fairness, ServiceDifferenceStaysWithinItsBound) {
    TestZone z;
    z.load({{.id = 1, .priority = 1}, {.id = 2, .priority = 3}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 4}}));
    Saturated load(z, {1, 2}, 8, 4);
    double worst = 0;
    for (int i = 0; i < 4000; ++i) {
        load.step();
        worst = std::max(worst, std::abs(load.service[1] - load.service[2] / 3));
    }
    const double prompt = 450, output = 320, in_flight = 4, prompt_error = 200, slack = 4096;
    const double bound_per_weight = prompt + 2 * in_flight * output + in_flight * prompt_error;
    EXPECT_LE(worst, bound_per_weight * (1 + 1.0 / 3) + slack * (1 + 1.0 / 3));
}

// Waiting requests in the order in which one seat serves them.
std::vector<uint64_t> drain_order(TestZone& z, Ticket running) {
    std::vector<uint64_t> order;
    for (;;) {
        z.end(running, 100, 10);
        std::vector<Ticket> taken;
        const auto cookies = z.take_all(&taken);
        if (cookies.empty()) {
            return order;
        }
        order.push_back(cookies[0]);
        running = taken[0];
    }
}

TEST(Order, StrictServesHigherPriorityFirstAndFifoInside) {
    TestZone z;
    Settings s;
    s.scheduler = Scheduler::strict;
    s.aging_us = -1;
    z.settings(s);
    z.load({{.id = 1, .priority = 0},
            {.id = 2, .priority = 2},
            {.id = 3, .priority = 5},
            {.id = 4, .priority = 5}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(1);
    for (uint32_t id : {1, 2, 3, 2, 4, 3, 1}) {
        z.send(id);
    }
    EXPECT_EQ(drain_order(z, running.ticket), (std::vector<uint64_t>{3, 4, 3, 2, 2, 1, 1}));
}

TEST(Order, ALoweredPriorityIsItsOwnFlow) {
    TestZone z;
    Settings s;
    s.scheduler = Scheduler::strict;
    z.settings(s);
    z.load({{.id = 1, .priority = 5}, {.id = 2, .priority = 3}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(1);
    RequestArgs low = z.args();
    low.client_priority = 0;
    low.cookie = 100;
    EXPECT_EQ(z.send(1, low).priority, 1) << "at least 1 unless the client's own is 0";
    RequestArgs high = z.args();
    high.client_priority = 9;
    high.cookie = 200;
    EXPECT_EQ(z.send(2, high).priority, 3) << "never raised";
    z.send(1);
    EXPECT_EQ(drain_order(z, running.ticket), (std::vector<uint64_t>{1, 200, 100}));
    s.client_priority = ClientPriority::ignore;
    z.settings(s);
    EXPECT_EQ(z.send(1, low).priority, 5);
}

TEST(Order, BandsAreStrictAndBackgroundComesLast) {
    TestZone z;
    z.load({{.id = 1, .priority = 0},
            {.id = 2, .priority = 1},
            {.id = 3, .priority = 1, .band = 2},
            {.id = 4, .priority = 9, .band = -1}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(2);
    EXPECT_EQ(z.send(3).engine_class, 2);
    EXPECT_EQ(z.send(1).engine_class, -kMaxBand - 1);
    z.send(4);
    z.send(2);
    z.send(3);
    EXPECT_EQ(drain_order(z, running.ticket), (std::vector<uint64_t>{3, 3, 2, 4, 1}));
}

TEST(Order, AgingLetsOneInTenPass) {
    TestZone z;
    Settings s;
    s.scheduler = Scheduler::strict;
    s.aging_us = 30'000'000;
    z.settings(s);
    z.load({{.id = 1, .priority = 1}, {.id = 2, .priority = 5}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    Verdict running = z.send(2);
    Ticket now = running.ticket;
    z.send(1);
    z.send(1);
    z.send(1);
    auto serve = [&](int count) {
        std::vector<uint64_t> order;
        for (int i = 0; i < count; ++i) {
            z.send(2);
            z.end(now);
            std::vector<Ticket> taken;
            const auto cookies = z.take_all(&taken);
            order.push_back(cookies.at(0));
            now = taken.at(0);
        }
        return order;
    };
    for (uint64_t cookie : serve(30)) {
        EXPECT_EQ(cookie, 2u) << "nobody has waited long enough";
    }
    z.tick(30'000'000);
    const auto order = serve(30);
    EXPECT_EQ(std::count(order.begin(), order.end(), 1u), 3);
    for (size_t i = 0; i + 10 <= order.size(); ++i) {
        EXPECT_LE(
            std::count(order.begin() + static_cast<long>(i), order.begin() + static_cast<long>(i) + 10, 1u),
            1);
    }
    EXPECT_EQ(read_counters(z.zone).aged_grants, 3u);
}

TEST(Order, BackgroundDoesNotAge) {
    TestZone z;
    z.load({{.id = 1, .priority = 0}, {.id = 2, .priority = 5}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    Ticket now = z.send(2).ticket;
    z.send(1);
    z.tick(100'000'000);
    for (int i = 0; i < 30; ++i) {
        z.send(2);
        z.end(now);
        std::vector<Ticket> taken;
        EXPECT_EQ(z.take_all(&taken).at(0), 2u);
        now = taken.at(0);
    }
}

TEST(Order, ANewcomerNeitherJumpsFarAheadNorWaitsForThePast) {
    TestZone z;
    z.load({{.id = 1}, {.id = 2}, {.id = 3}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    Ticket now = z.send(1).ticket;
    for (int i = 0; i < 50; ++i) {  // client 1 builds up a long history
        z.end(now, 1000, 1000);
        now = z.send(1).ticket;
    }
    for (int i = 0; i < 10; ++i) {
        z.send(1);
        z.send(2);
    }
    const auto order = drain_order(z, now);
    // Lifted to client 1's level: they alternate instead of client 2 going ten times in a row.
    long longest = 0;
    long run = 0;
    for (uint64_t cookie : order) {
        run = cookie == 2 ? run + 1 : 0;
        longest = std::max(longest, run);
    }
    EXPECT_LE(longest, 5) << "what is predicted for them differs at first";
}

TEST(Order, UsingIdleCapacityIsNotPaidForLater) {
    TestZone z;
    z.load({{.id = 1}, {.id = 2}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    Ticket now = z.send(1).ticket;
    for (int i = 0; i < 50; ++i) {  // nobody else wants the engine
        z.end(now, 1000, 1000);
        now = z.send(1).ticket;
    }
    for (int i = 0; i < 10; ++i) {  // then a newcomer floods first
        z.send(2);
    }
    for (int i = 0; i < 3; ++i) {
        z.send(1);
    }
    const auto order = drain_order(z, now);
    EXPECT_GE(std::count(order.begin(), order.begin() + 8, 1u), 2) << "client 1 has its share";
}

TEST(Order, CancelledInTheQueueCostsNothing) {
    TestZone z;
    z.load({{.id = 1}, {.id = 2}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(1);
    z.send(1);
    z.send(2);
    for (int i = 0; i < 5; ++i) {
        const Verdict v = z.send(2);
        z.drop(v.ticket);
    }
    const Verdict other = z.send(1);
    z.send(2);
    (void)other;
    const auto order = drain_order(z, running.ticket);
    EXPECT_EQ(std::count(order.begin(), order.begin() + 2, 2u), 1) << "they share";
}

TEST(Order, FailedBeforeItsFirstByteIsRefundedInFull) {
    TestZone z;
    z.load({{.id = 1}, {.id = 2}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    // Both clients have the same past; then one request of client 1 fails and one of client 2 succeeds.
    Verdict a = z.send(1);
    Verdict b = z.send(2);
    z.end(a.ticket, 5000, 0, Outcome::engine_error);
    z.end(b.ticket, 5000, 5000);
    Ticket running = z.send(1).ticket;
    Ticket second = z.send(2).ticket;
    z.send(2);
    z.send(1);
    z.end(running, 100, 100);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{1})) << "client 2 has had more";
    z.drop(second);
}

TEST(Order, SwitchingTheSchedulerReordersWhatWaits) {
    TestZone z;
    z.load({{.id = 1, .priority = 1}, {.id = 2, .priority = 9}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(1);
    z.send(1);
    z.send(1);
    z.send(2);
    z.send(2);
    Settings s;
    s.scheduler = Scheduler::strict;
    z.settings(s);
    EXPECT_EQ(z.check(), "");
    EXPECT_EQ(drain_order(z, running.ticket), (std::vector<uint64_t>{2, 2, 1, 1}));
}

TEST(Order, AnAdministratorMovesARequest) {
    TestZone z;
    Settings s;
    s.scheduler = Scheduler::strict;
    z.settings(s);
    z.load({{.id = 1, .priority = 1}, {.id = 2, .priority = 9}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(1);
    z.send(2);
    const Verdict urgent = z.send(1);
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(set_priority(lock, urgent.ticket, 10, z.now, z.wakes));
        EXPECT_FALSE(set_priority(lock, running.ticket, 10, z.now, z.wakes));
    }
    EXPECT_EQ(drain_order(z, running.ticket), (std::vector<uint64_t>{1, 2}));
}

TEST(Order, AnEngineIsToldWhatARequestIsServedAs) {
    for (const Scheduler scheduler : {Scheduler::strict, Scheduler::weighted}) {
        TestZone z;
        Settings settings;
        settings.scheduler = scheduler;
        z.settings(settings);
        z.load({{.id = 1}, {.id = 2, .priority = 2, .band = 3}});
        ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
        const Verdict running = z.send(1);
        const Verdict moved = z.send(2);
        EXPECT_EQ(moved.engine_class, scheduler == Scheduler::strict ? 2 : 3);
        const auto served = [&] {
            ZoneLock lock(z.zone);
            return served_as(lock, moved.ticket);
        };
        {
            ZoneLock lock(z.zone);
            ASSERT_TRUE(set_priority(lock, moved.ticket, 9, z.now, z.wakes));
        }
        EXPECT_EQ(served().priority, 9);
        EXPECT_EQ(served().engine_class, scheduler == Scheduler::strict ? 9 : 3);
        {
            ZoneLock lock(z.zone);
            ASSERT_TRUE(set_priority(lock, moved.ticket, 0, z.now, z.wakes));
        }
        EXPECT_EQ(served().engine_class, scheduler == Scheduler::strict ? 0 : -kMaxBand - 1);
        z.end(running.ticket);
        z.take_all();
        z.end(moved.ticket);
        EXPECT_EQ(served().priority, 0) << "stale";
    }
}

TEST(Order, RefusalsByTheEngineTeachNothingOfTheLengthOfAnswers) {
    TestZone z;
    z.load({{.id = 1}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 8}}));
    RequestArgs whole = z.args();
    whole.stream = false;
    const auto charged_ahead = [&] {
        const Verdict v = z.send(1, whole);
        const Tables t(z.zone);
        const double ahead = t.requests[v.ticket.index].precharge_left;
        z.end(v.ticket, 0, 0);  // what a 400 of the engine's comes to
        return ahead;
    };
    z.end(z.send(1, whole).ticket, 100, 1000);
    EXPECT_EQ(charged_ahead(), 2000);
    for (int i = 0; i < 20; ++i) {
        charged_ahead();
    }
    EXPECT_EQ(charged_ahead(), 2000);
}

TEST(Order, AnEngineThatPreemptsTakesAStricterClassOverItsLimit) {
    TestZone z;
    z.load({{.id = 1, .priority = 1}, {.id = 2, .priority = 1, .band = 1}});
    EngineReport r = TestZone::report("gpu0");
    r.max_running = 2;
    r.preempts = true;
    z.apply(r);
    z.send(1);
    z.send(1);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EXPECT_EQ(z.send(2).decision, Decision::granted);
    EXPECT_EQ(z.send(2).decision, Decision::granted);
    EXPECT_EQ(z.send(2).decision, Decision::queued) << "two of its own class run already";
    EXPECT_EQ(z.engine(0).held, 4u);
}

}  // namespace
}  // namespace llm::core
