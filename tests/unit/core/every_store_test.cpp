// Death at every store inside the lock, of the very code that ships: before each one the zone is copied, and the copy
// is what the survivors of a process killed there would find. It must be repaired, and must lose nothing but what the
// dead process owned.
#include "tests/unit/core/store_trap.hpp"

#if LLM_HAVE_STORE_TRAP
#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "tests/unit/core/driver.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

constexpr int32_t kFirstPid = 100;
constexpr uint32_t kLooksPerInstruction = 3;  // a store is one instruction; what stands around it differs

// Two workers on one zone. While one of them is inside the lock every store of it is stopped at.
class EveryStore {
  public:
    EveryStore()
        : bytes_(plan_zone(1).min_bytes + (64u << 10)),
          mapped_((bytes_ + 4095) / 4096 * 4096),
          zone_memory_(map()),
          copy_(map()),
          trap_(zone_memory_, mapped_, [this](uintptr_t instruction) { before_store(instruction); }) {
        EXPECT_TRUE(format_zone(zone_memory_, bytes_));
        EXPECT_TRUE(zone_.attach(zone_memory_, bytes_,
                                 LockOps{[](void* trap) { static_cast<StoreTrap*>(trap)->arm(); },
                                         [](void* trap) { static_cast<StoreTrap*>(trap)->disarm(); }, &trap_}));
    }
    ~EveryStore() {
        munmap(zone_memory_, mapped_);
        munmap(copy_, mapped_);
    }

    // Steps of requests only; before them some that also change engines, clients and settings. With `lose` there are two
    // small engines, of which one dies from time to time, and both are started again.
    void run(uint64_t seed, int world, int requests, bool lose = false) {
        RandomChoices choices(seed);
        Driver first(zone_, choices, now_, wall_, kFirstPid);
        drivers_[0] = &first;
        Driver second(zone_, choices, now_, wall_, kFirstPid + 1);
        drivers_[1] = &second;
        first.load_clients();
        if (!lose) {
            first.apply_engines();
        }
        for (int i = 0; i < world + requests && failure_.empty(); ++i) {
            first.change_the_world = second.change_the_world = i < world;
            if (lose && i % 20 == 0) {
                const uint32_t engine = choices.next(2);
                for (running_ = 0; running_ < 2; ++running_) {
                    drivers_[running_]->lose_engine(engine);
                }
                running_ = 0;
                start_engines(1 + static_cast<uint64_t>(i));
            }
            running_ = choices.next(2);
            drivers_[running_]->step();
        }
        waited_again_ += first.waited_again + second.waited_again;
        for (uint32_t i = 0; i < 2; ++i) {
            running_ = i;
            drivers_[i]->finish_all();
            WakeSet wakes;
            ZoneLock lock(zone_);
            detach_process(lock, drivers_[i]->process(), now_, wakes);
            drivers_[i] = nullptr;
        }
    }

    const std::string& failure() const { return failure_; }
    size_t instructions() const { return looks_.size(); }
    uint64_t stores() const { return trap_.stores(); }
    uint64_t deaths() const { return deaths_; }
    uint64_t repaired() const { return repaired_; }
    uint64_t waited_again() const { return waited_again_; }

  private:
    void start_engines(uint64_t boot) {
        for (uint32_t e = 0; e < 2; ++e) {
            EngineReport r = TestZone::report("e" + std::to_string(e), boot);
            r.models = {"m", "k", "l"};
            r.max_running = 3;
            EnginePlace place;
            place.host = "host";
            place.address.length = 16;
            WakeSet wakes;
            ZoneLock lock(zone_);
            apply_report(lock, r, &place, now_, wakes);
        }
    }

    void* map() {
        return mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    }

    void before_store(uintptr_t instruction) {
        if (failure_.empty() && looks_[instruction]++ < kLooksPerInstruction) {
            ++deaths_;
            std::memcpy(copy_, zone_memory_, mapped_);
            bury();
            if (!failure_.empty()) {
                char where[64];
                std::snprintf(where, sizeof where, " (store at %p)", reinterpret_cast<void*>(instruction));
                failure_ += where;
            }
        }
    }

    // What the survivors do, on the copy.
    void bury() {
        Zone zone;
        if (!zone.attach(copy_, bytes_, LockOps{[](void*) {}, [](void*) {}, nullptr})) {
            failure_ = "the zone is not recognised";
            return;
        }
        const uint64_t rebuilds = read_counters(zone).rebuilds;
        WakeSet wakes;
        const char* where = "";
        ProcessView views[8];
        {
            ZoneLock lock(zone);
            if (!check_zone(lock, &where)) {
                failure_ = std::string("after the rebuild: ") + where;
                return;
            }
        }
        repaired_ += read_counters(zone).rebuilds - rebuilds;
        const uint32_t count = list_processes(zone, views, 8);
        ZoneLock lock(zone);
        for (uint32_t i = 0; i < count; ++i) {
            if (views[i].pid == kFirstPid + static_cast<int32_t>(running_)) {
                reap_process(lock, views[i].slot, views[i].epoch, now_, wakes);
            }
        }
        if (!check_zone(lock, &where)) {
            failure_ = std::string("after the dead process was reaped: ") + where;
            return;
        }
        if (const Driver* other = drivers_[1 - running_]) {
            for (const auto& [cookie, ticket] : other->tickets()) {
                if (!cancel(lock, ticket, Why::client_gone, now_, wakes)) {
                    failure_ = "a request of the survivor is lost";
                    return;
                }
            }
        }
        const QueueTotals totals = queue_totals(lock);
        if (totals.queued + totals.granted + totals.running + totals.held != 0) {
            failure_ = "something is still held when everybody has gone";
        }
    }

    size_t bytes_;
    size_t mapped_;
    void* zone_memory_;
    void* copy_;
    StoreTrap trap_;
    Zone zone_;
    int64_t now_ = 1'000'000'000;
    int64_t wall_ = 1'763'700'000;
    Driver* drivers_[2] = {};
    uint32_t running_ = 0;
    std::unordered_map<uintptr_t, uint32_t> looks_;  // by address of the instruction
    std::string failure_;
    uint64_t deaths_ = 0;
    uint64_t repaired_ = 0;
    uint64_t waited_again_ = 0;
};

TEST(EveryStore, DeathThereLosesOnlyWhatTheDeadOwned) {
    EveryStore test;
    for (uint64_t seed = 1; seed <= 2 && test.failure().empty(); ++seed) {
        test.run(seed, 60, 200);
        EXPECT_EQ(test.failure(), "") << "seed " << seed;
    }
    std::printf("%zu store instructions, %llu stores, %llu deaths, %llu rebuilds\n", test.instructions(),
                static_cast<unsigned long long>(test.stores()), static_cast<unsigned long long>(test.deaths()),
                static_cast<unsigned long long>(test.repaired()));
    EXPECT_GT(test.instructions(), 400u);
    EXPECT_GT(test.repaired(), test.deaths() / 2);
}

TEST(EveryStore, DeathWhereEnginesAreLost) {
    EveryStore test;
    test.run(1, 0, 400, true);
    EXPECT_EQ(test.failure(), "");
    EXPECT_GT(test.waited_again(), 5u);
}

}  // namespace
}  // namespace llm::core
#endif
