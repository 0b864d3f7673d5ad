#include <cstring>

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

Auth look(TestZone& z, uint32_t id) {
    ClientView view;
    return lookup_client(z.zone, hash_of(id), z.now, z.wall, view);
}

TEST(Clients, NeverLoadedIsUnavailable) {
    TestZone z;
    EXPECT_EQ(look(z, 1), Auth::unavailable);
    z.load({{.id = 1}});
    EXPECT_EQ(look(z, 1), Auth::ok);
    EXPECT_EQ(look(z, 2), Auth::unknown);
}

TEST(Clients, AllColumnsArrive) {
    TestZone z;
    z.load({{.id = 1,
             .priority = 7,
             .threshold = 3,
             .weight = 2.5,
             .band = -4,
             .max_running = 9,
             .tokens_per_minute = 1000,
             .organisation = "cs",
             .models = "a,b"}});
    const ClientView v = z.client(1);
    EXPECT_STREQ(v.name, "client1");
    EXPECT_STREQ(v.organisation, "cs");
    EXPECT_EQ(v.priority, 7);
    EXPECT_EQ(v.threshold, 3);
    EXPECT_FLOAT_EQ(v.weight, 2.5f);
    EXPECT_EQ(v.band, -4);
    EXPECT_EQ(v.max_running, 9u);
    EXPECT_EQ(v.tokens_per_minute, 1000u);
    EXPECT_TRUE(client_may_use(v, "a"));
    EXPECT_TRUE(client_may_use(v, "b"));
    EXPECT_FALSE(client_may_use(v, "c"));
    EXPECT_FALSE(client_may_use(v, "a,b"));
}

// The gateway looks every request's client up into the view that it has of that client.
TEST(Clients, AViewIsBroughtUpToDate) {
    TestZone z;
    z.load({{.id = 1, .priority = 3}, {.id = 2, .priority = 4}});
    ClientView view;
    const auto priority = [&](uint32_t id) {
        EXPECT_EQ(lookup_client(z.zone, hash_of(id), z.now, z.wall, view), Auth::ok);
        return view.priority;
    };
    EXPECT_EQ(priority(1), 3);
    EXPECT_EQ(priority(1), 3);
    EXPECT_EQ(priority(2), 4) << "a view of somebody else";
    EXPECT_EQ(priority(1), 3);
    {
        ZoneLock lock(z.zone);
        EXPECT_EQ(upsert_client(lock, TestZone::row({.id = 1, .priority = 7}), z.now, z.wall, z.wakes),
                  RowResult::added);
    }
    EXPECT_EQ(priority(1), 7) << "a row was changed in place";
    z.load({{.id = 1, .priority = 9}});
    EXPECT_EQ(priority(1), 9) << "the table was loaded anew";
    z.load({{.id = 2, .priority = 4}});
    EXPECT_EQ(lookup_client(z.zone, hash_of(1), z.now, z.wall, view), Auth::unknown);
    ClientView fresh;
    EXPECT_EQ(lookup_client(z.zone, TokenHash{}, z.now, z.wall, fresh), Auth::unknown)
        << "not a view of anybody";
}

TEST(Clients, GraceOutlivesTheSource) {
    TestZone z;
    Settings s;
    s.grace_us = 60'000'000;
    z.settings(s);
    z.load({{.id = 1}});
    set_source_state(z.zone, false, z.now);
    EXPECT_EQ(look(z, 1), Auth::ok);
    EXPECT_EQ(look(z, 2), Auth::unavailable) << "never 401 while the source is down";
    z.now += 60'000'001;
    EXPECT_EQ(look(z, 1), Auth::unavailable);
    set_source_state(z.zone, true, z.now);
    EXPECT_EQ(look(z, 1), Auth::ok);
    EXPECT_EQ(look(z, 2), Auth::unknown);
}

TEST(Clients, ExpiredAndDisabledAreUnknown) {
    TestZone z;
    z.load({{.id = 1, .expires_at = z.wall + 10}, {.id = 2, .disabled = true}});
    EXPECT_EQ(look(z, 1), Auth::ok);
    EXPECT_EQ(look(z, 2), Auth::unknown);
    z.wall += 10;
    EXPECT_EQ(look(z, 1), Auth::unknown);
}

TEST(Clients, OpenAccessKnowsEverybody) {
    TestZone z;
    Settings s;
    s.open_access = true;
    z.settings(s);
    const ClientView v = z.client(42);
    EXPECT_TRUE(v.anonymous);
    EXPECT_EQ(v.priority, 1);
    EXPECT_EQ(v.threshold, kUnlimited);
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    EXPECT_EQ(z.send(1).decision, Decision::granted);
    EXPECT_EQ(z.send(2).decision, Decision::queued);
}

