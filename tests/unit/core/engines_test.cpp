// How engines come, change and go, and where requests go.
#include <set>

#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

using Engines = WithTwoClients;

TEST_F(Engines, ReportCreatesUpdatesAndLeaves) {
    EngineReport r = TestZone::report("gpu0");
    EXPECT_EQ(z.apply(r).what, Applied::created);
    EXPECT_EQ(z.apply(r).what, Applied::old);
    r.seq = 2;
    EXPECT_EQ(z.apply(r).what, Applied::updated);
    const Verdict v = z.send(1);
    ASSERT_EQ(v.decision, Decision::granted);
    r.seq = 3;
    r.state = EngineState::draining;
    z.apply(r);
    EXPECT_EQ(z.send(1).reason, Outcome::rejected_no_engine);
    r.seq = 4;
    r.state = EngineState::gone;
    EXPECT_EQ(z.apply(r).what, Applied::gone);
    EXPECT_EQ(z.apply(r).what, Applied::unknown);
    EngineTarget target;
    {
        ZoneLock lock(z.zone);
        EXPECT_TRUE(engine_target(lock, v.engine, target)) << "kept for the lease";
    }
    EXPECT_STREQ(target.id, "gpu0");
    z.end(v.ticket);
    ZoneLock lock(z.zone);
    EXPECT_FALSE(engine_target(lock, v.engine, target));
    EXPECT_EQ(find_model(z.zone, "m"), 0u) << "once seen, always known";
}

TEST_F(Engines, LoadingLetsRequestsWait) {
    EngineReport r = TestZone::report("gpu0");
    r.state = EngineState::loading;
    z.apply(r);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    r.seq = 2;
    r.state = EngineState::ready;
    z.apply(r);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{1}));
}

TEST_F(Engines, WithoutAnAddressItWaits) {
    const EngineReport r = TestZone::report("gpu0");
    ApplyResult applied;
    {
        ZoneLock lock(z.zone);
        applied = apply_report(lock, r, nullptr, z.now, z.wakes);
    }
    EXPECT_TRUE(applied.needs_address);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    EnginePlace place;
    place.address.length = 16;
    {
        ZoneLock lock(z.zone);
        set_engine_address(lock, applied.engine, applied.generation + 1, place, z.now, z.wakes);
    }
    EXPECT_TRUE(z.take_all().empty()) << "another generation";
    {
        ZoneLock lock(z.zone);
        set_engine_address(lock, applied.engine, applied.generation, place, z.now, z.wakes);
    }
    EXPECT_EQ(z.take_all().size(), 1u);
}

// A lie, or a clock that was set back between two starts of the engine.
TEST_F(Engines, AnEngineThatGoesOnReportingIsBelievedOnceNothingNewerIsHeard) {
    for (const auto& [boot, seq] : {std::pair<uint64_t, uint64_t>{1ull << 62, 1}, {100, 1ull << 62}}) {
        EngineReport r = TestZone::report("gpu" + std::to_string(boot), 100, 5);
        z.apply(r);
        EngineReport lie = r;
        lie.boot = boot;
        lie.seq = seq;
        lie.state = EngineState::failed;
        EXPECT_EQ(z.apply(lie).what, Applied::updated);
        const int64_t start = z.now;
        while (z.now - start <= 3'000'000) {
            ++r.seq;
            EXPECT_EQ(z.apply(r).what, Applied::old);
            EXPECT_EQ(z.apply(r).what, Applied::old) << "from another worker";
            z.now += 500'000;
        }
        EXPECT_EQ(z.apply(r).what, Applied::old) << "once more the same is no sign of life";
        ++r.seq;
        EXPECT_EQ(z.apply(r).what, Applied::updated);
        EXPECT_EQ(z.send(1).decision, Decision::granted);
    }
}

