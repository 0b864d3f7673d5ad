// One nginx worker as the core sees it, driven by a stream of numbers: from a random generator (property
// test, torture) or from a fuzzer. Keeps its own books and compares.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ngx_module/core/dispatcher.hpp"

namespace llm::core {

// Where decisions come from: `next(n)` is in 0..n−1.
class Choices {
  public:
    virtual ~Choices() = default;
    virtual uint32_t next(uint32_t n) = 0;
    virtual bool done() const { return false; }
};

class RandomChoices : public Choices {
  public:
    explicit RandomChoices(uint64_t seed) : state_(seed * 2 + 1) {}
    uint32_t next(uint32_t n) override {
        state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<uint32_t>((state_ >> 33) % n);
    }

  private:
    uint64_t state_;
};

// A broken promise ends the program, under a fuzzer as in a forked child.
inline void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "broken: %s\n", what);
        std::abort();
    }
}

class Driver {
  public:
    static constexpr uint32_t kClients = 12;
    static constexpr uint32_t kEngineIds = 4;

    Driver(Zone& zone, Choices& choices, int64_t& now, int64_t& wall, int32_t pid)
        : zone_(zone), choices_(choices), now_(now), wall_(wall), pid_(pid) {
        attach();
    }

    uint32_t process() const { return process_; }
    size_t live() const { return tickets_.size(); }
    const std::map<uint64_t, Ticket>& tickets() const { return tickets_; }
    uint64_t accepted = 0;
    uint64_t ended = 0;
    uint64_t waited_again = 0;     // requests that retry() put back into the queue
    bool adjust_time = true;       // false: the caller's clock is real
    bool change_the_world = true;  // engines, clients, settings too, not only requests

    void load_clients() {
        ClientLoad loader = ClientLoad::begin(zone_);
        const uint32_t skip = choices_.next(kClients * 2);
        for (uint32_t id = 0; id < kClients; ++id) {
            if (id != skip) {
                loader.add(row(id));
            }
        }
        ZoneLock lock(zone_);
        loader.commit(lock, now_);
        refresh_accounts(lock, 1 + choices_.next(64), now_, wall_, wakes_);
    }

    void apply_engines() {
        static const std::string_view kModels[] = {"m", "k", "l"};
        EngineSpec specs[3];
        const uint32_t count = choices_.next(4);
        for (uint32_t i = 0; i < count; ++i) {
            static const char* kUrls[] = {"http://s0", "http://s1", "http://s2"};
            specs[i].url = kUrls[i];
            const uint32_t from = choices_.next(3);
            specs[i].models = kModels + from;
            specs[i].model_count = 1 + choices_.next(3 - from);
            specs[i].max_running = choices_.next(6);
            specs[i].org = choices_.next(2) != 0 ? "cs" : "";
            specs[i].backup = choices_.next(4) == 0;
            specs[i].address.length = choices_.next(8) != 0 ? 16 : 0;
        }
        ZoneLock lock(zone_);
        apply_static_engines(lock, specs, count, now_, wakes_);
    }

    void step() {
        const uint32_t op = choices_.next(change_the_world ? 40 : 28);
        if (op < 10) {
            send();
        } else if (op < 15) {
            end_one();
        } else if (op < 18) {
            listen(1 + choices_.next(8));
        } else if (op < 20) {
            cancel_one();
        } else if (op < 22) {
            stream_one();
        } else if (op < 23) {
            choices_.next(2) == 0 ? retry_one() : lose_engine(choices_.next(kEngineIds + 3));
        } else if (op < 24) {
            time_out_one();
        } else if (op < 25) {
            release_one();
        } else if (op < 28) {
            pass_time();
        } else if (op < 32) {
            report();
        } else if (op < 33) {
            apply_engines();
        } else if (op < 35) {
            change_settings();
        } else if (op < 37) {
            change_clients();
        } else if (op < 39) {
            administer();
        } else {
            restart();
        }
    }

    // Ends everything it still has.
    void finish_all() {
        while (!tickets_.empty()) {
            const uint64_t cookie = tickets_.begin()->first;
            const Ticket ticket = tickets_.begin()->second;
            ZoneLock lock(zone_);
            cancel(lock, ticket, Why::client_gone, now_, wakes_);
            forget(cookie);
        }
    }

    // Takes up what was granted, forgets what was ended from outside.
    void listen(uint32_t capacity) {
        Event events[16];
        ZoneLock lock(zone_);
        const uint32_t count = drain_events(lock, process_, events, capacity < 16 ? capacity : 16, now_);
        for (uint32_t i = 0; i < count; ++i) {
            const auto mine = tickets_.find(events[i].cookie);
            require(mine != tickets_.end(), "event of a request that is not mine");
            require(mine->second == events[i].ticket, "event with another ticket");
            if (events[i].kind == EventKind::granted) {
                uint32_t engine = kNone;
                EngineTarget target;
                if (choices_.next(8) != 0 && take_up(lock, events[i].ticket, now_, engine, wakes_)) {
                    require(engine_target(lock, engine, target), "granted an engine that does not exist");
                }
            } else {
                cancel(lock, events[i].ticket, Why::client_gone, now_, wakes_);
                forget(events[i].cookie);
            }
        }
    }