TEST(Clients, TooManyRowsRefuseTheLoadAndKeepTheOldTable) {
    TestZone z(plan_zone(1).min_bytes);
    z.load({{.id = 1}});
    ClientLoad loader = ClientLoad::begin(z.zone);
    RowResult result = RowResult::added;
    uint32_t id = 100;
    while ((result = loader.add(TestZone::row({.id = id++}))) == RowResult::added) {
    }
    EXPECT_EQ(result, RowResult::full);
    loader.abort();
    EXPECT_EQ(look(z, 1), Auth::ok);
    EXPECT_EQ(look(z, 100), Auth::unknown);
}

TEST(Clients, OnlyTheTableInForceHasAClient) {
    TestZone z;
    z.load({{.id = 1}, {.id = 2}});
    const auto has = [&z](uint32_t id) {
        const ZoneLock lock(z.zone);
        return has_client(lock, TestZone::row({.id = id}).hash);
    };
    EXPECT_TRUE(has(1));
    ClientLoad loader = ClientLoad::begin(z.zone);
    EXPECT_EQ(loader.add(TestZone::row({.id = 3})), RowResult::added);
    EXPECT_FALSE(has(3)) << "not in force yet";
    {
        const ZoneLock lock(z.zone);
        EXPECT_TRUE(loader.commit(lock, z.now));
    }
    EXPECT_FALSE(has(1));
    EXPECT_TRUE(has(3));
}

TEST(Clients, AFullTableIsFoundWhole) {
    TestZone z(plan_zone(1).min_bytes);
    std::vector<TestClient> all;
    for (uint32_t i = 0; i < z.zone.plan().clients; ++i) {
        all.push_back({.id = i});
    }
    z.load(all);
    for (uint32_t i = 0; i < all.size(); ++i) {
        EXPECT_STREQ(z.client(i).name, ("client" + std::to_string(i)).c_str());
    }
    EXPECT_EQ(look(z, 1'000'000), Auth::unknown);
    EXPECT_EQ(client_table(z.zone).clients, all.size());
}

TEST(Clients, BadAndDuplicateRows) {
    TestZone z;
    ClientLoad loader = ClientLoad::begin(z.zone);
    ClientRow zero;
    EXPECT_EQ(loader.add(zero), RowResult::bad);
    ClientRow negative = TestZone::row({.id = 5});
    negative.priority = -1;
    EXPECT_EQ(loader.add(negative), RowResult::bad);
    EXPECT_EQ(loader.add(TestZone::row({.id = 1, .priority = 3})), RowResult::added);
    EXPECT_EQ(loader.add(TestZone::row({.id = 1, .priority = 4})), RowResult::duplicate);
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(loader.commit(lock, z.now));
        EXPECT_FALSE(loader.commit(lock, z.now)) << "once";
    }
    EXPECT_EQ(z.client(1).priority, 3);
}

TEST(Clients, ALaterLoaderWins) {
    TestZone z;
    ClientLoad first = ClientLoad::begin(z.zone);
    EXPECT_EQ(first.add(TestZone::row({.id = 1})), RowResult::added);
    ClientLoad second = ClientLoad::begin(z.zone);
    EXPECT_EQ(first.add(TestZone::row({.id = 2})), RowResult::lost);
    EXPECT_EQ(second.add(TestZone::row({.id = 3})), RowResult::added);
    ZoneLock lock(z.zone);
    EXPECT_FALSE(first.commit(lock, z.now));
    EXPECT_TRUE(second.commit(lock, z.now));
}

class Revocation : public ::testing::Test {
  protected:
    void SetUp() override {
        z.load({{.id = 1}, {.id = 2}, {.id = 3}});
        ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
        running = z.send(1);
        doomed = z.send(2);
        kept = z.send(3);
    }
    void expect_revoked() {
        const auto events = z.events();
        ASSERT_EQ(events.size(), 1u);
        EXPECT_EQ(events[0].kind, EventKind::revoked);
        EXPECT_EQ(events[0].cookie, 2u);
        EXPECT_EQ(z.totals().queued, 1u);
        z.end(running.ticket);
        EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{3}));
    }
    TestZone z;
    Verdict running, doomed, kept;
};

TEST_F(Revocation, ByReload) {
    z.load({{.id = 1}, {.id = 3}});
    expect_revoked();
}

TEST_F(Revocation, ByRemovalOfTheRow) {
    {
        ZoneLock lock(z.zone);
        EXPECT_FALSE(remove_client(lock, hash_of(2), 3, z.now, z.wall, z.wakes)) << "it is row 2's";
        EXPECT_TRUE(remove_client(lock, hash_of(2), 2, z.now, z.wall, z.wakes));
        EXPECT_FALSE(remove_client(lock, hash_of(2), 2, z.now, z.wall, z.wakes));
    }
    EXPECT_EQ(look(z, 2), Auth::unknown);
    EXPECT_EQ(look(z, 3), Auth::ok);
    expect_revoked();
}

