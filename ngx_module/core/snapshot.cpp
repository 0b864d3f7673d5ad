#include "ngx_module/core/snapshot.hpp"

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kLookAtMost = 1024;

// A walk ends at the size of its table, but there is nothing to see behind the entries ever used.
void skip_unused(uint32_t& cursor, uint32_t end, uint32_t size) {
    cursor = cursor >= end ? size : cursor;
}

void copy_request(const Tables& t, const Request& r, RequestSnapshot& out) {
    const Account& a = t.accounts[r.account];
    out = RequestSnapshot();
    out.ticket = {index_of(t, r), r.generation};
    out.state = state_of(r);
    std::memcpy(out.client, a.name, sizeof out.client);
    out.model = r.model;
    out.engine = r.lease != 0 ? r.engine : kNone;
    out.priority = r.priority;
    out.level_class = class_of(t, a, r.priority);
    out.seats = r.seats;
    out.attempts = r.attempts;
    out.prompt_tokens = r.prompt_tokens;
    out.completion_tokens = r.completion_tokens;
    out.stream = r.stream != 0;
    out.held_back = out.state == RequestState::queued && held_back(a);
    out.parked = r.parked != 0;
    out.arrived_us = r.arrived_us;
    out.queued_us = r.queued_us;
    out.dispatched_us = r.dispatched_us;
}

void copy_engine(const Tables& t, uint32_t index, EngineSnapshot& out) {
    const Engine& e = t.engines[index];
    out = EngineSnapshot();
    out.engine = index;
    std::memcpy(out.id, e.id, sizeof out.id);
    std::memcpy(out.url, e.url, sizeof out.url);
    if (e.org != kNone) {
        std::memcpy(out.org, t.orgs[e.org].name, sizeof out.org);
    }
    out.state = e.state;
    out.breaker = e.breaker;
    out.is_static = e.is_static != 0;
    out.backup = e.backup != 0;
    out.drained = e.drained != 0;
    out.leaving = e.leaving != 0;
    out.usable = engine_usable(e);
    out.slow_start = e.slow_start != 0;
    out.below_minimum = e.below_minimum != 0;
    out.has_report = e.announced != 0;
    out.model_count = e.model_count;
    std::memcpy(out.models, e.models, e.model_count * sizeof(uint32_t));
    out.held = e.held;
    out.foreign = e.foreign;
    out.max_running = e.max_running;
    out.reported_running = e.reported_running;
    out.reported_waiting = e.reported_waiting;
    out.limit = e.limit;
    out.speed = e.eu > 0 ? e.et / e.eu : 0;
    out.minimum = minimum_of(t, e);
    out.tokens_per_second = e.announced != 0 ? e.tokens_per_second : e.et;
    out.tokens_per_second_per_user = e.announced != 0 ? e.tokens_per_second_per_user : out.speed;
    out.kv_usage = e.kv_usage;
    out.report_us = e.report_us;
    out.report_ttl_us = e.ttl_us;
    out.served = e.served;
    out.failures = e.failures;
}

// The first count that does not follow from the request table; null when all do.
class Checker {
  public:
    explicit Checker(Core& c) : c_(c) {}

    const char* run() {
        for (uint32_t i = 0; i < c_.header.request_end && wrong_ == nullptr; ++i) {
            count_request(c_.requests[i]);
        }
        expect(queued_ == c_.header.queued, "header.queued");
        expect(granted_ == c_.header.granted, "header.granted");
        expect(running_ == c_.header.running, "header.running");
        expect(held_ == c_.header.held, "header.held");
        for (uint32_t i = 0; i < c_.header.account_end && wrong_ == nullptr; ++i) {
            check_account(i);
        }
        for (uint32_t i = 0; i < c_.header.engine_end && wrong_ == nullptr; ++i) {
            check_engine(i);
        }
        for (uint32_t i = 0; i < c_.header.level_end && wrong_ == nullptr; ++i) {
            check_level(i);
        }
        for (uint32_t i = 0; i < c_.header.pool_end && wrong_ == nullptr; ++i) {
            check_pool(i);
        }
        return wrong_;
    }

  private:
    void expect(bool holds, const char* what) {
        if (!holds && wrong_ == nullptr) {
            wrong_ = what;
        }
    }

    void count_request(const Request& r) {
        const RequestState state = state_of(r);
        if (state == RequestState::free) {
            expect(r.lease == 0, "free request holds a lease");
            return;
        }
        queued_ += state == RequestState::queued ? 1 : 0;
        granted_ += state == RequestState::granted ? 1 : 0;
        running_ += state == RequestState::running ? 1 : 0;
        held_ += r.lease != 0 ? r.seats : 0;
        expect(r.lease == 0 || state == RequestState::granted || state == RequestState::running,
               "lease of a waiting request");
        expect(state != RequestState::granted || r.lease != 0, "granted without a lease");
        expect(state == RequestState::queued || r.flow == kNone, "flow of a request that does not wait");
        expect(state != RequestState::queued || (r.flow != kNone) != (r.parked != 0),
               "waits neither in a flow nor parked");
        expect(state == RequestState::queued || c_.pools[r.pool].temporary == 0, "in a temporary pool, not waiting");
    }

