// Several processes on one shared mapping, killed at any moment: nothing is lost but what the dead owned.
//
// The lock is a word with its owner's pid, as nginx's; the parent sets it free when its owner has died, as
// nginx's master does. With LLM_TEST_HOOKS the children also kill themselves at labelled stores inside the
// lock.
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <set>

#include "ngx_module/core/layout.hpp"
#include "ngx_module/core/test_hooks.hpp"
#include "shared/sanitizers.hpp"
#include "tests/unit/core/driver.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

struct Shared {
    std::atomic<int32_t> lock;
    std::atomic<uint32_t> stop;
    std::atomic<uint64_t> steps;
    // µs; 0 = the system's. For one process at a time, which lets it jump (Driver::adjust_time).
    int64_t clock;
};

void take(void* context) {
    auto& lock = static_cast<Shared*>(context)->lock;
    const int32_t me = getpid();
    for (int32_t free_lock = 0; !lock.compare_exchange_weak(free_lock, me, std::memory_order_acquire);
         free_lock = 0) {
        sched_yield();
    }
}

void leave(void* context) {
    static_cast<Shared*>(context)->lock.store(0, std::memory_order_release);
}

int64_t monotonic_us() {
    return std::chrono::duration_cast<std::chrono::microseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// CPU time of this thread: a busy machine does not count.
int64_t cpu_us() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return int64_t{t.tv_sec} * 1'000'000 + t.tv_nsec / 1000;
}

// A mapping that children inherit, with the zone in it.
class SharedZone {
  public:
    SharedZone()
        : bytes_(plan_zone(1).min_bytes + (256u << 10)),
          mapping_(static_cast<unsigned char*>(
              mmap(nullptr, bytes_ + 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0))) {
        shared = new (mapping_) Shared{};
        EXPECT_TRUE(format_zone(mapping_ + 4096, bytes_));
        EXPECT_TRUE(zone.attach(mapping_ + 4096, bytes_, LockOps{take, leave, shared}));
    }
    ~SharedZone() { munmap(mapping_, bytes_ + 4096); }

    int64_t now() const { return shared->clock != 0 ? shared->clock : monotonic_us(); }

    // What nginx's master and the surviving workers do when a worker has died.
    void bury(pid_t pid) {
        int32_t owner = pid;
        shared->lock.compare_exchange_strong(owner, 0);
        ProcessView views[64];
        const uint32_t count = list_processes(zone, views, 64);
        WakeSet wakes;
        ZoneLock lock(zone);
        for (uint32_t i = 0; i < count; ++i) {
            if (views[i].pid == pid) {
                reap_process(lock, views[i].slot, views[i].epoch, now(), wakes);
            }
        }
    }

    void expect_sound(const char* when) {
        const char* where = nullptr;
        ZoneLock lock(zone);
        EXPECT_TRUE(check_zone(lock, &where)) << when << ": " << where;
    }

    Zone zone;
    Shared* shared;

  private:
    size_t bytes_;
    unsigned char* mapping_;
};

// Where a worker kills itself: at the `visit`th time that it passes a label (of labels()).
struct Death {
    uint32_t label = 0;
    uint32_t visit = 0;  // 0 = it does not
};

[[noreturn]] void work(SharedZone& z, uint64_t seed, Death death, uint32_t steps) {
    const bool jumps = z.shared->clock != 0;
    int64_t local = monotonic_us();
    int64_t& now = jumps ? z.shared->clock : local;
    int64_t wall = 1'763'700'000;
    RandomChoices choices(seed);
#if LLM_TEST_HOOKS
    static Death fate;
    fate = death;
    test_hook = [](const Label& label) {
        if (&label == labels() + fate.label && lock_depth > 0 && fate.visit != 0 && --fate.visit == 0) {
            raise(SIGKILL);
        }
    };
#else
    static_cast<void>(death);
#endif
    Driver driver(z.zone, choices, now, wall, getpid());
    driver.adjust_time = jumps;
    for (uint32_t step = 0; z.shared->stop.load() == 0 && step < steps; ++step) {
        now = z.now();
        driver.step();
        z.shared->steps.fetch_add(1, std::memory_order_relaxed);
    }
    now = z.now();
    driver.finish_all();
    {
        WakeSet wakes;
        ZoneLock lock(z.zone);
        detach_process(lock, driver.process(), now, wakes);
    }
    _exit(0);
}

pid_t spawn(SharedZone& z, uint64_t seed, Death death = {}, uint32_t steps = UINT32_MAX) {
    const pid_t pid = fork();
    if (pid == 0) {
        work(z, seed, death, steps);
    }
    return pid;
}

void set_up(SharedZone& z) {
    int64_t now = z.now();
    int64_t wall = 1'763'700'000;
    RandomChoices choices(5);
    Driver driver(z.zone, choices, now, wall, 1);
    driver.load_clients();
    driver.apply_engines();
    WakeSet wakes;
    ZoneLock lock(z.zone);
    detach_process(lock, driver.process(), now, wakes);
}

