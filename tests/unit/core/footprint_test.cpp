// What the core touches, measured by taking the rest away: pages that must not be touched are made
// inaccessible, in a child process, so that a walk over the whole of a table ends in a fault.
#include <sys/mman.h>
#include <unistd.h>

#include "ngx_module/core/core.hpp"
#include "ngx_module/core/token_table.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

constexpr size_t kBigZone = 256u << 20;
constexpr uint32_t kLive = 100;
constexpr uint32_t kSlack = 16;  // engines, pools, domains and the like that the tests need

// Takes away the entries from `first` on of an array, as far as they fill pages.
template <class Entry>
void take_away(Entry* table, uint64_t first, uint64_t count) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(table + first) + page - 1) / page * page;
    const uintptr_t end = reinterpret_cast<uintptr_t>(table + count) / page * page;
    if (begin < end && mprotect(reinterpret_cast<void*>(begin), end - begin, PROT_NONE) != 0) {
        _exit(2);
    }
}

void take_away_generation(Zone& zone, uint32_t generation) {
    const Generation g(zone, generation);
    take_away(g.index, 0, g.slots);
    take_away(g.rows, 0, g.capacity);
    take_away(g.arena, 0, zone.plan().arena_bytes);
}

void take_away_what_was_never_used(Zone& zone) {
    const ZonePlan& plan = zone.plan();
    const Tables t(zone);
    take_away(t.requests, kLive, plan.requests);
    take_away(t.accounts, kLive, plan.accounts);
    take_away(t.standings, 2 * kLive, plan.standings);
    take_away(t.flows, kLive, plan.flows);
    take_away(t.levels, kLive, plan.levels);
    take_away(t.scratch, kLive, plan.requests);
    take_away(t.pools, kSlack, plan.pools);
    take_away(t.domains, kSlack, plan.domains);
    take_away(t.models, kSlack, plan.models);
    take_away(t.orgs, kSlack, plan.orgs);
    take_away(t.engines, kSlack, plan.engines);
    take_away(t.processes, kSlack, plan.processes);
    take_away(t.model_counters, kSlack, plan.models + 1);
}

class FootprintDeathTest : public ::testing::Test {
  protected:
    FootprintDeathTest() : z(kBigZone) {
        std::vector<TestClient> clients;
        for (uint32_t i = 1; i <= kLive; ++i) {
            clients.push_back({.id = i, .priority = static_cast<int32_t>(i % 7)});
        }
        z.load(clients);
        EXPECT_TRUE(z.engines({{.url = "http://a", .models = {"m", "n"}, .max_running = 8},
                               {.url = "http://b", .models = {"o"}, .max_running = 8}}));
        for (uint32_t i = 1; i <= kLive; ++i) {
            EXPECT_NE(z.send(i).decision, Decision::rejected);
        }
    }

    TestZone z;
};

TEST_F(FootprintDeathTest, MarksFollowUse) {
    const ZoneHeader& h = *z.zone.header();
    EXPECT_GT(z.zone.plan().requests, 1000 * kLive);
    EXPECT_EQ(h.request_end, kLive);
    EXPECT_EQ(h.account_end, kLive);
    EXPECT_LE(h.standing_end, 2 * kLive);
    EXPECT_LE(h.flow_end, kLive);
    EXPECT_LE(h.level_end, kLive);
    const Verdict late = z.send(1);
    EXPECT_EQ(h.request_end, kLive + 1);
    z.drop(late.ticket);
    EXPECT_NE(z.send(2).decision, Decision::rejected);
    EXPECT_EQ(h.request_end, kLive + 1) << "a slot that was given back is used first";
}

TEST_F(FootprintDeathTest, RecoveryAndMaintenanceKeepToWhatWasUsed) {
    const auto everything = [this] {
        take_away_what_was_never_used(z.zone);
        const uint32_t loaded = z.zone.header()->clients_epoch & 1;
        take_away_generation(z.zone, loaded ^ 1);
        z.zone.header()->dirty = 1;  // somebody died inside
        z.tick();
        Settings other;
        other.scheduler = Scheduler::strict;
        z.settings(other);
        const bool counts = z.totals().queued == kLive - 8 && z.totals().running == 8;
        RequestSnapshot all[2 * kLive];
        uint32_t cursor = 0;
        ZoneLock lock(z.zone);
        const bool seen = snapshot_requests(lock, cursor, all, 2 * kLive) == kLive;
        const bool over = cursor == z.zone.plan().requests;
        const bool done = refresh_accounts(lock, kLive, z.now, z.wall, z.wakes);
        _exit(counts && seen && over && done && check_zone(lock, nullptr) ? 0 : 1);
    };
    EXPECT_EXIT(everything(), ::testing::ExitedWithCode(0), "");
}

