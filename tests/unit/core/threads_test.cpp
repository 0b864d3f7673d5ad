// Readers without the lock beside writers with it: nothing torn, nothing that ThreadSanitizer objects to.
#include <atomic>
#include <mutex>
#include <thread>

#include "shared/sanitizers.hpp"
#include "tests/unit/core/driver.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

struct Mutexed {
    explicit Mutexed(TestZone& z) {
        EXPECT_TRUE(zone.attach(z.memory(), z.bytes(),
                                LockOps{[](void* m) { static_cast<std::mutex*>(m)->lock(); },
                                        [](void* m) { static_cast<std::mutex*>(m)->unlock(); }, &mutex}));
    }
    std::mutex mutex;
    Zone zone;
};

TEST(Threads, ReadersNeverSeeATornRow) {
    TestZone z;
    Mutexed shared(z);
    std::atomic<bool> stop{false};
    std::atomic<uint64_t> found{0};
    // Row i of every table has priority p, threshold p·7 and a name of p letters.
    std::vector<std::string> names;
    for (int i = 0; i < 60; ++i) {
        names.push_back(std::string(static_cast<size_t>(i), static_cast<char>('a' + i % 26)));
    }
    auto row = [&](uint32_t id, int32_t p) {
        ClientRow r;
        r.hash = hash_of(id);
        r.row_id = id;
        r.priority = p;
        r.threshold = 7 * p;
        r.name = names[static_cast<size_t>(p)];
        return r;
    };
    auto load = [&](int32_t p) {
        ClientLoad loader = ClientLoad::begin(shared.zone);
        for (uint32_t id = 0; id < 50; ++id) {
            loader.add(row(id, p));
        }
        ZoneLock lock(shared.zone);
        ASSERT_TRUE(loader.commit(lock, 1'000'000));
    };
    load(1);
    std::vector<std::thread> readers;
    for (int n = 0; n < 2; ++n) {
        readers.emplace_back([&, n] {
            ClientView view;
            for (uint32_t i = 0; !stop.load(std::memory_order_relaxed); ++i) {
                const Auth auth = lookup_client(shared.zone, hash_of((i + static_cast<uint32_t>(n)) % 50),
                                                1'000'000, 0, view);
                require(auth == Auth::ok, "a client that is in every table was not found");
                require(view.threshold == 7 * view.priority, "torn row");
                require(names[static_cast<size_t>(view.priority)] == view.name, "torn name");
                found.fetch_add(1, std::memory_order_relaxed);
            }
        });
    }
    WakeSet wakes;
    for (int32_t round = 0; round < 300 || found.load() < 1000; ++round) {
        if (round % 4 == 0) {
            load(1 + round % 50);
        } else {
            ZoneLock lock(shared.zone);
            upsert_client(lock, row(static_cast<uint32_t>(round) % 50, 1 + round % 59), 1'000'000, 0, wakes);
        }
    }
    stop.store(true);
    for (std::thread& reader : readers) {
        reader.join();
    }
}

TEST(Threads, ALoaderThatIsOvertakenLeavesNothingInTheNewOnesTable) {
    TestZone z;
    Mutexed shared(z);
    std::atomic<uint32_t> committed{0};
    // Each loader's rows have its own priority; the later one to begin wins, whenever the other is interrupted.
    auto run = [&](int32_t priority) {
        const std::string name(20, static_cast<char>('a' + priority));
        ClientView view;
        while (committed.load() < 400) {
            ClientLoad loader = ClientLoad::begin(shared.zone);
            bool lost = false;
            for (uint32_t id = 0; id < 20 && !lost; ++id) {
                ClientRow r;
                r.hash = hash_of(id);
                r.row_id = id;
                r.priority = priority;
                r.name = name;
                const RowResult result = loader.add(r);
                lost = result == RowResult::lost;
                require(lost || result == RowResult::added, "a row of another loader was in the table");
            }
            if (lost) {
                continue;
            }
            ZoneLock lock(shared.zone);
            if (loader.commit(lock, 1'000'000)) {
                committed.fetch_add(1);
                require(client_table(shared.zone).clients == 20, "rows of another loader");
                for (uint32_t id = 0; id < 20; ++id) {
                    require(lookup_client(shared.zone, hash_of(id), 1'000'000, 0, view) == Auth::ok,
                            "a row was lost");
                    require(view.priority == priority && view.name == name, "a row of another loader");
                }
            }
        }
    };
    std::thread other(run, 2);
    run(1);
    other.join();
}

