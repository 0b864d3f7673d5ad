// Random operations by several workers: after each one every count follows from the request table and no work
// is left undone; and grants come in the order that a naive model of the discipline predicts.
#include <cmath>
#include <deque>
#include <limits>
#include <map>

#include "tests/unit/core/driver.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

class RandomOperations : public ::testing::TestWithParam<int> {};

// Three workers and what they do at random.
struct Crowd {
    explicit Crowd(TestZone& zone, int seed) : z(zone), choices(static_cast<uint64_t>(seed)) { first.load_clients(); }

    // Ends at the first broken promise.
    void step(int i) {
        all[choices.next(3)]->step();
        ASSERT_EQ(z.check(), "") << "after step " << i;
        const QueueTotals totals = z.totals();
        ASSERT_LE(totals.queued + totals.granted + totals.running,
                  first.live() + second.live() + third.live());
    }

    void leave() {
        for (Driver* driver : all) {
            driver->listen(16);
            driver->finish_all();
            ASSERT_EQ(driver->accepted, driver->ended);
        }
        const QueueTotals totals = z.totals();
        EXPECT_EQ(totals.queued + totals.granted + totals.running + totals.held, 0u);
    }

    TestZone& z;
    RandomChoices choices;
    Driver first{z.zone, choices, z.now, z.wall, 11};
    Driver second{z.zone, choices, z.now, z.wall, 12};
    Driver third{z.zone, choices, z.now, z.wall, 13};
    Driver* all[3] = {&first, &second, &third};
};

TEST_P(RandomOperations, KeepEveryInvariant) {
    TestZone z(plan_zone(1).min_bytes);
    Crowd crowd(z, GetParam());
    crowd.first.apply_engines();
    for (int i = 0; i < 8000 && !HasFatalFailure(); ++i) {
        for (Driver* driver : crowd.all) {
            driver->change_the_world = i % 400 < 200;  // in between, queues grow in a world that stays as it is
        }
        crowd.step(i);
    }
    crowd.leave();
}

TEST_P(RandomOperations, KeepEveryInvariantWhereEnginesAreLost) {
    TestZone z(plan_zone(1).min_bytes);
    Crowd crowd(z, GetParam());
    for (Driver* driver : crowd.all) {
        driver->change_the_world = false;
    }
    for (int i = 0; i < 4000 && !HasFatalFailure(); ++i) {
        if (i % 20 == 0) {  // one is lost; those that were are started again, and their breakers close
            const uint32_t lost = z.ids().empty() ? 0 : crowd.choices.next(static_cast<uint32_t>(z.ids().size()));
            for (Driver* driver : crowd.all) {
                driver->lose_engine(lost);
            }
            for (uint32_t e = 0; e < 4; ++e) {
                EngineReport r = TestZone::report("e" + std::to_string(e), 1 + static_cast<uint64_t>(i));
                r.models = {"m", "k", "l"};
                r.models.resize(1 + crowd.choices.next(3));
                r.max_running = 1 + crowd.choices.next(3);
                z.apply(r);
            }
        }
        crowd.step(i);
    }
    EXPECT_GT(crowd.first.waited_again + crowd.second.waited_again + crowd.third.waited_again, 10u);
    crowd.leave();
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomOperations, ::testing::Range(1, 9));

// The discipline in its simplest form: scan everybody, take the best.
class Naive {
  public:
    struct Waiting {
        uint64_t cookie;
        double prompt;
    };
    struct Client {
        double weight = 1;
        int32_t level = 0;
        double vt = 0;
        std::deque<Waiting> queue;
    };