TEST_F(Engines, AReportThatIsToldOnceMoreMuchLaterStaysOld) {
    EngineReport r = TestZone::report("gpu0", 100, 5);
    z.apply(r);
    z.now += 60'000'000;
    r.state = EngineState::failed;
    r.seq = 3;
    EXPECT_EQ(z.apply(r).what, Applied::old);
    EXPECT_EQ(z.apply(r).what, Applied::old);
    r.seq = 2;
    EXPECT_EQ(z.apply(r).what, Applied::old);
    EXPECT_EQ(z.send(1).decision, Decision::granted);
}

TEST_F(Engines, SameIdFromTwoUrlsTheHigherBootWins) {
    EngineReport r = TestZone::report("gpu0", 100, 5);
    z.apply(r);
    EngineReport other = r;
    other.url = "http://elsewhere:8000";
    EXPECT_EQ(z.apply(other).what, Applied::conflict_lost);
    other.boot = 101;
    other.seq = 1;
    EXPECT_EQ(z.apply(other).what, Applied::conflict_won);
    r.seq = 6;
    EXPECT_EQ(z.apply(r).what, Applied::conflict_lost);
    const Verdict v = z.send(1);
    EngineTarget target;
    ZoneLock lock(z.zone);
    ASSERT_TRUE(engine_target(lock, v.engine, target));
    EXPECT_STREQ(target.url, "http://elsewhere:8000");
}

TEST_F(Engines, ReportWithTheUrlOfAStaticEngineUpdatesThatOne) {
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .models = {"alias"}, .max_running = 2}}));
    EngineReport r = TestZone::report("gpu0");
    r.max_running = 99;
    EXPECT_EQ(z.apply(r).what, Applied::updated);
    EXPECT_EQ(z.engine(0).max_running, 2u) << "the configuration's bound stays";
    EXPECT_EQ(z.engine(0).model_count, 2u);
    EXPECT_EQ(z.send(1).decision, Decision::granted) << "m, from the report";
    RequestArgs a = z.args();
    a.model = "alias";
    EXPECT_EQ(z.send(1, a).decision, Decision::granted);
    ASSERT_TRUE(z.engines({}));
    EXPECT_FALSE(z.engine(0).is_static);
    EXPECT_FALSE(z.engine(0).leaving) << "it announces itself";
}

TEST_F(Engines, AnEngineIsThereOnceHoweverItIsListed) {
    z.apply(TestZone::report("gpu0", 100, 1));
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .id = "x"}}))
        << "a line is added for one that announces itself";
    EXPECT_EQ(z.ids(), std::vector<std::string>{"x"});
    EXPECT_EQ(z.apply(TestZone::report("gpu0", 100, 2)).what, Applied::updated);
    EXPECT_EQ(z.ids(), std::vector<std::string>{"x"});
    ASSERT_TRUE(z.engines({})) << "the line is removed";
    EXPECT_EQ(z.apply(TestZone::report("gpu0", 100, 3)).what, Applied::updated);
    EXPECT_EQ(z.ids(), std::vector<std::string>{"gpu0"});
}

TEST_F(Engines, TwoLinesForOneUrlAreTwoEngines) {
    ASSERT_TRUE(z.engines(
        {{.url = "http://a", .models = {"m"}, .id = "x"}, {.url = "http://a", .models = {"k"}, .id = "y"}}));
    EXPECT_EQ(z.ids(), (std::vector<std::string>{"x", "y"}));
    const Verdict v = z.send(1);
    ASSERT_EQ(v.decision, Decision::granted);
    ASSERT_TRUE(z.engines(
        {{.url = "http://a", .models = {"k"}, .id = "y"}, {.url = "http://a", .models = {"m"}, .id = "x"}}));
    EXPECT_EQ(z.ids(), (std::vector<std::string>{"x", "y"}));
    EXPECT_EQ(z.engine(v.engine).held, 1u);
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"k"}, .id = "y"}}));
    EXPECT_TRUE(z.engine(v.engine).leaving);
    z.end(v.ticket);
    EXPECT_EQ(z.ids(), std::vector<std::string>{"y"});
}