TEST_F(Revocation, ByDisabling) {
    ZoneLock* lock = new ZoneLock(z.zone);
    EXPECT_EQ(upsert_client(*lock, TestZone::row({.id = 2, .disabled = true}), z.now, z.wall, z.wakes),
              RowResult::added);
    delete lock;
    expect_revoked();
}

TEST_F(Revocation, ByExpiryWhileQueued) {
    z.load({{.id = 1}, {.id = 2, .expires_at = z.wall + 5}, {.id = 3}});
    z.wall += 5;
    while (z.totals().queued == 2) {
        z.tick(1000);
    }
    expect_revoked();
}

TEST(Clients, WhoeverExpiresWhileWaitingHearsOfItAtOnceHoweverManyThereAre) {
    TestZone z(16u << 20);
    std::vector<TestClient> clients;
    for (uint32_t i = 1; i <= 2000; ++i) {
        clients.push_back({.id = i, .expires_at = i == 1500 ? z.wall + 10 : i == 1600 ? z.wall + 20 : 0});
    }
    z.load(clients);
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}}));
    const Verdict running = z.send(1);
    for (uint32_t i = 2; i <= 2000; ++i) {
        z.send(i);
    }
    z.wall += 9;
    z.tick(1000);
    EXPECT_EQ(z.totals().queued, 1999u);
    for (const uint64_t expired : {1500u, 1600u}) {
        z.wall += expired == 1500 ? 1 : 10;
        z.tick(1000);
        const std::vector<Event> events = z.events();
        ASSERT_EQ(events.size(), 1u);
        EXPECT_EQ(events[0].kind, EventKind::revoked);
        EXPECT_EQ(events[0].cookie, expired);
    }
    z.end(running.ticket);
}

TEST_F(Revocation, BetweenLookupAndSubmit) {
    const ClientView view = z.client(2);
    z.load({{.id = 1}, {.id = 3}});
    z.events();
    RequestArgs a = z.args();
    a.client = &view;
    ZoneLock lock(z.zone);
    EXPECT_EQ(submit(lock, a, z.now, z.wall, z.wakes).reason, Outcome::rejected_invalid_api_key);
}

TEST_F(Revocation, InPlaceBetweenLookupAndSubmit) {
    const ClientView view = z.client(2);
    {
        ZoneLock lock(z.zone);
        ASSERT_TRUE(remove_client(lock, hash_of(2), 2, z.now, z.wall, z.wakes));
    }
    z.events();
    RequestArgs a = z.args();
    a.client = &view;
    ZoneLock lock(z.zone);
    EXPECT_EQ(submit(lock, a, z.now, z.wall, z.wakes).reason, Outcome::rejected_invalid_api_key);
}

TEST_F(Revocation, ChangedRightsReachQueuedRequests) {
    Settings strict;
    strict.scheduler = Scheduler::strict;
    z.settings(strict);
    z.load({{.id = 1}, {.id = 2, .priority = 1}, {.id = 3, .priority = 9}});
    z.end(running.ticket);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{3}));
    EXPECT_EQ(z.check(), "");
}

TEST(Clients, UpsertAddsAndReplaces) {
    TestZone z;
    z.load({{.id = 1}});
    {
        ZoneLock lock(z.zone);
        EXPECT_EQ(upsert_client(lock, TestZone::row({.id = 2, .priority = 4}), z.now, z.wall, z.wakes),
                  RowResult::added);
        EXPECT_EQ(upsert_client(lock, TestZone::row({.id = 1, .priority = 6}), z.now, z.wall, z.wakes),
                  RowResult::added);
    }
    EXPECT_EQ(z.client(2).priority, 4);
    EXPECT_EQ(z.client(1).priority, 6);
    EXPECT_EQ(client_table(z.zone).clients, 2u);
}

TEST(Clients, ARowThatKeepsItsTextNeedsNoRoomForIt) {
    TestZone z(plan_zone(1).min_bytes);
    const std::string name(kMaxNameBytes, 'n');
    ClientLoad loader = ClientLoad::begin(z.zone);
    ClientRow row = TestZone::row({.id = 1});
    row.name = name;
    row.models = "m,k";
    ASSERT_EQ(loader.add(row), RowResult::added);
    for (uint32_t id = 2;; ++id) {  // until there is no room for another name
        ClientRow other = row;
        other.hash = hash_of(id);
        if (loader.add(other) == RowResult::full) {
            break;
        }
    }
    ZoneLock lock(z.zone);
    ASSERT_TRUE(loader.commit(lock, z.now));
    row.disabled = true;
    EXPECT_EQ(upsert_client(lock, row, z.now, z.wall, z.wakes), RowResult::added) << "or it could not be revoked";
}

}  // namespace
}  // namespace llm::core