    void check_account(uint32_t i) {
        const Account& a = c_.accounts[i];
        if (a.used == 0) {
            return;
        }
        uint32_t running = 0;
        uint32_t waiting = 0;
        uint32_t live = 0;
        if (a.live != 0 || a.running != 0 || a.waiting != 0) {
            for (uint32_t k = 0; k < c_.header.request_end; ++k) {
                const Request& r = c_.requests[k];
                if (state_of(r) != RequestState::free && r.account == i) {
                    live++;
                    waiting += state_of(r) == RequestState::queued ? 1 : 0;
                    running += r.lease != 0 ? r.seats : 0;
                }
            }
        }
        expect(a.running == running, "account.running");
        expect(a.waiting == waiting, "account.waiting");
        expect(a.live == live, "account.live");
        expect((a.live == 0) == (a.idle != 0), "account.idle");
        for (uint32_t s = a.standings_head; s != kNone; s = c_.standings[s].next) {
            uint32_t backlogged = 0;
            for (uint32_t f = c_.standings[s].flows_head; f != kNone; f = c_.flows[f].next) {
                backlogged += c_.flows[f].place == Place::in ? 1 : 0;
                expect(c_.flows[f].place == (held_back(a) ? Place::out : Place::in), "flow.place");
                expect(c_.flows[f].count != 0, "empty flow");
                check_flow(c_.flows[f]);
            }
            expect(backlogged == c_.standings[s].backlogged, "standing.backlogged");
        }
    }

    void check_flow(const Flow& f) {
        uint32_t count = 0;
        uint64_t seq = 0;
        for (uint32_t i = f.head; i != kNone && count <= f.count; i = c_.requests[i].flow_next) {
            expect(state_of(c_.requests[i]) == RequestState::queued,
                   "flow holds a request that does not wait");
            expect(c_.requests[i].seq > seq, "flow out of order");
            seq = c_.requests[i].seq;
            count++;
        }
        expect(count == f.count, "flow.count");
        expect(f.place != Place::in || f.key_seq == c_.requests[f.head].seq, "flow.key_seq");
        expect(f.place != Place::in || c_.header.settings.scheduler == Scheduler::strict ||
                   f.key_vt == c_.standings[f.standing].vt,
               "flow.key_vt");
    }

    void check_engine(uint32_t i) {
        const Engine& e = c_.engines[i];
        uint32_t held = 0;
        if (e.used != 0) {
            for (uint32_t k = 0; k < c_.header.request_end; ++k) {
                const Request& r = c_.requests[k];
                held += r.lease != 0 && r.engine == i ? r.seats : 0;
            }
        }
        uint32_t by_class = 0;
        for (const ClassHeld& entry : e.by_class) {
            by_class += entry.held;
        }
        expect(e.used == 0 || e.held == held, "engine.held");
        expect(e.used == 0 || by_class == held, "engine.by_class");
        expect(e.used == 0 || (e.limit >= 1 && e.limit <= (e.max_running > 1 ? e.max_running : 1)),
               "engine.limit");
    }

    uint32_t count_tree(uint32_t root, bool order, uint32_t depth) {
        if (root == kNone || depth > 200) {
            return 0;
        }
        const Flow& f = c_.flows[root];
        return 1 + count_tree(order ? f.order_left : f.age_left, order, depth + 1) +
               count_tree(order ? f.order_right : f.age_right, order, depth + 1);
    }

    void check_level(uint32_t i) {
        const Level& level = c_.levels[i];
        if (level.used == 0) {
            return;
        }
        uint32_t flows = 0;
        uint32_t in_queue = 0;
        uint32_t waiting = 0;
        for (uint32_t k = 0; k < c_.header.flow_end; ++k) {
            const Flow& f = c_.flows[k];
            if (f.used != 0 && f.level == i) {
                flows++;
                in_queue += f.place == Place::in ? 1 : 0;
                waiting += f.count;
            }
        }
        expect(level.flows == flows && flows != 0, "level.flows");
        expect(level.waiting == waiting, "level.waiting");
        expect(count_tree(level.order_root, true, 0) == in_queue, "level.order tree");
        expect(count_tree(level.age_root, false, 0) == in_queue, "level.age tree");
        uint32_t min = level.order_root;
        while (min != kNone && c_.flows[min].order_left != kNone) {
            min = c_.flows[min].order_left;
        }
        expect(min == level.order_min, "level.order_min");
    }