    // An engine dies: all that it was answering fails at once.
    void lose_engine(uint32_t engine) {
        const uint32_t retries = 1 + choices_.next(2);
        ZoneLock lock(zone_);
        for (const auto& [cookie, ticket] : tickets_) {
            RequestSnapshot r;
            if (snapshot_request(lock, ticket, r) && r.state == RequestState::running && r.engine == engine) {
                const RetryAnswer answer = retry(lock, ticket, Failure::reset, retries, WhenFull::wait, now_,
                                                 choices_.next(1 << 30), wakes_);
                waited_again += answer.action == RetryAction::wait ? 1 : 0;
            }
        }
    }

  private:
    ClientRow row(uint32_t id) {
        ClientRow r;
        r.hash = hash_token("driver-" + std::to_string(id));
        r.row_id = id;
        r.name = "driver";
        r.organisation = id % 3 == 0 ? "cs" : "";
        r.priority = static_cast<int32_t>(choices_.next(5));
        r.weight = choices_.next(3) == 0 ? 0.5 + choices_.next(8) : 0;
        r.band = static_cast<int32_t>(choices_.next(8)) / 6;
        r.threshold = choices_.next(4) == 0 ? static_cast<int32_t>(choices_.next(4)) : kUnlimited;
        r.max_running = choices_.next(4) == 0 ? 1 + choices_.next(3) : 0;
        r.tokens_per_minute = choices_.next(4) == 0 ? 1 + choices_.next(2000) : 0;
        r.expires_at = choices_.next(8) == 0 ? wall_ + choices_.next(30) : 0;
        r.disabled = choices_.next(20) == 0;
        return r;
    }

    void attach() {
        ZoneLock lock(zone_);
        process_ = attach_process(lock, pid_, 1, now_);
        require(process_ != kNone, "no process slot");
    }

    void restart() {
        if (choices_.next(2) == 0) {
            ZoneLock lock(zone_);
            detach_process(lock, process_, now_, wakes_);
        } else {
            ProcessView views[kMaxProcesses];
            const uint32_t count = list_processes(zone_, views, kMaxProcesses);
            ZoneLock lock(zone_);
            for (uint32_t i = 0; i < count; ++i) {
                if (views[i].slot == process_) {
                    reap_process(lock, process_, views[i].epoch, now_, wakes_);
                }
            }
        }
        ended += tickets_.size();
        tickets_.clear();
        attach();
    }

