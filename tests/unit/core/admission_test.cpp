// The admission law: from reports to a limit (docs/scheduler.md, "When").
#include <cmath>
#include <limits>

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

class Admission : public ::testing::Test {
  protected:
    void SetUp() override {
        Settings s;
        s.min_throughput = 25;
        z.settings(s);
        z.load({{.id = 1}});
        report = TestZone::report("gpu0");
        report.has_counters = true;
        report.uptime_s = 1;
        z.apply(report);
    }

    // One report `dt` seconds later in which `users` users ran at `speed` tokens/s each.
    ApplyResult step(double dt, double users, double speed) {
        z.now += static_cast<int64_t>(dt * 1e6);
        report.seq++;
        report.uptime_s += dt;
        report.user_seconds += users * dt;
        report.decode_tokens += users * dt * speed;
        report.running = static_cast<uint32_t>(users);
        ZoneLock lock(z.zone);
        heartbeat(lock, z.process, z.now, z.wakes);
        EnginePlace place;
        place.address.length = 16;
        return apply_report(lock, report, &place, z.now, z.wakes);
    }

    double limit() { return z.engine(0).limit; }

    // Fills every seat.
    void fill() {
        while (z.send(1).decision == Decision::granted) {
        }
    }

    TestZone z;
    EngineReport report;
};

TEST_F(Admission, WithoutAMinimumTheBoundIsTheLimitAtOnce) {
    TestZone free;
    free.load({{.id = 1}});
    free.apply(TestZone::report("gpu0"));
    EXPECT_EQ(free.engine(0).limit, 64);
    EXPECT_FALSE(free.engine(0).slow_start);
    ASSERT_TRUE(free.engines({{.url = "http://a", .max_running = 0}}));
    EXPECT_EQ(free.engine(1).limit, 64);
}

TEST_F(Admission, ANewEngineStartsSlowlyAndDoubles) {
    EXPECT_EQ(limit(), 2);
    EXPECT_TRUE(z.engine(0).slow_start);
    fill();
    EXPECT_EQ(z.engine(0).held, 2u);
    step(1, 2, 100);
    EXPECT_NEAR(limit(), 4, 1e-9);
    fill();
    step(1, 4, 100);
    EXPECT_NEAR(limit(), 8, 1e-9);
}

TEST_F(Admission, AnIdleEngineKeepsItsLimit) {
    z.send(1);
    z.send(1);
    step(1, 2, 100);
    const double before = limit();
    for (int i = 0; i < 20; ++i) {
        step(0.5, 0, 0);
    }
    EXPECT_EQ(limit(), before);
    step(1, 1, 1000);
    EXPECT_EQ(limit(), before) << "unused room does not grow either";
}

TEST_F(Admission, TooSlowShrinksInProportionAndStaysWithinItsBounds) {
    fill();
    for (int i = 0; i < 6; ++i) {
        step(1, 2 << i, 100);
        fill();
    }
    EXPECT_EQ(limit(), 64) << "max_running";
    const double before = limit();
    for (int i = 0; i < 4; ++i) {
        step(1, 64, 10);  // the filter's memory is 2 s
    }
    EXPECT_LT(limit(), before);
    for (int i = 0; i < 100; ++i) {
        step(1, 64, 1);
    }
    EXPECT_GE(limit(), 1);
    EXPECT_LE(limit(), 1.25 * 64 + 2);
}

TEST_F(Admission, SlowAtLimitOneIsSaidOnce) {
    bool said = false;
    int times = 0;
    z.send(1);
    for (int i = 0; i < 100; ++i) {
        const ApplyResult result = step(1, 1, 1);
        times += result.below_minimum ? 1 : 0;
        said |= result.below_minimum;
    }
    EXPECT_TRUE(said);
    EXPECT_EQ(times, 1);
    EXPECT_EQ(limit(), 1);
    EXPECT_TRUE(z.engine(0).below_minimum);
}

TEST_F(Admission, ConvergesNearTheMinimum) {
    // An engine whose speed is 1000/(10 + users) tokens/s per user: 1.15·25 = 28.75 at 24.8 users.
    fill();
    for (int i = 0; i < 400; ++i) {
        const double users = z.engine(0).held;
        step(0.5, users, 1000 / (10 + users));
        // Requests come and go, else nothing could leave above the limit.
        std::vector<Ticket> running;
        {
            ZoneLock lock(z.zone);
            uint32_t cursor = 0;
            RequestSnapshot all[64];
            while (cursor < z.zone.plan().requests) {
                const uint32_t n = snapshot_requests(lock, cursor, all, 64);
                for (uint32_t k = 0; k < n; ++k) {
                    if (all[k].state == RequestState::running) {
                        running.push_back(all[k].ticket);
                    } else if (all[k].state == RequestState::queued) {
                        cancel(lock, all[k].ticket, Why::client_gone, z.now, z.wakes);
                    }
                }
            }
        }
        if (!running.empty()) {
            z.end(running.front());
        }
        z.take_all();
        fill();
    }
    EXPECT_NEAR(limit(), 24.8, 4);
    EXPECT_FALSE(z.engine(0).slow_start);
}