TEST_F(Engines, TheSameConfigurationAgainKeepsWhatHasBeenLearnt) {
    const std::vector<TestZone::Static> lines = {{.url = "http://gpu0:8000"}};
    ASSERT_TRUE(z.engines(lines));
    EngineReport r = TestZone::report("gpu0");
    r.org = "cs";
    const ApplyResult known = z.apply(r);
    EnginePlace place;  // the name's address has changed since the configuration was read
    place.host = "gpu0:8000";
    place.key = "of-its-id";
    place.address.length = 16;
    place.address.sockaddr[4] = 7;
    {
        ZoneLock lock(z.zone);
        set_engine_address(lock, known.engine, known.generation, place, z.now, z.wakes);
    }
    ASSERT_TRUE(z.engines(lines));  // a worker that takes a dead one's place applies it anew
    EngineTarget target;
    {
        ZoneLock lock(z.zone);
        ASSERT_TRUE(engine_target(lock, known.engine, target));
        EXPECT_STREQ(target.key, "of-its-id");
        EXPECT_EQ(target.address.sockaddr[4], 7);
        EXPECT_STREQ(target.org, "cs");
    }
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .keys = 1}}));  // other keys: that one may be gone
    ZoneLock lock(z.zone);
    ASSERT_TRUE(engine_target(lock, known.engine, target));
    EXPECT_STREQ(target.key, "");
    EXPECT_STREQ(target.org, "cs");
}

TEST_F(Engines, AChangedLineReplacesWhatHadBeenLearnt) {
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .org = "cs"}}));
    EngineReport r = TestZone::report("gpu0");
    r.org = "physics";
    const uint32_t engine = z.apply(r).engine;
    EngineTarget target;
    const auto org = [&] {
        ZoneLock lock(z.zone);
        target = EngineTarget();
        EXPECT_TRUE(engine_target(lock, engine, target));
        return std::string(target.org);
    };
    EXPECT_EQ(org(), "cs") << "the configuration's word counts";
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .org = "law"}}));
    EXPECT_EQ(org(), "law");
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000"}}));
    EXPECT_NE(org(), "law");
    r.seq++;
    z.apply(r);
    EXPECT_EQ(org(), "physics");
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .max_running = 3}}));
    EXPECT_EQ(org(), "physics") << "what it says of itself, where the configuration says nothing";
}

TEST_F(Engines, ReportsCannotMoveAStaticEngine) {
    ASSERT_TRUE(z.engines({{.url = "http://gpu0:8000", .id = "gpu0"}}));
    z.apply(TestZone::report("gpu0", 100, 1));
    EngineReport other = TestZone::report("gpu0", 101, 1);
    other.url = "http://elsewhere:8000";
    EXPECT_EQ(z.apply(other).what, Applied::conflict_lost);
    EXPECT_EQ(z.send(1).engine, 0u);
}

TEST_F(Engines, StaticEngineRemovedAtReloadFinishesAndVanishes) {
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    const Verdict v = z.send(1);
    const uint32_t other = 1 - v.engine;
    ASSERT_TRUE(z.engines({{.url = other == 0 ? "http://a" : "http://b"}}));
    EXPECT_TRUE(z.engine(v.engine).leaving);
    EXPECT_EQ(z.send(1).engine, other);
    z.end(v.ticket);
    uint32_t cursor = 0;
    EngineSnapshot all[4];
    ZoneLock lock(z.zone);
    EXPECT_EQ(snapshot_engines(lock, cursor, all, 4), 1u);
}