// A slot goes from process to process while others look who is dead. What they read of one process must never come
// under the epoch of a later one: the living would be taken for the dead.
TEST(Threads, NoProcessIsListedWithTheFactsOfAnEarlierOne) {
    constexpr int32_t kTimes = LLM_TSAN ? 200'000 : 10'000'000;  // where it can go wrong it is rare
    TestZone z(plan_zone(1).min_bytes);
    Mutexed shared(z);
    std::atomic<bool> stop{false};
    std::thread others([&] {
        WakeSet wakes;
        for (int32_t n = 1; n <= kTimes; ++n) {  // the slot's epoch as well
            ZoneLock lock(shared.zone);
            const uint32_t slot = attach_process(lock, n, static_cast<uint64_t>(n), n);
            require(slot != z.process && slot < 2, "one slot is used again and again");
            detach_process(lock, slot, n, wakes);
        }
        stop.store(true);
    });
    while (!stop.load()) {
        ProcessView views[2];
        const uint32_t count = list_processes(shared.zone, views, 2);
        for (uint32_t n = 0; n < count; ++n) {
            // of a later process they do no harm: nobody can be reaped under an epoch that is over
            require(views[n].slot == z.process || (views[n].pid >= static_cast<int32_t>(views[n].epoch) &&
                                                   views[n].start_time >= views[n].epoch),
                    "facts of an earlier process");
        }
    }
    others.join();
}

TEST(Threads, WorkersShareOneZone) {
    TestZone z(plan_zone(1).min_bytes + (256u << 10));
    Mutexed shared(z);
    {
        RandomChoices choices(5);
        Driver driver(shared.zone, choices, z.now, z.wall, 1);
        driver.load_clients();
        driver.apply_engines();
        WakeSet wakes;
        ZoneLock lock(shared.zone);
        detach_process(lock, driver.process(), z.now, wakes);
    }
    std::atomic<bool> stop{false};
    std::vector<std::thread> workers;
    for (int n = 0; n < 3; ++n) {
        workers.emplace_back([&, n] {
            int64_t now = 1'000'000'000;
            int64_t wall = 1'763'700'000;
            RandomChoices choices(static_cast<uint64_t>(n) + 31);
            Driver driver(shared.zone, choices, now, wall, 100 + n);
            driver.change_the_world = n == 0;
            for (int i = 0; i < 3000; ++i) {
                now += 1000;
                driver.step();
            }
            driver.finish_all();
            WakeSet wakes;
            ZoneLock lock(shared.zone);
            detach_process(lock, driver.process(), now, wakes);
        });
    }
    std::thread reader([&] {
        ProcessView views[16];
        ClientTokens tokens;
        while (!stop.load()) {
            list_processes(shared.zone, views, 16);
            find_model(shared.zone, "m");
            read_outcome(shared.zone, 0, Outcome::completed);
            read_wait_histogram(shared.zone, 0, 1);
            read_counters(shared.zone);
            read_client_tokens(shared.zone, 0, tokens);
            client_table(shared.zone);
        }
    });
    for (std::thread& worker : workers) {
        worker.join();
    }
    stop.store(true);
    reader.join();
    EXPECT_EQ(z.check(), "");
    EXPECT_EQ(z.totals().queued + z.totals().running + z.totals().granted, 0u);
}

}  // namespace
}  // namespace llm::core