    void arrive(uint32_t id, uint64_t cookie, double prompt) {
        Client& c = clients[id];
        if (c.queue.empty()) {
            double smallest = std::numeric_limits<double>::infinity();
            for (const auto& [other, o] : clients) {
                if (other != id && o.level == c.level && !o.queue.empty()) {
                    smallest = std::min(smallest, o.vt);
                }
            }
            c.vt = std::max(c.vt, std::isinf(smallest) ? last[c.level] : smallest);
        }
        c.queue.push_back({cookie, prompt});
    }
    void leave(uint32_t id, uint64_t cookie) {
        Client& c = clients[id];
        for (auto at = c.queue.begin(); at != c.queue.end(); ++at) {
            if (at->cookie == cookie) {
                c.queue.erase(at);
                break;
            }
        }
        left(c);
    }
    // Every client that may be next, up to rounding.
    bool may_be_next(uint32_t id, uint64_t cookie) const {
        const Client& c = clients.at(id);
        if (c.queue.empty() || c.queue.front().cookie != cookie) {
            return false;
        }
        for (const auto& [other, o] : clients) {
            if (!o.queue.empty() &&
                (o.level > c.level || (o.level == c.level && o.vt < c.vt - 1e-6 * (1 + c.vt)))) {
                return false;
            }
        }
        return true;
    }
    void dispatch(uint32_t id, double ahead) {
        Client& c = clients[id];
        c.vt += (c.queue.front().prompt + ahead) / c.weight;
        c.queue.pop_front();
        left(c);
    }
    void charge(uint32_t id, double cost) { clients[id].vt += cost / clients[id].weight; }

    std::map<uint32_t, Client> clients;
    std::map<int32_t, double> last;

  private:
    void left(Client& c) {
        if (c.queue.empty()) {
            last[c.level] = std::max(last[c.level], c.vt);
        }
    }
};

class AgainstNaive : public ::testing::TestWithParam<int> {};

TEST_P(AgainstNaive, GrantsComeInTheSameOrder) {
    TestZone z;
    Settings s;
    s.aging_us = -1;
    z.settings(s);
    RandomChoices choices(static_cast<uint64_t>(GetParam()) + 1000);
    Naive naive;
    std::vector<TestClient> clients;
    for (uint32_t id = 0; id < 8; ++id) {
        TestClient c{.id = id, .priority = 1 + static_cast<int32_t>(choices.next(5))};
        c.weight = choices.next(2) == 0 ? 0.25 + choices.next(12) : 0;
        c.band = static_cast<int32_t>(choices.next(6)) / 4;
        clients.push_back(c);
        naive.clients[id].weight = c.weight > 0 ? c.weight : c.priority;
        naive.clients[id].level = c.band;
    }
    z.load(clients);
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 3}}));
    struct Live {
        uint32_t client;
        Ticket ticket;
        double prompt;
        bool running;
    };
    std::map<uint64_t, Live> live;
    uint64_t cookie = 0;
    int granted = 0;
    for (int i = 0; i < 20'000; ++i) {
        const uint32_t op = choices.next(10);
        if (op < 5) {
            RequestArgs a = z.args();
            const uint32_t id = choices.next(8);
            a.stream = false;
            a.max_output_tokens = 1;  // predicted: one token, charged ahead: 2
            a.prompt_tokens = 1 + choices.next(500);
            a.cookie = ++cookie;
            const Verdict v = z.send(id, a);
            if (v.decision == Decision::rejected) {
                continue;
            }
            live[cookie] = {id, v.ticket, double(a.prompt_tokens), v.decision == Decision::granted};
            if (v.decision == Decision::granted) {
                naive.arrive(id, cookie, a.prompt_tokens);
                naive.dispatch(id, 2);
            } else {
                naive.arrive(id, cookie, a.prompt_tokens);
            }
        } else if (!live.empty()) {
            auto at = live.begin();
            std::advance(at, choices.next(static_cast<uint32_t>(live.size() < 16 ? live.size() : 16)));
            if (at->second.running) {
                const uint32_t prompt = 1 + choices.next(500);
                const uint32_t completion = 1 + choices.next(300);
                naive.charge(at->second.client, prompt + 2.0 * completion - at->second.prompt - 2);
                z.end(at->second.ticket, prompt, completion);
            } else if (op == 9) {
                naive.leave(at->second.client, at->first);
                z.drop(at->second.ticket);
            } else {
                continue;
            }
            live.erase(at);
        }
        for (const Event& event : z.events()) {
            Live& l = live.at(event.cookie);
            ASSERT_TRUE(naive.may_be_next(l.client, event.cookie)) << "step " << i << " client " << l.client;
            naive.dispatch(l.client, 2);
            ZoneLock lock(z.zone);
            uint32_t engine;
            ASSERT_TRUE(take_up(lock, event.ticket, z.now, engine, z.wakes));
            l.running = true;
            granted++;
        }
    }
    EXPECT_GT(granted, 300);
}

INSTANTIATE_TEST_SUITE_P(Seeds, AgainstNaive, ::testing::Range(1, 7));

}  // namespace
}  // namespace llm::core