TEST_F(Engines, ForgottenOnlyAfterTenLivesWithRedisUpAndNoSuccess) {
    z.apply(TestZone::report("gpu0"));
    const Verdict v = z.send(1);
    z.pass(32'000'000);
    EXPECT_EQ(z.send(1).decision, Decision::granted) << "a silent engine keeps getting work";
    {
        ZoneLock lock(z.zone);
        response_head(lock, v.ticket, 200, z.now, 1, z.wakes);
    }
    EXPECT_EQ(z.pass(5'000'000).lost_engines, 0u) << "a request has just succeeded";
    {
        ZoneLock lock(z.zone);
        set_redis_state(lock, false, z.now);
    }
    EXPECT_EQ(z.pass(100'000'000).lost_engines, 0u) << "Redis is down";
    {
        ZoneLock lock(z.zone);
        set_redis_state(lock, true, z.now);
    }
    EXPECT_EQ(z.pass(29'000'000).lost_engines, 0u) << "10 lives after its return";
    const SweepResult swept = z.pass(2'000'000);
    EXPECT_EQ(swept.lost_engines, 1u);
    EXPECT_STREQ(swept.lost, "gpu0");
    EXPECT_EQ(read_counters(z.zone).engines_lost, 1u);
}

TEST_F(Engines, SuccessesAtAUrlAreThoseOfWhoAnnouncedItselfThereLast) {
    EngineReport former = TestZone::report("former", 1);
    former.models = {"m", "n"};
    z.apply(former);
    EngineReport other = TestZone::report("other", 2);
    other.url = former.url;
    const auto lost_while_reports = [&](EngineReport& who) {
        uint32_t lost = 0;
        for (int second = 0; second < 40; ++second) {
            who.seq++;
            z.apply(who);
            const Verdict v = z.send(1);
            EXPECT_EQ(v.decision, Decision::granted);
            {
                ZoneLock lock(z.zone);
                response_head(lock, v.ticket, 200, z.now, 1, z.wakes);
            }
            z.end(v.ticket);
            lost += z.pass(1'000'000).lost_engines;
        }
        return lost;
    };
    EXPECT_EQ(lost_while_reports(other), 0u) << "it serves less: it need not be the same process";
    other.models = former.models;
    EXPECT_EQ(lost_while_reports(other), 1u);
    ZoneLock lock(z.zone);
    EXPECT_FALSE(drain_engine(lock, "former", true, z.now, z.wakes)) << "it is not known any more";
}

TEST_F(Engines, NobodyIsForgottenBecauseEverythingStoodStill) {
    z.apply(TestZone::report("gpu0"));
    EXPECT_EQ(z.tick(60'000'000).lost_engines, 0u) << "before the first sweep";
    z.apply(TestZone::report("gpu0", 2));
    z.pass(1'000'000);
    EXPECT_EQ(z.tick(60'000'000).lost_engines, 0u);
    EXPECT_EQ(z.pass(29'000'000).lost_engines, 0u);
    EXPECT_EQ(z.pass(2'000'000).lost_engines, 1u);
}

TEST_F(Engines, DrainAndUndrain) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    {
        ZoneLock lock(z.zone);
        EXPECT_FALSE(drain_engine(lock, "http://nobody", true, z.now, z.wakes));
        EXPECT_TRUE(drain_engine(lock, "http://a", true, z.now, z.wakes));
    }
    EXPECT_EQ(z.send(1).engine, 1u);
    EXPECT_EQ(z.send(1).decision, Decision::queued);
    ZoneLock* lock = new ZoneLock(z.zone);
    EXPECT_TRUE(drain_engine(*lock, "http://a", false, z.now, z.wakes));
    delete lock;
    EXPECT_EQ(z.take_all().size(), 1u);
}

TEST_F(Engines, BackupOnlyWhileNoOtherIsUsable) {
    ASSERT_TRUE(z.engines(
        {{.url = "http://a", .max_running = 1}, {.url = "http://spare", .max_running = 1, .backup = true}}));
    EXPECT_EQ(z.send(1).engine, 0u);
    const Verdict waits = z.send(1);
    EXPECT_EQ(waits.decision, Decision::queued);
    ZoneLock* lock = new ZoneLock(z.zone);
    drain_engine(*lock, "http://a", true, z.now, z.wakes);
    delete lock;
    z.tick(1000);
    std::vector<Ticket> taken;
    z.take_all(&taken);
    ASSERT_EQ(taken.size(), 1u);
    EXPECT_EQ(z.engine(1).held, 1u);
}