TEST_F(Admission, ForeignRequestsTakeRoom) {
    TestZone free;
    free.load({{.id = 1}});
    EngineReport r = TestZone::report("gpu0");
    r.max_running = 4;
    r.running = 3;
    free.apply(r);
    EXPECT_EQ(free.engine(0).foreign, 3u);
    EXPECT_EQ(free.send(1).decision, Decision::granted);
    EXPECT_EQ(free.send(1).decision, Decision::queued);
    r.seq = 2;
    r.running = 1;  // ours
    free.apply(r);
    EXPECT_EQ(free.engine(0).foreign, 0u);
    EXPECT_EQ(free.take_all().size(), 1u);
}

TEST_F(Admission, AnOldReportOfOurOwnWorkIsNotForeign) {
    TestZone free;
    free.load({{.id = 1}});
    EngineReport r = TestZone::report("gpu0");
    r.max_running = 4;
    free.apply(r);
    std::vector<Ticket> mine;
    for (int i = 0; i < 4; ++i) {
        mine.push_back(free.send(1).ticket);
    }
    free.end(mine[0]);
    free.end(mine[1]);
    r.seq = 2;
    r.running = 4;  // taken just before those two ended
    free.apply(r);
    EXPECT_EQ(free.engine(0).foreign, 0u);
}

TEST_F(Admission, AStuckReportOfForeignWorkFadesWhenItIsStale) {
    TestZone free;
    free.load({{.id = 1}});
    EngineReport r = TestZone::report("gpu0");
    r.max_running = 4;
    r.running = 4;
    free.apply(r);
    EXPECT_EQ(free.send(1).decision, Decision::queued);
    free.tick(3'000'000);
    EXPECT_TRUE(free.take_all().empty());
    free.tick(2'100'000);  // 5.1 s > 10 units of 0.5 s
    EXPECT_EQ(free.take_all().size(), 1u);
}