void expect_idle(SharedZone& z) {
    ZoneLock lock(z.zone);
    const QueueTotals totals = queue_totals(lock);
    EXPECT_EQ(totals.queued + totals.granted + totals.running + totals.held, 0u);
}

TEST(Torture, KilledWorkersLoseOnlyTheirOwn) {
    SharedZone z;
    set_up(z);
    RandomChoices choices(99);
    std::set<pid_t> workers;
    uint64_t seed = 1;
    for (int i = 0; i < 3; ++i) {
        workers.insert(spawn(z, seed++));
    }
    for (int kill_number = 0; kill_number < 60; ++kill_number) {
        const uint64_t until = z.shared->steps.load() + choices.next(400);
        const int64_t deadline = monotonic_us() + 20'000'000;
        while (z.shared->steps.load() < until && monotonic_us() < deadline) {
            sched_yield();
        }
        auto victim = workers.begin();
        std::advance(victim, choices.next(static_cast<uint32_t>(workers.size())));
        const pid_t pid = *victim;
        kill(pid, SIGKILL);
        int status = 0;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        ASSERT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << "a worker ended by itself";
        workers.erase(victim);
        z.bury(pid);
        z.expect_sound("after a kill");
        workers.insert(spawn(z, seed++));
    }
    z.shared->stop.store(1);
    for (pid_t pid : workers) {
        int status = 0;
        ASSERT_EQ(waitpid(pid, &status, 0), pid);
        EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    z.expect_sound("at the end");
    expect_idle(z);
}

#if LLM_TEST_HOOKS
TEST(Torture, DeathAtEveryLabelledStoreIsRepaired) {
    std::string missed;
    for (uint32_t label = 0; label < label_count(); ++label) {
        SharedZone z;                      // a new one: models, pools and accounts are made only once
        z.shared->clock = monotonic_us();  // and grants expire only in seconds
        set_up(z);
        const uint64_t rebuilds = read_counters(z.zone).rebuilds;
        uint64_t deaths = 0;
        for (uint32_t visit : {1u, 2u, 7u}) {
            const pid_t pid = spawn(z, 100 * visit + label, {label, visit}, 4000);
            int status = 0;
            ASSERT_EQ(waitpid(pid, &status, 0), pid);
            const bool died = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
            ASSERT_TRUE(died || (WIFEXITED(status) && WEXITSTATUS(status) == 0));
            z.bury(pid);
            z.expect_sound("after a death inside the lock");
            expect_idle(z);
            deaths += died ? 1 : 0;
        }
        EXPECT_GE(read_counters(z.zone).rebuilds, rebuilds + deaths);
        if (deaths == 0) {
            missed += std::string(missed.empty() ? "" : ", ") + labels()[label].file + ":" +
                      std::to_string(labels()[label].line);
        }
    }
    EXPECT_EQ(missed, "") << "labels that no operation of the driver has passed inside the lock";
}
#endif

TEST(Recovery, RebuildingFindsEverythingWhereItWas) {
    TestZone z(64u << 20);
    std::vector<TestClient> clients;
    for (uint32_t id = 0; id < 100; ++id) {
        clients.push_back({.id = id, .priority = static_cast<int32_t>(1 + id % 5)});
    }
    z.load(clients);
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 50}, {.url = "http://b", .max_running = 50}}));
    std::vector<Ticket> tickets;
    for (int i = 0; i < 16'000; ++i) {
        tickets.push_back(z.send(static_cast<uint32_t>(i) % 100).ticket);
    }
    std::vector<uint32_t> before;
    {
        ZoneLock lock(z.zone);
        for (Ticket ticket : tickets) {
            before.push_back(queue_position(lock, ticket));
        }
    }
    z.zone.header()->dirty = 1;
    const int64_t began = cpu_us();
    { ZoneLock lock(z.zone); }
    const int64_t took = cpu_us() - began;
    RecordProperty("rebuild_us", static_cast<int>(took));
    std::printf("rebuilt 16,000 requests in %lld us\n", static_cast<long long>(took));
#if !LLM_ASAN && !LLM_TSAN
    EXPECT_LT(took, 20'000) << "5 ms on an idle machine with warm caches";
#endif
    EXPECT_EQ(z.totals().running, 100u);
    EXPECT_EQ(z.totals().queued, 15'900u);
    for (uint32_t i = 0; i < 100; ++i) {
        z.end(tickets[i]);
    }
    EXPECT_EQ(z.take_all().size(), 100u);
    for (Ticket ticket : tickets) {
        z.drop(ticket);
    }
    EXPECT_EQ(z.totals().held, 0u);
}

}  // namespace
}  // namespace llm::core