TEST_F(Engines, BackupTakesWhatHasFailedOnTheOthers) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1},
                           {.url = "http://b", .max_running = 1},
                           {.url = "http://spare", .max_running = 1, .backup = true}}));
    const auto again = [&](const Verdict& v, Failure cause) {
        ZoneLock lock(z.zone);
        return retry(lock, v.ticket, cause, 5, WhenFull::fail, z.now, 0x80000000u, z.wakes);
    };
    const Verdict v = z.send(1);
    const RetryAnswer second = again(v, Failure::connect);
    EXPECT_EQ(second.action, RetryAction::again);
    EXPECT_EQ(second.engine, 1 - v.engine) << "another engine is usable";
    EXPECT_EQ(again(v, Failure::status_429).engine, second.engine) << "busy is not unusable";
    EXPECT_EQ(again(v, Failure::connect).engine, 2u);
    EXPECT_EQ(z.engine(0).held + z.engine(1).held, 0u);
    EXPECT_EQ(z.engine(2).held, 1u);
    EXPECT_EQ(again(v, Failure::connect).action, RetryAction::fail);
}

TEST_F(Engines, OneThatWillNotHaveARequestIsWell) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 4}, {.url = "http://b", .max_running = 4}}));
    for (int i = 0; i < 4; ++i) {  // more than open a breaker
        const Verdict v = z.send(1);
        const auto again = [&](Failure cause) {
            ZoneLock lock(z.zone);
            return retry(lock, v.ticket, cause, 1, WhenFull::fail, z.now, 0x80000000u, z.wakes);
        };
        const RetryAnswer second = again(Failure::status_4xx);
        EXPECT_EQ(second.action, RetryAction::again);
        EXPECT_EQ(second.engine, 1 - v.engine);
        EXPECT_EQ(again(Failure::status_4xx).action, RetryAction::fail);
        ZoneLock lock(z.zone);
        finish(lock, v.ticket, Outcome::completed, {}, z.now, z.wakes);
    }
    for (uint32_t engine : {0u, 1u}) {
        EXPECT_EQ(z.engine(engine).failures, 0u);
        EXPECT_EQ(z.engine(engine).held, 0u);
    }
}

TEST_F(Engines, LeastLoadedFirstAndPolicies) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 2}, {.url = "http://b", .max_running = 8}}));
    EXPECT_EQ(z.send(1).engine, 1u) << "1/8 < 1/2";
    Settings s;
    s.routing = RoutingPolicy::round_robin;
    z.settings(s);
    const uint32_t one = z.send(1).engine;
    const uint32_t two = z.send(1).engine;
    EXPECT_NE(one, two);
    s.routing = RoutingPolicy::least_running;
    z.settings(s);
    while (z.engine(0).held < z.engine(1).held) {
        ASSERT_EQ(z.send(1).engine, 0u);
    }
    s.routing = RoutingPolicy::random;
    z.settings(s);
    EXPECT_EQ(z.send(1).decision, Decision::granted);
}

TEST_F(Engines, OneEngineServesTheQueuesOfAllItsModels) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1}}));
    const Verdict first = z.send(1);
    RequestArgs k = z.args();
    k.model = "k";
    const Verdict second = z.send(2, k);
    EXPECT_EQ(second.decision, Decision::queued);
    z.end(first.ticket);
    EXPECT_EQ(z.take_all(), (std::vector<uint64_t>{2}));
}