TEST_F(FootprintDeathTest, RecoveryEmptiesOnlyBucketsOfAccounts) {
    const Tables t(z.zone);
    std::vector<uint32_t> empty;
    for (uint32_t i = 0; i < z.zone.plan().accounts; ++i) {
        if (t.account_buckets[i] == kNone) {
            t.account_buckets[i] = 0xdeadbeef;
            empty.push_back(i);
        }
    }
    rebuild(z.zone);
    for (const uint32_t i : empty) {
        ASSERT_EQ(t.account_buckets[i], 0xdeadbeefu);
        t.account_buckets[i] = kNone;
    }
    EXPECT_EQ(z.check(), "");
    for (uint32_t i = 1; i <= kLive; ++i) {
        EXPECT_NE(z.send(i).decision, Decision::rejected);
    }
    EXPECT_EQ(z.zone.header()->account_end, kLive) << "every account was found again";
}

TEST_F(FootprintDeathTest, ALoadBeginsAndEndsWithoutTouchingTheTable) {
    const auto load_nothing = [this] {
        take_away_generation(z.zone, ~z.zone.header()->clients_epoch & 1);
        ClientLoad loader = ClientLoad::begin(z.zone);
        ZoneLock lock(z.zone);
        _exit(loader.commit(lock, z.now) && loader.rows() == 0 ? 0 : 1);
    };
    EXPECT_EXIT(load_nothing(), ::testing::ExitedWithCode(0), "");
}

TEST_F(FootprintDeathTest, TheSameSettingsAgainChangeNothing) {
    Settings s;
    s.min_throughput = 12;
    z.settings(s);
    Model& model = Tables(z.zone).models[0];
    EXPECT_EQ(model.minimum, 12);
    model.minimum = 7;  // would be set anew
    z.settings(s);
    EXPECT_EQ(model.minimum, 7);
    s.min_throughput = 13;
    z.settings(s);
    EXPECT_EQ(model.minimum, 13);
}

std::vector<TestClient> clients_from(uint32_t first, uint32_t count) {
    std::vector<TestClient> list;
    for (uint32_t i = 0; i < count; ++i) {
        list.push_back({.id = first + i});
    }
    return list;
}

std::vector<uint32_t> slots_of_rows(Zone& zone) {
    const Generation g(zone, zone.header()->clients_epoch & 1);
    std::vector<uint32_t> slots;
    for (uint32_t i = 0; i < g.table.rows; ++i) {
        slots.push_back(g.rows[i].slot);
    }
    return slots;
}

// Whatever earlier loads have left in the index, a table is laid out as in one that was never used.
TEST(TokenIndex, EarlierLoadsLeaveNoTrace) {
    TestZone worn(1u << 20);
    const uint32_t most = worn.zone.plan().clients;
    for (uint32_t round = 0; round < 6; ++round) {
        worn.load(clients_from(round * most, most));
    }
    const uint32_t rows = most / 3;
    worn.load(clients_from(5 * most + 7, rows));
    TestZone fresh(1u << 20);
    fresh.load(clients_from(5 * most + 7, rows));
    EXPECT_EQ(slots_of_rows(worn.zone), slots_of_rows(fresh.zone));
    ClientView view;
    for (uint32_t id = 3 * most; id < 6 * most; ++id) {
        const bool listed = id >= 5 * most + 7 && id < 5 * most + 7 + rows;
        ASSERT_EQ(lookup_client(worn.zone, hash_of(id), worn.now, worn.wall, view),
                  listed ? Auth::ok : Auth::unknown)
            << id;
    }
}

TEST(TokenIndex, RemovedRowsDoNotHideThoseBehindThem) {
    TestZone z(1u << 20);
    const uint32_t rows = z.zone.plan().clients / 2;
    z.load(clients_from(0, rows));
    for (uint32_t id = 0; id < rows; id += 3) {
        ZoneLock lock(z.zone);
        ASSERT_TRUE(remove_client(lock, hash_of(id), id, z.now, z.wall, z.wakes));
        ASSERT_FALSE(remove_client(lock, hash_of(id), id, z.now, z.wall, z.wakes));
    }
    for (uint32_t id = 0; id < rows; id += 6) {
        ZoneLock lock(z.zone);
        ASSERT_EQ(upsert_client(lock, TestZone::row({.id = id}), z.now, z.wall, z.wakes), RowResult::added);
    }
    ClientView view;
    for (uint32_t id = 0; id < rows; ++id) {
        ASSERT_EQ(lookup_client(z.zone, hash_of(id), z.now, z.wall, view),
                  id % 3 != 0 || id % 6 == 0 ? Auth::ok : Auth::unknown)
            << id;
    }
    EXPECT_EQ(lookup_client(z.zone, TokenHash{}, z.now, z.wall, view), Auth::unknown);
}

// The one who changed the discipline died before everything followed: the next one to say the same does it.
TEST(SettingsTest, AnInterruptedChangeIsFinished) {
    TestZone z;
    z.load({{.id = 1}});
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    z.send(1);
    const Tables t(z.zone);
    ASSERT_NE(t.standings[0].vt, 0);
    Settings other;
    other.scheduler = Scheduler::strict;
    t.header.settings = other;
    t.header.settings_pending = kReorderPending;
    z.settings(other);
    EXPECT_EQ(t.standings[0].vt, 0);
    EXPECT_EQ(t.header.settings_pending, uint32_t{kNothingPending});
}

}  // namespace
}  // namespace llm::core