TEST_F(Admission, RefusalsLowerTheLimitAndItComesBack) {
    TestZone free;
    free.load({{.id = 1}});
    ASSERT_TRUE(free.engines({{.url = "http://a", .max_running = 8}}));
    std::vector<Ticket> mine;
    for (int i = 0; i < 4; ++i) {
        mine.push_back(free.send(1).ticket);
    }
    {
        ZoneLock lock(free.zone);
        retry(lock, mine[0], Failure::status_429, 0, WhenFull::fail, free.now, 1, free.wakes);
    }
    EXPECT_EQ(free.engine(0).limit, 3);
    EXPECT_EQ(free.send(1).decision, Decision::queued);
    for (int i = 0; i < 40; ++i) {
        free.tick(250'000);
    }
    EXPECT_EQ(free.engine(0).limit, 8);
}

TEST_F(Admission, LiesAreClamped) {
    fill();
    step(1, 2, 100);
    const double before = limit();
    const double bad[] = {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
                          -1.0, 1e30};
    for (double value : bad) {
        report.seq++;
        EngineReport lie = report;
        lie.decode_tokens = value;
        lie.user_seconds = value;
        lie.kv_usage = value;
        lie.running = 0xffffffffu;
        lie.waiting = 0xffffffffu;
        z.now += 1'000'000;
        z.apply(lie);
        EXPECT_GE(limit(), 1);
        EXPECT_LE(limit(), 64);
        EXPECT_TRUE(std::isfinite(limit()));
    }
    EXPECT_LE(limit(), before + 1);
    z.tick(6'000'000);
    EXPECT_EQ(z.engine(0).foreign, 0u);
}

TEST_F(Admission, ALieIsNotRemembered) {
    fill();
    for (int i = 0; i < 6; ++i) {
        step(1, 2 << i, 100);
        fill();
    }
    ASSERT_EQ(limit(), 64);
    step(1, 1e17, 1e4);  // more users than there are computers
    for (int i = 0; i < 20; ++i) {
        step(1, 64, 5);
    }
    EXPECT_LT(limit(), 20) << "the engine has been far too slow for 20 s";
}

TEST_F(Admission, AStaticEngineOfShortAnswersIsNotKeptAtItsFirstLimit) {
    // Embeddings: no token is ever decoded, no report comes.
    TestZone e;
    Settings s;
    s.min_throughput = 25;
    e.settings(s);
    e.load({{.id = 1}});
    ASSERT_TRUE(e.engines({{.url = "http://a", .max_running = 16}}));
    EXPECT_EQ(e.engine(0).limit, 2);
    RequestArgs a = e.args();
    a.stream = false;
    for (int i = 0; i < 200; ++i) {
        const Verdict v = e.send(1, a);
        ASSERT_EQ(v.decision, Decision::granted);
        e.tick(250'000);
        e.end(v.ticket, 100, 0);
    }
    EXPECT_EQ(e.engine(0).limit, 16);
    // The engine's own errors, and answers that nothing is known of, speak for nothing.
    TestZone f;
    f.settings(s);
    f.load({{.id = 1}});
    ASSERT_TRUE(f.engines({{.url = "http://a", .max_running = 16}}));
    for (int i = 0; i < 200; ++i) {
        const Verdict v = f.send(1, a);
        f.tick(250'000);
        f.end(v.ticket, 0, 0);
    }
    EXPECT_EQ(f.engine(0).limit, 2);
}

// No report and no stream: answers in one piece tell the speed, whether or not their clients keep the connection. Those that
// close it are over for nginx only after the engine's seat has gone back.
class Whole : public ::testing::Test {
  protected:
    void SetUp() override {
        Settings s;
        s.min_throughput = 20;
        z.settings(s);
        z.load({{.id = 1, .threshold = 100}});
        ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 32}}));
    }

    // Every seat is taken by one request after the other for `seconds`, of these lengths in turn; each takes 0.4 s for
    // its prompt, then runs at speed(held). Every other client reads for two seconds more.
    template <typename Speed>
    void run(double seconds, const std::vector<uint32_t>& lengths, Speed speed) {
        const int64_t end = z.now + static_cast<int64_t>(seconds * 1e6);
        RequestArgs a = z.args();
        a.stream = false;
        while (z.now < end) {
            for (Verdict v = z.send(1, a); v.decision != Decision::rejected; v = z.send(1, a)) {
                if (v.decision == Decision::granted) {
                    running.push_back({v.ticket, lengths[++sent % lengths.size()], -0.4 * speed(z.engine(0).held), 0});
                } else {
                    z.drop(v.ticket);
                    break;
                }
            }
            z.tick(100'000);
            const double made = 0.1 * speed(z.engine(0).held);
            std::vector<Running> left;
            for (Running& r : running) {
                r.tokens += made;
                if (r.tokens < r.length) {
                    left.push_back(r);
                    continue;
                }
                if (r.read_until == 0) {
                    ZoneLock lock(z.zone);
                    release_lease(lock, r.ticket, z.now, z.wakes);
                    r.read_until = z.now + (++ended % 2 == 0 ? 2'000'000 : 0);
                }
                if (z.now < r.read_until) {
                    left.push_back(r);
                } else {
                    z.end(r.ticket, 100, r.length);
                }
            }
            running.swap(left);
        }
    }

    struct Running {
        Ticket ticket;
        uint32_t length;
        double tokens;  // below 0: of the prompt's time
        int64_t read_until;
    };
    TestZone z;
    std::vector<Running> running;
    size_t sent = 0;
    int ended = 0;
};

TEST_F(Whole, LongAnswersFindTheLimitAndHoldIt) {
    const auto speed = [](double n) { return 1 / (0.02 + 0.002 * n); };  // 23 tokens/s at 11.7
    run(60, {100}, speed);
    EXPECT_GE(z.engine(0).limit, 6);
    EXPECT_LE(z.engine(0).limit, 14);
    run(60, {100}, [](double n) { return 1 / (0.02 + 0.008 * n); });  // 23 tokens/s at 2.9
    EXPECT_LT(z.engine(0).limit, 5);
}

TEST_F(Whole, ShortAnswersTellOfTheirPromptsOnly) {
    run(60, {5}, [](double) { return 50.0; });
    EXPECT_EQ(z.engine(0).limit, 32);
}

TEST_F(Whole, ShortAnswersDoNotLiftWhatLongOnesHold) {
    run(60, {5, 100}, [](double n) { return 1 / (0.02 + 0.002 * n); });
    double highest = 0;
    for (int i = 0; i < 60; ++i) {
        run(1, {5, 100}, [](double n) { return 1 / (0.02 + 0.002 * n); });
        highest = std::max(highest, z.engine(0).limit);
    }
    EXPECT_LT(highest, 14);
}

TEST_F(Whole, StreamsAreAskedFirst) {
    RequestArgs stream = z.args();
    const Verdict v = z.send(1, stream);
    ASSERT_EQ(v.decision, Decision::granted);
    uint32_t tokens = 0;
    for (int i = 0; i < 30; ++i) {
        {
            ZoneLock lock(z.zone);
            charge(lock, v.ticket, tokens += 25, false, z.now, z.wakes);
        }
        run(0.5, {30}, [](double) { return 50.0; });  // 30 tokens in a second: 15 a second at most, were that all we knew
    }
    EXPECT_EQ(z.engine(0).limit, 32);
}