TEST_F(Engines, DomainsMergeAndSplitUnderLoad) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m"}, .max_running = 1},
                           {.url = "http://b", .models = {"k"}, .max_running = 1}}));
    RequestArgs k = z.args();
    k.model = "k";
    std::vector<Ticket> running = {z.send(1).ticket, z.send(1, k).ticket};
    for (int i = 0; i < 5; ++i) {
        z.send(1);
        z.send(2, k);
        z.send(2);
    }
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m", "k"}, .max_running = 1},
                           {.url = "http://b", .models = {"k"}, .max_running = 1}}));
    EXPECT_EQ(z.check(), "");
    EXPECT_EQ(z.totals().queued, 15u);
    z.end(running[0]);
    ASSERT_TRUE(z.engines({{.url = "http://a", .models = {"m"}, .max_running = 1},
                           {.url = "http://b", .models = {"k"}, .max_running = 1}}));
    EXPECT_EQ(z.check(), "");
    std::vector<Ticket> taken;
    z.take_all(&taken);
    EXPECT_EQ(taken.size(), 1u);
}

TEST_F(Engines, TheSetOfModelsIsBoundedAndAWholeConfigurationFitsOrNot) {
    TestZone small(plan_zone(1).min_bytes);
    std::vector<TestZone::Static> many;
    for (uint32_t i = 0; i <= small.zone.plan().engines; ++i) {
        many.push_back({.url = "http://e" + std::to_string(i)});
    }
    EXPECT_FALSE(small.engines(many));
    many.pop_back();
    EXPECT_TRUE(small.engines(many));
    EXPECT_EQ(small.apply(TestZone::report("one-more")).what, Applied::full);
}

TEST_F(Engines, EnginesThatShareModelsNeedRoomForThemOnce) {
    TestZone small(plan_zone(1).min_bytes);
    std::vector<std::string> models;
    for (uint32_t i = 0; i < small.zone.plan().models; ++i) {
        models.push_back("m" + std::to_string(i));
    }
    ASSERT_LE(models.size(), kMaxEngineModels);
    EXPECT_TRUE(small.engines({{.url = "http://a", .models = models}, {.url = "http://b", .models = models}}));
    EXPECT_EQ(model_count(small.zone), models.size());
    EXPECT_TRUE(small.engines({{.url = "http://a", .models = models}, {.url = "http://c", .models = models}}));
    EXPECT_FALSE(small.engines({{.url = "http://a", .models = {"m0", "one-more"}}}));
}

TEST_F(Engines, ModelViewCounts) {
    ASSERT_TRUE(z.engines({{.url = "http://a", .max_running = 1}, {.url = "http://b", .max_running = 1}}));
    for (int i = 0; i < 5; ++i) {
        z.send(1);
    }
    ModelView view;
    ZoneLock lock(z.zone);
    ASSERT_TRUE(model_view(lock, 0, z.now, view));
    EXPECT_STREQ(view.name, "m");
    EXPECT_EQ(view.engines, 2u);
    EXPECT_EQ(view.usable, 2u);
    EXPECT_EQ(view.running, 2u);
    EXPECT_EQ(view.waiting, 3u);
    EXPECT_EQ(view.oldest_us, z.now);
    EXPECT_EQ(view.desired_engines, 5u);
    EXPECT_FALSE(model_view(lock, 1, z.now, view));
}

TEST_F(Engines, AnyThatIsUsableIsFoundButTheOneThatFailed) {
    ASSERT_TRUE(z.engines({{.url = "http://a"}, {.url = "http://b"}}));
    EngineReport loading = TestZone::report("c");
    loading.state = EngineState::loading;
    z.apply(loading);
    const auto found = [this](uint32_t but) {
        std::set<uint32_t> engines;
        const ZoneLock lock(z.zone);
        for (uint32_t random = 0; random < 12; ++random) {
            engines.insert(any_usable_engine(lock, z.now, random, but));
        }
        return engines;
    };
    EXPECT_EQ(found(kNone), (std::set<uint32_t>{0, 1})) << "each of them, and nobody who loads";
    EXPECT_EQ(found(0), std::set<uint32_t>{1});
    EXPECT_EQ(found(1), std::set<uint32_t>{0});
    ASSERT_TRUE(z.engines({{.url = "http://a"}}));
    EXPECT_EQ(found(0), std::set<uint32_t>{kNone});
}

}  // namespace
}  // namespace llm::core