    void check_pool(uint32_t i) {
        const Pool& p = c_.pools[i];
        if (p.used == 0) {
            return;
        }
        uint32_t waiting = 0;
        for (uint32_t k = 0; k < c_.header.request_end; ++k) {
            const Request& r = c_.requests[k];
            waiting += state_of(r) == RequestState::queued && r.pool == i ? 1 : 0;
        }
        expect(p.waiting == waiting, "pool.waiting");
        expect(p.temporary == 0 || waiting != 0, "temporary pool in which nobody waits");
        // Work conservation: nobody eligible waits for a pool that has room.
        for (uint32_t l = p.levels_head; l != kNone; l = c_.levels[l].next) {
            if (c_.levels[l].order_min == kNone) {
                continue;
            }
            for_engines_of(c_, p.model, [&](uint32_t e) {
                const bool idle = engine_usable(c_.engines[e]) && engine_serves(c_, c_.engines[e], p) &&
                                  room_for(c_, c_.engines[e], c_.levels[l].level_class).open;
                expect(!idle || c_.header.run_pending != 0, "free room and an eligible request");
                return true;
            });
        }
    }

    Core& c_;
    const char* wrong_ = nullptr;
    uint32_t queued_ = 0;
    uint32_t granted_ = 0;
    uint32_t running_ = 0;
    uint32_t held_ = 0;
};

}  // namespace

uint32_t snapshot_requests(const ZoneLock& lock, uint32_t& cursor, RequestSnapshot* out, uint32_t capacity) {
    Tables t(lock.zone());
    uint32_t copied = 0;
    for (uint32_t n = 0; n < kLookAtMost && cursor < t.header.request_end && copied < capacity;
         ++n, ++cursor) {
        if (state_of(t.requests[cursor]) != RequestState::free) {
            copy_request(t, t.requests[cursor], out[copied++]);
        }
    }
    skip_unused(cursor, t.header.request_end, t.header.plan.requests);
    return copied;
}

bool snapshot_request(const ZoneLock& lock, Ticket ticket, RequestSnapshot& out) {
    Tables t(lock.zone());
    const Request* r = find_request(t, ticket);
    if (r == nullptr) {
        return false;
    }
    copy_request(t, *r, out);
    return true;
}

uint32_t snapshot_engines(const ZoneLock& lock, uint32_t& cursor, EngineSnapshot* out, uint32_t capacity) {
    Tables t(lock.zone());
    uint32_t copied = 0;
    for (; cursor < t.header.engine_end && copied < capacity; ++cursor) {
        if (t.engines[cursor].used != 0) {
            copy_engine(t, cursor, out[copied++]);
        }
    }
    skip_unused(cursor, t.header.engine_end, t.header.plan.engines);
    return copied;
}

uint32_t snapshot_accounts(const ZoneLock& lock, uint32_t& cursor, AccountSnapshot* out, uint32_t capacity,
                           int64_t now_us) {
    WakeSet none;
    Core c(lock, now_us, none);
    uint32_t copied = 0;
    for (uint32_t n = 0; n < kLookAtMost && cursor < c.header.account_end && copied < capacity;
         ++n, ++cursor) {
        Account& a = c.accounts[cursor];
        if (a.used == 0) {
            continue;
        }
        AccountSnapshot& s = out[copied++];
        s = AccountSnapshot();
        std::memcpy(s.name, a.name, sizeof s.name);
        ClientView view;
        if (a.anonymous == 0 && lookup_row_locked(c, a.hash, view)) {
            std::memcpy(s.organisation, view.organisation, sizeof s.organisation);
        }
        s.priority = a.priority;
        s.weight = weight_of(c, a, a.priority);
        s.band = a.band;
        s.running = a.running;
        s.waiting = a.waiting;
        s.threshold = a.threshold;
        s.max_running = a.max_running;
        s.tokens_per_minute = a.tokens_per_minute;
        s.tokens_last_minute = window_tokens(c, a);
        s.prompt_tokens = a.prompt_tokens;
        s.completion_tokens = a.completion_tokens;
    }
    skip_unused(cursor, c.header.account_end, c.header.plan.accounts);
    return copied;
}

QueueTotals queue_totals(const ZoneLock& lock) {
    const ZoneHeader& h = *lock.zone().header();
    return {h.queued, h.granted, h.running, h.held};
}

bool check_zone(const ZoneLock& lock, const char** where) {
    WakeSet none;
    Core c(lock, 0, none);
    const char* wrong = Checker(c).run();
    if (where != nullptr) {
        *where = wrong != nullptr ? wrong : "";
    }
    return wrong == nullptr;
}

}  // namespace llm::core
