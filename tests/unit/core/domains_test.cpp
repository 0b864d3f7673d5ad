// Virtual counters across domains that come and go, and their table when it is full.
#include <algorithm>

#include "ngx_module/core/core.hpp"
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

double counter_of(TestZone& z, uint32_t client, const std::string& model) {
    const Tables t(z.zone);
    const uint32_t domain = t.models[find_model(z.zone, model)].domain;
    for (uint32_t i = 0; i < t.header.standing_end; ++i) {
        const Standing& s = t.standings[i];
        if (s.used != 0 && s.domain == domain && t.accounts[s.account].hash == hash_of(client)) {
            return s.vt;
        }
    }
    return -1;
}

class Domains : public ::testing::Test {
  protected:
    Verdict send(uint32_t client, const std::string& model) {
        RequestArgs a = z.args();
        a.model = model;
        return z.send(client, a);
    }
    // One request from beginning to end.
    void serve(uint32_t client, const std::string& model, uint32_t completion) {
        const Verdict v = send(client, model);
        ASSERT_EQ(v.decision, Decision::granted);
        z.end(v.ticket, 100, completion);
    }
    void apart() {
        ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m"}, .max_running = 1},
                               {.url = "http://b", .models = {"k"}, .max_running = 1}}));
    }
    void together() {
        ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1},
                               {.url = "http://b", .models = {"k"}, .max_running = 1}}));
    }

    TestZone z;
};

TEST_F(Domains, ADomainMadeAnewKnowsNothingOfAnEarlierOneInItsPlace) {
    z.load({{.id = 1}, {.id = 2}});
    apart();
    serve(1, "k", 1'000'000);  // far ahead in a domain that is about to end
    serve(2, "m", 100);
    together();
    {
        // What counts now is what the counters of the domain that stays say.
        const Tables t(z.zone);
        for (uint32_t i = 0; i < t.header.standing_end; ++i) {
            if (t.standings[i].domain == t.models[find_model(z.zone, "m")].domain) {
                t.standings[i].vt = 0;
            }
        }
    }
    serve(1, "m", 100);
    serve(2, "m", 100);
    apart();
    EXPECT_LT(counter_of(z, 1, "k"), 10'000) << "carried from the domain that was split, not from the past";
    EXPECT_EQ(counter_of(z, 1, "k"), counter_of(z, 1, "m"));
    EXPECT_EQ(counter_of(z, 2, "k"), counter_of(z, 2, "m"));
    EXPECT_EQ(z.check(), "");
}

TEST_F(Domains, AModelThatIsNewFindsNoCountersOfAnEarlierDomain) {
    z.load({{.id = 1}});
    apart();
    serve(1, "k", 1'000'000);
    together();
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1},
                           {.url = "http://b", .models = {"k"}, .max_running = 1},
                           {.url = "http://c", .models = {"new"}, .max_running = 1}}));
    const double before = counter_of(z, 1, "new");
    EXPECT_LE(before, 0) << "no counter, or one that has just begun";
    serve(1, "new", 100);
    EXPECT_LT(counter_of(z, 1, "new"), 10'000);
}