TEST_F(Admission, ANewBootStartsAnew) {
    fill();
    for (int i = 0; i < 5; ++i) {
        step(1, 2 << i, 100);
        fill();
    }
    EXPECT_GT(limit(), 10);
    report.boot++;
    report.seq = 0;
    report.uptime_s = 0.1;
    report.user_seconds = 0;
    report.decode_tokens = 0;
    step(0.1, 0, 0);
    EXPECT_EQ(limit(), 2);
    EXPECT_TRUE(z.engine(0).slow_start);
}

TEST_F(Admission, KvPressureAndEngineQueueShrink) {
    fill();
    for (int i = 0; i < 5; ++i) {
        step(1, 2 << i, 100);
        fill();
    }
    const double held = z.engine(0).held;
    report.kv_usage = 0.98;
    step(0.5, held, 100);
    EXPECT_NEAR(limit(), 0.9 * held, 1);
    report.kv_usage = 0.1;
    report.waiting = 10;
    step(0.5, held - 10, 100);
    EXPECT_LT(limit(), held);
}

TEST_F(Admission, TheStrictestMinimumOfItsModelsHolds) {
    TestZone two;
    Settings s;
    s.throughput_rules = 2;
    std::snprintf(s.throughput[0].model, sizeof s.throughput[0].model, "m");
    s.throughput[0].tokens_per_second = 10;
    std::snprintf(s.throughput[1].model, sizeof s.throughput[1].model, "k");
    s.throughput[1].tokens_per_second = 40;
    two.settings(s);
    EngineReport r = TestZone::report("gpu0");
    r.models = {"m", "k"};
    two.apply(r);
    EXPECT_EQ(two.engine(0).minimum, 40);
    two.settings(Settings());
    EXPECT_EQ(two.engine(0).minimum, 0);
    EXPECT_EQ(two.engine(0).limit, 64);
}

TEST_F(Admission, ASilentEngineIsMeasuredByItsStreams) {
    fill();
    for (int i = 0; i < 4; ++i) {
        step(1, 2 << i, 100);
        fill();
    }
    const double last = limit();
    z.tick(6'000'000);
    z.tick(600'000);
    EXPECT_NEAR(limit(), 0.8 * last, 0.01) << "nothing measures it";
    z.tick(600'000);
    EXPECT_NEAR(limit(), 0.8 * last, 0.01) << "once";
    // Streams flow at 5 tokens/s: too slow.
    std::vector<Ticket> running;
    {
        ZoneLock lock(z.zone);
        uint32_t cursor = 0;
        RequestSnapshot all[64];
        const uint32_t n = snapshot_requests(lock, cursor, all, 64);
        for (uint32_t k = 0; k < n; ++k) {
            if (all[k].state == RequestState::running) {
                running.push_back(all[k].ticket);
            }
        }
    }
    ASSERT_FALSE(running.empty());
    for (uint32_t tokens = 1; tokens < 40; tokens += 5) {
        {
            ZoneLock lock(z.zone);
            for (Ticket ticket : running) {
                charge(lock, ticket, tokens, false, z.now, z.wakes);
            }
        }
        z.tick(1'000'000);
    }
    EXPECT_LT(limit(), 0.6 * last);
}

// Reports for an engine that tells nothing of its speed say that it lives; its streams say how fast it is.
TEST_F(Admission, AnEngineWithoutCountersIsMeasuredByItsStreams) {
    report.has_counters = false;
    const auto run = [this](uint32_t tokens) {
        fill();
        std::vector<Ticket> running;
        ZoneLock lock(z.zone);
        uint32_t cursor = 0;
        RequestSnapshot all[64];
        const uint32_t n = snapshot_requests(lock, cursor, all, 64);
        for (uint32_t k = 0; k < n; ++k) {
            if (all[k].state == RequestState::running) {
                running.push_back(all[k].ticket);
            }
        }
        for (Ticket ticket : running) {
            charge(lock, ticket, tokens, false, z.now, z.wakes);
        }
        return running.size();
    };
    ASSERT_EQ(limit(), 2);
    uint32_t tokens = 1;
    for (int i = 0; i < 10; ++i) {
        step(0.5, 0, 0);  // "alive", twice a second, and nothing more
        tokens += 50;
        run(tokens);
        z.tick(500'000);
    }
    const double grown = limit();
    EXPECT_GT(grown, 3) << "100 tokens/s each are four times the minimum";
    for (int i = 0; i < 20; ++i) {
        step(0.5, 0, 0);
        tokens += 3;
        run(tokens);
        z.tick(500'000);
    }
    EXPECT_LT(limit(), 0.8 * grown) << "6 tokens/s each are too slow";
}

}  // namespace
}  // namespace llm::core