    void send() {
        static const std::string_view kModels[] = {"m", "k", "l", "nobody"};
        ClientView view;
        const uint32_t id = choices_.next(kClients);
        if (lookup_client(zone_, hash_token("driver-" + std::to_string(id)), now_, wall_, view) != Auth::ok) {
            return;
        }
        RequestArgs a;
        a.client = &view;
        a.model = kModels[choices_.next(16) % (choices_.next(8) == 0 ? 4 : 3)];
        a.mode = static_cast<RoutingMode>(choices_.next(6) % 3);
        a.client_priority = choices_.next(4) == 0 ? static_cast<int32_t>(choices_.next(6)) : -1;
        a.seats = choices_.next(8) == 0 ? 1 + choices_.next(5) : 1;
        a.prompt_tokens = choices_.next(3000);
        a.max_output_tokens = choices_.next(3) == 0 ? choices_.next(500) : 0;
        PrefixKeys keys;
        keys.bytes = choices_.next(100'000);
        for (uint32_t i = 0; i < keys.count(); ++i) {
            keys.key[i] = 1 + i + 100 * choices_.next(20);
        }
        a.prefix = choices_.next(3) != 0 ? &keys : nullptr;
        a.stream = choices_.next(2) != 0;
        a.observe = choices_.next(32) == 0;
        a.exceeds = choices_.next(16) == 0;
        a.process = choices_.next(64) == 0 ? kNone : process_;
        a.cookie = ++cookie_;
        a.random = choices_.next(0x7fffffff);
        ZoneLock lock(zone_);
        const Verdict v = submit(lock, a, now_, wall_, wakes_);
        if (v.decision == Decision::rejected) {
            require(!v.ticket.valid(), "ticket of a refused request");
            require(v.retry_after_ms <= 60'000, "retry_after_ms");
            return;
        }
        require(v.decision != Decision::queued || v.position >= 1, "position");
        require((v.decision == Decision::granted) == (v.engine != kNone), "engine of a verdict");
        tickets_[a.cookie] = v.ticket;
        accepted++;
    }

    bool pick(uint64_t& cookie, Ticket& ticket) {
        if (tickets_.empty()) {
            return false;
        }
        auto at = tickets_.begin();
        std::advance(at, choices_.next(static_cast<uint32_t>(tickets_.size() < 32 ? tickets_.size() : 32)));
        cookie = at->first;
        ticket = at->second;
        return true;
    }

    void forget(uint64_t cookie) { ended += tickets_.erase(cookie); }

    void end_one() {
        uint64_t cookie;
        Ticket ticket;
        if (!pick(cookie, ticket)) {
            return;
        }
        static const Outcome kEnds[] = {Outcome::completed, Outcome::completed, Outcome::engine_error,
                                        Outcome::timeout, Outcome::cancelled_running};
        Usage usage;
        usage.prompt_tokens = choices_.next(3000);
        usage.cached_tokens = choices_.next(3000);
        usage.completion_tokens = choices_.next(2000);
        usage.exact = choices_.next(2) != 0;
        ZoneLock lock(zone_);
        if (choices_.next(2) != 0) {
            static const uint32_t kStatus[] = {200, 200, 200, 400, 429, 500, 503};
            response_head(lock, ticket, kStatus[choices_.next(7)], now_, choices_.next(1 << 30), wakes_);
        }
        const RequestSummary summary = finish(lock, ticket, kEnds[choices_.next(5)], usage, now_, wakes_);
        if (summary.valid) {
            require(!finish(lock, ticket, Outcome::completed, usage, now_, wakes_).valid, "finished twice");
            forget(cookie);
        }
    }

    void cancel_one() {
        uint64_t cookie;
        Ticket ticket;
        if (pick(cookie, ticket)) {
            ZoneLock lock(zone_);
            require(cancel(lock, ticket, Why::client_gone, now_, wakes_), "lost a live request");
            require(!cancel(lock, ticket, Why::client_gone, now_, wakes_), "cancelled twice");
            forget(cookie);
        }
    }

    void stream_one() {
        uint64_t cookie;
        Ticket ticket;
        if (pick(cookie, ticket)) {
            ZoneLock lock(zone_);
            charge(lock, ticket, choices_.next(400), choices_.next(4) == 0, now_, wakes_);
            queue_position(lock, ticket);
        }
    }

    void retry_one() {
        uint64_t cookie;
        Ticket ticket;
        if (pick(cookie, ticket)) {
            ZoneLock lock(zone_);
            const RetryAnswer answer = retry(lock, ticket, static_cast<Failure>(choices_.next(7)),
                                             choices_.next(3),
                                             choices_.next(4) != 0 ? WhenFull::wait : WhenFull::fail, now_,
                                             choices_.next(1 << 30), wakes_);
            require((answer.action == RetryAction::again) == (answer.engine != kNone), "engine of a retry");
            waited_again += answer.action == RetryAction::wait ? 1 : 0;
        }
    }

    void time_out_one() {
        uint64_t cookie;
        Ticket ticket;
        if (pick(cookie, ticket)) {
            ZoneLock lock(zone_);
            const bool due = choices_.next(4) != 0 && set_queue_timeout(lock, ticket, 0, now_) == 0;
            const Timeout timeout = time_out(lock, ticket, now_, choices_.next(1 << 30), wakes_);
            require(!due || timeout.ended, "a queue timeout that is over");
            if (timeout.ended) {
                forget(cookie);
            }
        }
    }

    void release_one() {
        uint64_t cookie;
        Ticket ticket;
        if (pick(cookie, ticket)) {
            ZoneLock lock(zone_);
            release_lease(lock, ticket, now_, wakes_);
        }
    }

    void pass_time() {
        if (adjust_time) {
            now_ += choices_.next(16) == 0 ? choices_.next(70'000'000) : choices_.next(400'000);
            wall_ += choices_.next(2);
        }
        ZoneLock lock(zone_);
        if (choices_.next(8) != 0) {
            heartbeat(lock, process_, now_, wakes_);
        }
        sweep(lock, now_, wall_, choices_.next(1 << 30), wakes_);
    }

    void report() {
        EngineReport r;
        const uint32_t which = choices_.next(kEngineIds);
        r.id = "e" + std::to_string(which);
        r.url = choices_.next(8) == 0 ? "http://s0"
                                      : "http://e" + std::to_string(choices_.next(16) == 0 ? 9 : which);
        static const char* kModels[] = {"m", "k", "l"};
        for (uint32_t i = choices_.next(3); i < 3; ++i) {
            r.models.push_back(kModels[i]);
        }
        static const EngineState kStates[] = {
            EngineState::ready,   EngineState::ready,    EngineState::ready,  EngineState::ready,
            EngineState::loading, EngineState::draining, EngineState::failed, EngineState::gone};
        r.state = kStates[choices_.next(8)];
        r.org = choices_.next(3) == 0 ? "cs" : "";
        r.boot = 1 + now_ / 100'000'000 + choices_.next(2);
        r.seq = static_cast<uint64_t>(now_ / 1000) + choices_.next(3);
        r.ttl_ms = 300 + choices_.next(3000);
        r.max_running = 1 + choices_.next(6);
        r.preempts = choices_.next(3) == 0;
        r.running = choices_.next(6);
        r.waiting = choices_.next(8) == 0 ? choices_.next(4) : 0;
        r.has_counters = choices_.next(4) != 0;
        r.uptime_s = static_cast<double>(now_) / 1e6;
        r.decode_tokens = static_cast<double>(now_) / 1e4 * (choices_.next(8) == 0 ? -1 : 1);
        r.user_seconds = static_cast<double>(now_) / 1e6 * (1 + choices_.next(2));
        r.kv_usage = choices_.next(110) / 100.0;
        EnginePlace place;
        place.host = "host";
        place.address.length = 16;
        EngineMemo& memo = memos_[{r.id, r.url}];
        ZoneLock lock(zone_);
        const uint32_t expected = engine_of(lock, r);
        const ApplyResult result =
            apply_report(lock, r, choices_.next(8) == 0 ? nullptr : &place, now_, wakes_, memo);
        memo = result.memo.engine != kNone ? result.memo : memo;
        const bool follows =
            result.what == Applied::updated || result.what == Applied::old || result.what == Applied::gone;
        require(!follows || expected == kNone || result.engine == expected, "the engine of a report");
    }

    // The engine at a report's URL that the configuration lists, else that of its id; kNone if there is
    // neither.
    static uint32_t engine_of(const ZoneLock& lock, const EngineReport& r) {
        std::vector<EngineSnapshot> engines(lock.zone().plan().engines);
        uint32_t cursor = 0;
        engines.resize(snapshot_engines(lock, cursor, engines.data(), static_cast<uint32_t>(engines.size())));
        std::erase_if(engines, [](const EngineSnapshot& e) { return e.leaving; });
        for (const EngineSnapshot& e : engines) {
            if (e.is_static && r.url == e.url) {
                return e.engine;
            }
        }
        for (const EngineSnapshot& e : engines) {
            if (r.id == e.id) {
                return e.engine;
            }
        }
        return kNone;
    }

    void change_settings() {
        Settings s;
        s.scheduler = choices_.next(3) == 0 ? Scheduler::strict : Scheduler::weighted;
        s.threshold_scope = static_cast<ThresholdScope>(choices_.next(2));
        s.routing = static_cast<RoutingPolicy>(choices_.next(5));
        s.client_priority = static_cast<ClientPriority>(choices_.next(2));
        s.aging_us = choices_.next(3) == 0 ? -1 : choices_.next(5'000'000);
        s.queue_size = choices_.next(3) == 0 ? 1 + choices_.next(30) : 0;
        s.min_throughput = choices_.next(2) == 0 ? 0 : 1 + choices_.next(50);
        ZoneLock lock(zone_);
        apply_settings(lock, s, now_, wakes_);
    }

    void change_clients() {
        const uint32_t what = choices_.next(4);
        const ClientRow r = row(choices_.next(kClients));
        if (what == 0) {
            return load_clients();
        }
        ZoneLock lock(zone_);
        if (what == 1) {
            remove_client(lock, r.hash, r.row_id, now_, wall_, wakes_);
        } else {
            upsert_client(lock, r, now_, wall_, wakes_);
        }
    }

    void administer() {
        uint64_t cookie;
        Ticket ticket;
        const uint32_t what = choices_.next(5);
        if (what == 0) {
            ZoneLock lock(zone_);
            drain_engine(lock, "e" + std::to_string(choices_.next(kEngineIds)), choices_.next(2) != 0, now_,
                         wakes_);
        } else if (what == 1) {
            ZoneLock lock(zone_);
            set_redis_state(lock, choices_.next(4) != 0, now_);
        } else if (pick(cookie, ticket)) {
            ZoneLock lock(zone_);
            if (what == 2) {
                abort_request(lock, ticket, now_, wakes_);
            } else {
                set_priority(lock, ticket, static_cast<int32_t>(choices_.next(8)) - 1, now_, wakes_);
            }
        }
    }

    Zone& zone_;
    Choices& choices_;
    int64_t& now_;
    int64_t& wall_;
    int32_t pid_;
    uint32_t process_ = kNone;
    uint64_t cookie_ = 0;
    WakeSet wakes_;
    std::map<uint64_t, Ticket> tickets_;
    std::map<std::pair<std::string, std::string>, EngineMemo> memos_;  // by id and URL
};

}  // namespace llm::core