TEST_F(Domains, ALeadStaysALeadWhereDomainsJoin) {
    z.load({{.id = 1}, {.id = 2}, {.id = 3}, {.id = 4}});
    apart();
    // Service stands far further in k's domain than in m's. In each somebody has had much, somebody little, and both wait.
    serve(4, "k", 400'000);
    const Verdict runs[] = {send(4, "k"), send(3, "m")};
    for (uint32_t client : {1U, 2U, 1U, 2U}) {
        EXPECT_EQ(send(client, "k").decision, Decision::queued);
        EXPECT_EQ(send(client + 2, "m").decision, Decision::queued);
    }
    z.end(runs[0].ticket, 100, 5'000);
    z.end(runs[1].ticket, 100, 7'000);
    std::vector<Ticket> taken;
    z.take_all(&taken);
    ASSERT_EQ(taken.size(), 2U);
    for (const Ticket ticket : taken) {
        z.end(ticket, 100, 3'000);  // their next requests, which wait, know it
    }
    taken.clear();
    z.take_all(&taken);
    ASSERT_EQ(taken.size(), 2U);
    const double k[] = {counter_of(z, 1, "k"), counter_of(z, 2, "k")};
    const double m[] = {counter_of(z, 3, "m"), counter_of(z, 4, "m")};
    const double k_base = std::min(k[0], k[1]);
    const double m_base = std::min(m[0], m[1]);
    ASSERT_GT(std::max(k[0], k[1]), k_base);
    ASSERT_GT(std::max(m[0], m[1]), m_base);
    ASSERT_GT(k_base, std::max(m[0], m[1])) << "the domains stand apart";

    together();
    const double base = std::min(counter_of(z, 1, "m"), counter_of(z, 2, "m"));
    EXPECT_EQ(base, std::min(counter_of(z, 3, "m"), counter_of(z, 4, "m"))) << "nobody waits longer for coming from elsewhere";
    for (uint32_t i : {0U, 1U}) {
        EXPECT_DOUBLE_EQ(counter_of(z, i + 1, "m") - base, k[i] - k_base);
        EXPECT_DOUBLE_EQ(counter_of(z, i + 3, "m") - base, m[i] - m_base);
    }
    EXPECT_EQ(z.check(), "");
    for (const Ticket ticket : taken) {
        z.end(ticket);
    }
}

// A zone of the smallest size whose table of counters is smaller than clients times domains.
class FullStandings : public ::testing::Test {
  protected:
    FullStandings() : z(plan_zone(1).min_bytes) {
        std::vector<TestClient> clients;
        for (uint32_t i = 1; i <= 60; ++i) {
            clients.push_back({.id = i});
        }
        z.load(clients);
        std::vector<TestZone::Static> engines;
        for (uint32_t i = 0; i < z.zone.plan().engines; ++i) {
            engines.push_back({.url = "http://e" + std::to_string(i), .models = {model(i)}});
        }
        EXPECT_TRUE(z.engines(engines));
    }
    static std::string model(uint32_t i) { return "m" + std::to_string(i); }
    Verdict send(uint32_t client, uint32_t of) {
        const std::string name = model(of);
        RequestArgs a = z.args();
        a.model = name;
        return z.send(client, a);
    }
    uint32_t standings() {
        uint32_t used = 0;
        const Tables t(z.zone);
        for (uint32_t i = 0; i < t.header.plan.standings; ++i) {
            used += t.standings[i].used;
        }
        return used;
    }

    TestZone z;
};

TEST_F(FullStandings, TheClientThatWasAwayLongestIsServedToo) {
    // Client 1 first: it is the one whose counters would be given up before all others'.
    for (uint32_t client = 1; standings() < z.zone.plan().standings; ++client) {
        for (uint32_t m = 0; m < 4; ++m) {
            const Verdict v = send(client, m);
            ASSERT_EQ(v.decision, Decision::granted);
            z.end(v.ticket);
        }
    }
    const Verdict v = send(1, 7);
    EXPECT_EQ(v.decision, Decision::granted) << outcome_name(v.reason);
    z.end(v.ticket);
    EXPECT_EQ(z.check(), "");
}

TEST_F(FullStandings, ClientsThatAreNeverIdleDoNotShutOthersOut) {
    std::vector<Ticket> live;
    uint32_t client = 1;
    for (; standings() < z.zone.plan().standings; ++client) {
        for (uint32_t m = 0; m < z.zone.plan().engines && standings() < z.zone.plan().standings; ++m) {
            const Verdict v = send(client, m);
            ASSERT_EQ(v.decision, Decision::granted);
            if (m == 0) {
                live.push_back(v.ticket);
            } else {
                z.end(v.ticket);
            }
        }
    }
    const double kept = counter_of(z, 1, model(0));
    const Verdict v = send(client, 3);
    EXPECT_EQ(v.decision, Decision::granted) << outcome_name(v.reason);
    EXPECT_EQ(counter_of(z, 1, model(0)), kept) << "a counter in use stays";
    EXPECT_EQ(z.check(), "");
    z.end(v.ticket);
    for (const Ticket ticket : live) {
        z.end(ticket);
    }
    EXPECT_EQ(z.check(), "");
}

TEST_F(FullStandings, WhatWaitsStaysInTheQueueWhenDomainsSplit) {
    // Everybody has counters in many domains; then all domains become one, and many again, under load.
    std::vector<Ticket> live;
    for (uint32_t client = 1; client <= 8; ++client) {
        for (uint32_t m = 0; m < z.zone.plan().engines; ++m) {
            const Verdict v = send(client, m);
            ASSERT_EQ(v.decision, Decision::granted) << outcome_name(v.reason);
            if (m != 0) {
                z.end(v.ticket);
            } else {
                live.push_back(v.ticket);
            }
        }
    }
    EXPECT_EQ(standings(), z.zone.plan().standings);
    std::vector<TestZone::Static> list;
    for (uint32_t i = 0; i < z.zone.plan().engines; ++i) {
        list.push_back({.url = "http://e" + std::to_string(i), .models = {model(i)}, .max_running = 1});
    }
    ASSERT_TRUE(z.engines(list));
    for (uint32_t client = 1; client <= 8; ++client) {
        EXPECT_EQ(send(client + 20, 0).decision, Decision::queued);
    }
    list[0].models = {model(0), model(1), model(2)};
    ASSERT_TRUE(z.engines(list));
    EXPECT_EQ(z.check(), "");
    list[0].models = {model(0)};
    ASSERT_TRUE(z.engines(list));
    EXPECT_EQ(z.check(), "");
    {
        z.zone.header()->dirty = 1;
        ZoneLock lock(z.zone);
    }
    EXPECT_EQ(z.check(), "");
    for (const Ticket ticket : live) {
        z.end(ticket);
    }
    std::vector<Ticket> taken;
    while (z.totals().queued != 0 || z.totals().granted != 0) {
        taken.clear();
        z.tick(1000);
        ASSERT_FALSE(z.take_all(&taken).empty());
        for (const Ticket ticket : taken) {
            z.end(ticket);
        }
    }
}

TEST(Classes, TheirMemoryOutlivesThatItsStampsWrap) {
    TestZone z;
    std::vector<TestClient> clients;
    for (uint32_t i = 1; i <= 9; ++i) {
        clients.push_back({.id = i});
    }
    z.load(clients);
    ASSERT_TRUE(z.engines({{.url = "http://a"}}));
    z.end(z.send(1).ticket, 100, 1'000'000);
    const double before = counter_of(z, 1, "m");
    z.end(z.send(1).ticket, 1, 1);  // leaves once more, with all of that
    for (uint32_t left = 0; left < 4; ++left) {
        z.zone.header()->class_stamp = 0xffffffffu - left;
        const Verdict v = z.send(2 + 2 * left);
        EXPECT_GE(counter_of(z, 2 + 2 * left, "m"), before) << "starts where service stands";
        z.end(v.ticket, 1, 1);
        z.zone.header()->class_stamp = 0xffffffffu - left;
        const Verdict w = z.send(3 + 2 * left);
        EXPECT_GE(counter_of(z, 3 + 2 * left, "m"), before);
        z.end(w.ticket, 1, 1);
    }
}

}  // namespace
}  // namespace llm::core
