#include "tests/unit/core/harness.hpp"

#include <algorithm>

namespace llm::core {

TestZone::TestZone(size_t bytes) : memory_(std::aligned_alloc(64, bytes)), bytes_(bytes) {
    EXPECT_TRUE(format_zone(memory_.get(), bytes));
    EXPECT_TRUE(zone.attach(memory_.get(), bytes, LockOps{[](void*) {}, [](void*) {}, nullptr}));
    process = attach(1000);
}

TestZone::~TestZone() {
    const char* where = nullptr;
    ZoneLock lock(zone);
    EXPECT_TRUE(check_zone(lock, &where)) << where;
}

uint32_t TestZone::attach(int32_t pid) {
    ZoneLock lock(zone);
    return attach_process(lock, pid, 7, now);
}

void TestZone::settings(const Settings& s) {
    ZoneLock lock(zone);
    apply_settings(lock, s, now, wakes);
}

void TestZone::load(const std::vector<TestClient>& clients) {
    ClientLoad loader = ClientLoad::begin(zone);
    for (const TestClient& client : clients) {
        EXPECT_EQ(loader.add(row(client)), RowResult::added);
    }
    ZoneLock lock(zone);
    EXPECT_TRUE(loader.commit(lock, now));
    while (!refresh_accounts(lock, 64, now, wall, wakes)) {
    }
}

ClientRow TestZone::row(const TestClient& client) {
    ClientRow r;
    r.hash = hash_of(client.id);
    r.row_id = client.id;
    names().push_back(std::make_unique<std::string>("client" + std::to_string(client.id)));
    r.name = *names().back();
    r.organisation = client.organisation;
    r.models = client.models;
    r.priority = client.priority;
    r.weight = client.weight;
    r.band = client.band;
    r.threshold = client.threshold;
    r.max_running = client.max_running;
    r.tokens_per_minute = client.tokens_per_minute;
    r.expires_at = client.expires_at;
    r.disabled = client.disabled;
    return r;
}

bool TestZone::engines(const std::vector<Static>& list) {
    std::vector<EngineSpec> specs;
    std::vector<std::vector<std::string_view>> models;
    models.reserve(list.size());
    for (const Static& e : list) {
        models.emplace_back(e.models.begin(), e.models.end());
        EngineSpec spec;
        spec.id = e.id;
        spec.url = e.url;
        spec.host = e.url;
        spec.models = models.back().data();
        spec.model_count = static_cast<uint32_t>(models.back().size());
        spec.max_running = e.max_running;
        spec.org = e.org;
        spec.backup = e.backup;
        spec.address.length = 16;
        spec.keys = e.keys;
        specs.push_back(spec);
    }
    ZoneLock lock(zone);
    return apply_static_engines(lock, specs.data(), static_cast<uint32_t>(specs.size()), now, wakes);
}

EngineReport TestZone::report(const std::string& id, uint64_t boot, uint64_t seq) {
    EngineReport r;
    r.id = id;
    r.url = "http://" + id + ":8000";
    r.models = {"m"};
    r.state = EngineState::ready;
    r.boot = boot;
    r.seq = seq;
    r.ttl_ms = 3000;
    r.max_running = 64;
    return r;
}

ApplyResult TestZone::apply(const EngineReport& r) {
    EnginePlace place;
    place.host = r.url;
    place.address.length = 16;
    EngineMemo& memo = memos_[{r.id, r.url}];
    ZoneLock lock(zone);
    const ApplyResult result = apply_report(lock, r, &place, now, wakes, memo);
    memo = result.memo.engine != kNone ? result.memo : memo;
    return result;
}

ClientView TestZone::client(uint32_t id) {
    ClientView view;
    EXPECT_EQ(lookup_client(zone, hash_of(id), now, wall, view), Auth::ok);
    return view;
}

RequestArgs TestZone::args() {
    RequestArgs a;
    a.model = "m";
    a.stream = true;
    a.prompt_tokens = 100;
    a.process = process;
    a.random = ++random_;
    return a;
}

Verdict TestZone::send(uint32_t client_id, RequestArgs a) {
    const ClientView view = client(client_id);
    a.client = &view;
    a.cookie = a.cookie != 0 ? a.cookie : client_id;
    ZoneLock lock(zone);
    return submit(lock, a, now, wall, wakes);
}

RequestSummary TestZone::end(Ticket ticket, uint32_t prompt, uint32_t completion, Outcome outcome) {
    ZoneLock lock(zone);
    Usage usage;
    usage.prompt_tokens = prompt;
    usage.completion_tokens = completion;
    usage.exact = true;
    return finish(lock, ticket, outcome, usage, now, wakes);
}

void TestZone::abandon(Ticket ticket, Outcome outcome) {
    ZoneLock lock(zone);
    llm::core::abandon(lock, ticket, outcome, Usage(), now, wakes);
}

bool TestZone::drop(Ticket ticket) {
    ZoneLock lock(zone);
    return cancel(lock, ticket, Why::client_gone, now, wakes);
}

std::vector<Event> TestZone::events(uint32_t of) {
    std::vector<Event> all;
    Event batch[8];
    ZoneLock lock(zone);
    for (uint32_t n; (n = drain_events(lock, of, batch, 8, now)) != 0;) {
        all.insert(all.end(), batch, batch + n);
    }
    for (const Event& event : all) {
        RequestSnapshot r;
        if (snapshot_request(lock, event.ticket, r) && r.state == RequestState::ended) {
            cancel(lock, event.ticket, Why::refused, now, wakes);
        }
    }
    return all;
}

std::vector<uint64_t> TestZone::take_all(std::vector<Ticket>* tickets) {
    std::vector<uint64_t> cookies;
    for (const Event& event : events()) {
        ZoneLock lock(zone);
        uint32_t engine;
        if (event.kind == EventKind::granted && take_up(lock, event.ticket, now, engine, wakes)) {
            cookies.push_back(event.cookie);
            if (tickets != nullptr) {
                tickets->push_back(event.ticket);
            }
        }
    }
    return cookies;
}

SweepResult TestZone::tick(int64_t us, bool beat) {
    now += us;
    ZoneLock lock(zone);
    if (beat) {
        heartbeat(lock, process, now, wakes);
    }
    return sweep(lock, now, wall, ++random_, wakes);
}

SweepResult TestZone::pass(int64_t us) {
    SweepResult all;
    for (int64_t left = us; left > 0; left -= 1'000'000) {
        const SweepResult swept = tick(std::min<int64_t>(left, 1'000'000));
        const uint32_t before = all.lost_engines;
        all = swept.lost_engines != 0 ? swept : all;
        all.lost_engines = before + swept.lost_engines;
    }
    return all;
}

QueueTotals TestZone::totals() {
    ZoneLock lock(zone);
    return queue_totals(lock);
}

EngineSnapshot TestZone::engine(uint32_t index) {
    ZoneLock lock(zone);
    uint32_t cursor = index;
    EngineSnapshot snapshot;
    EXPECT_EQ(snapshot_engines(lock, cursor, &snapshot, 1), 1u);
    return snapshot;
}

std::vector<std::string> TestZone::ids() {
    std::vector<std::string> found;
    ZoneLock lock(zone);
    EngineSnapshot snapshot;
    for (uint32_t cursor = 0; snapshot_engines(lock, cursor, &snapshot, 1) == 1;) {
        found.emplace_back(snapshot.id);
    }
    return found;
}

std::string TestZone::check() {
    const char* where = nullptr;
    ZoneLock lock(zone);
    return check_zone(lock, &where) ? "" : where;
}

std::vector<std::unique_ptr<std::string>>& TestZone::names() {
    static std::vector<std::unique_ptr<std::string>> list;
    return list;
}

}  // namespace llm::core
