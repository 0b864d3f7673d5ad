// Arrival: may this request run now, wait, or neither?
#include <algorithm>
#include <new>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

// What one submit() has worked out so far.
struct Arrival {
    const RequestArgs& args;
    const ClientView& client;
    Verdict verdict;
    uint32_t pool = kNone;
    uint32_t account = kNone;
    uint32_t prefer_org = kNone;
    int32_t level_class = 0;
    bool low = false;
    PrefixKeys prefix = {};  // args.prefix, of this model; or none
};

void reject(Core& c, Arrival& a, Outcome reason) {
    Verdict& v = a.verdict;
    v.decision = Decision::rejected;
    v.reason = reason;
    if (a.pool == kNone) {
        v.retry_after_ms = reason == Outcome::rejected_no_engine
                               ? static_cast<uint32_t>(wait_for_an_engine_us(a.args.random) / 1000)
                               : 1000 + a.args.random % 1000;
        v.reset_ms = v.retry_after_ms;
        return;
    }
    Account* account = a.account != kNone ? &c.accounts[a.account] : nullptr;
    const RetryHint hint = retry_hint(c, c.pools[a.pool], account, reason, a.args.random);
    v.retry_after_ms = hint.retry_after_ms;
    v.should_retry = hint.should_retry;
    v.reset_ms = hint.reset_ms;
}

// The client's own priority, or the lower one it asked for. Never below 1 unless its own is 0.
int32_t effective_priority(const Core& c, const Arrival& a, bool& low) {
    const int32_t own = a.client.priority;
    int32_t wanted = a.args.client_priority;
    low = false;
    if (wanted < 0 || c.header.settings.client_priority == ClientPriority::ignore) {
        return own;
    }
    if (wanted < 1) {
        wanted = own < 1 ? own : 1;
    }
    low = wanted < own;
    return low ? wanted : own;
}

// The usable engine of the pool with the least relative load, room or not (llm_observe).
uint32_t least_loaded(const Core& c, const Pool& p) {
    uint32_t best = kNone;
    for_engines_of(c, p.model, [&](uint32_t i) {
        const Engine& e = c.engines[i];
        if (engine_usable(e) && engine_serves(c, e, p) &&
            (best == kNone || load_with_one_more(e) < load_with_one_more(c.engines[best]))) {
            best = i;
        }
        return true;
    });
    return best;
}

// Why a request that cannot be dispatched at once may not wait either; `completed` = it may.
Outcome waiting_refused(Core& c, const Arrival& a) {
    const Account& account = c.accounts[a.account];
    const uint32_t model = a.verdict.model;
    const bool whole_queue = a.args.exceeds || c.header.settings.threshold_scope == ThresholdScope::queue;
    const uint32_t waiting = whole_queue ? c.models[model].waiting : waiting_of(c, account, model);
    if (a.client.threshold != kUnlimited) {
        const auto threshold = static_cast<uint32_t>(a.client.threshold < 0 ? 0 : a.client.threshold);
        if (a.args.exceeds ? waiting > threshold : waiting >= threshold) {
            if (threshold == 0 && account.held_running != 0) {
                return Outcome::rejected_max_running;
            }
            if (threshold == 0 && account.held_tokens != 0) {
                return Outcome::rejected_tokens_per_minute;
            }
            return Outcome::rejected_threshold;
        }
    }
    const uint32_t most = c.header.settings.queue_size;
    return most != 0 && c.header.queued >= most ? Outcome::rejected_queue_full : Outcome::completed;
}

// Fills a free slot with the request's facts; the state is still `free`.
Request* make_request(Core& c, const Arrival& a) {
    if (!has_slot(c.header.free_requests, c.header.request_end, c.header.plan.requests)) {
        return nullptr;
    }
    const uint32_t standing = open_standing(c, a.account, domain_of(c, c.pools[a.pool]));
    if (standing == kNone) {
        return nullptr;
    }
    const RequestArgs& args = a.args;
    Request& r =
        c.requests[take_slot(c.requests, c.header.free_requests, c.header.request_end, &Request::flow_next)];
    const uint32_t generation = r.generation + 1;
    r = Request{};
    r.generation = generation;
    r.seq = c.header.next_seq++;
    r.cookie = args.cookie;
    r.process = args.process;
    r.process_epoch = c.processes[args.process].epoch;
    r.account = a.account;
    r.standing = standing;
    r.pool = a.pool;
    r.model = a.verdict.model;
    r.priority = a.verdict.priority;
    r.seats = args.seats >= 1 ? args.seats : 1;
    r.prompt_tokens = args.prompt_tokens;
    r.predicted = args.max_output_tokens;
    r.flow = r.flow_next = r.flow_prev = kNone;
    r.process_next = r.process_prev = r.mail_next = r.mail_prev = kNone;
    r.engine = kNone;
    r.prefer_org = a.prefer_org;
    r.arrived_us = r.queued_us = c.now;
    r.deadline_us = c.now + args.queue_timeout_us;
    r.timeout_ms = static_cast<uint32_t>(std::clamp<int64_t>(args.queue_timeout_us / 1000, 0, UINT32_MAX));
    c.request_prefixes[index_of(c, r)] = a.prefix;
    r.stream = args.stream ? 1 : 0;
    r.low = a.low ? 1 : 0;
    r.anonymous = a.client.anonymous ? 1 : 0;
    for (uint32_t& engine : r.tried) {
        engine = kNone;
    }
    claim_account(c, a.account);
    link_to_process(c, r);
    return &r;
}

void finish_granted(Core& c, Arrival& a, Request& r) {
    Verdict& v = a.verdict;
    v.decision = Decision::granted;
    v.ticket = {index_of(c, r), r.generation};
    v.engine = r.engine;
    observe_wait(c, r, c.now - r.arrived_us);
}

bool grant_now(Core& c, Arrival& a, uint32_t engine) {
    Request* r = make_request(c, a);
    if (r == nullptr) {
        reject(c, a, Outcome::rejected_queue_full);
        return false;
    }
    grant(c, *r, engine, true);
    finish_granted(c, a, *r);
    return true;
}

void queue(Core& c, Arrival& a) {
    Request* r = make_request(c, a);
    if (r == nullptr) {
        return reject(c, a, Outcome::rejected_queue_full);
    }
    LLM_LABEL();
    set_state(*r, RequestState::queued);
    LLM_LABEL();
    join_waiting(c, *r);
    if (!enqueue(c, *r, true)) {
        free_request(c, *r);
        return reject(c, a, Outcome::rejected_queue_full);
    }
    run_pool(c, a.pool);
    Verdict& v = a.verdict;
    if (state_of(*r) == RequestState::granted) {
        // Its turn came within this very call: no mail needed.
        take_mail(c, *r);
        unlink_grant(c, *r);
        set_state(*r, RequestState::running);
        LLM_TRACE(c, TraceKind::started, *r);
        c.header.running++;
        return finish_granted(c, a, *r);
    }
    v.decision = Decision::queued;
    v.ticket = {index_of(c, *r), r->generation};
    v.position = position_of(c, *r);
}

bool anybody_eligible(const Core& c, uint32_t engine) {
    const Engine& e = c.engines[engine];
    for (uint32_t m = 0; m < e.model_count; ++m) {
        for (uint32_t i = c.models[e.models[m]].pools_head; i != kNone; i = c.pools[i].next) {
            for (uint32_t l = c.pools[i].levels_head; l != kNone; l = c.levels[l].next) {
                if (c.levels[l].order_min != kNone) {
                    return true;
                }
            }
        }
    }
    return false;
}

// Model, rights, pool and account of the request. False: rejected already.
bool identify(Core& c, Arrival& a) {
    Verdict& v = a.verdict;
    v.priority = effective_priority(c, a, a.low);  // a refusal's line in the access log tells it too
    v.model = find_model_locked(c, a.args.model);
    if (v.model == kNone) {
        reject(c, a, Outcome::rejected_model_not_found);
        return false;
    }
    if (!client_may_use(a.client, a.args.model)) {
        v.would = Outcome::rejected_model_not_allowed;
        if (!a.args.observe) {
            reject(c, a, Outcome::rejected_model_not_allowed);
            return false;
        }
    }
    uint32_t org = kNone;
    if (a.args.mode != RoutingMode::any && a.client.organisation[0] != '\0') {
        org = find_org(c, a.client.organisation);
    }
    if (a.args.mode == RoutingMode::private_only && org == kNone) {
        reject(c, a, Outcome::rejected_no_engine);
        return false;
    }
    a.prefer_org = a.args.mode == RoutingMode::private_first ? org : kNone;
    const uint32_t pool_org = a.args.mode == RoutingMode::private_only ? org : kNone;
    a.pool = find_pool(c, v.model, pool_org);
    if (a.pool == kNone) {
        // No place is made for what nobody serves: there are fewer of them than models times organisations.
        Pool wanted{};
        wanted.model = v.model;
        wanted.org = pool_org;
        if (pool_usable(c, wanted) == Usable::none) {
            reject(c, a, Outcome::rejected_no_engine);
            return false;
        }
        a.pool = open_pool(c, v.model, pool_org);
    }
    a.account = a.pool != kNone ? open_account(c, a.client) : kNone;
    if (a.account == kNone) {
        reject(c, a, Outcome::rejected_queue_full);
        return false;
    }
    a.level_class = class_of(c, c.accounts[a.account], v.priority);
    v.engine_class = engine_class_of(a.level_class);
    if (pool_usable(c, c.pools[a.pool]) == Usable::none) {
        reject(c, a, Outcome::rejected_no_engine);
        return false;
    }
    return true;
}

void limits_headers(const Core& c, Arrival& a) {
    Verdict& v = a.verdict;
    const bool whole_queue = a.args.exceeds || c.header.settings.threshold_scope == ThresholdScope::queue;
    const uint32_t waiting = a.account == kNone || a.client.threshold == kUnlimited ? 0
                             : whole_queue ? c.models[v.model].waiting
                                           : waiting_of(c, c.accounts[a.account], v.model);
    const QueueRoom room = queue_room(c, a.client.threshold, waiting);
    v.limit_requests = room.limit;
    v.remaining_requests = room.remaining;
}

void decide(Core& c, Arrival& a) {
    Verdict& v = a.verdict;
    if (a.args.prefix != nullptr) {
        a.prefix = keys_for_model(*a.args.prefix, v.model);
    }
    refresh_hold(c, a.account);
    const bool held = held_back(c.accounts[a.account]);
    if (!held) {
        const Prompt prompt{a.args.prompt_tokens, a.prefix};
        uint32_t engine =
            choose_engine(c, c.pools[a.pool], a.prefer_org, a.level_class, prompt, a.args.random);
        if (engine != kNone && c.header.queued != 0 && anybody_eligible(c, engine)) {
            // Time alone made room (a breaker's pause is over): those who wait come first.
            run_engine(c, engine);
            engine = choose_engine(c, c.pools[a.pool], a.prefer_org, a.level_class, prompt, a.args.random);
        }
        if (engine != kNone) {
            grant_now(c, a, engine);
            return;
        }
    }
    const Outcome refused = waiting_refused(c, a);
    if (a.args.observe) {
        const uint32_t engine = least_loaded(c, c.pools[a.pool]);
        if (engine != kNone) {
            v.would = v.would != Outcome::completed ? v.would : refused;
            v.would_queue = refused == Outcome::completed;
            grant_now(c, a, engine);
            return;
        }
    }
    if (refused != Outcome::completed) {
        return reject(c, a, refused);
    }
    queue(c, a);
}

}  // namespace

Verdict submit(const ZoneLock& lock, const RequestArgs& args, int64_t now_us, int64_t wall_s,
               WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    if (args.process < kMaxProcesses) {
        beat(c, args.process);
    } else if (c.header.run_pending != 0) {
        run_all(c);
    }
    alignas(ClientView) unsigned char again[sizeof(ClientView)];  // large, and hardly ever needed
    const ClientView* client = args.client;
    bool valid = true;
    const uint32_t epoch = c.header.clients_epoch;
    if (!client->anonymous &&
        (client->epoch != epoch || client->version != c.header.tables[epoch & 1].version)) {
        // The table has changed since the lookup: the token may have been revoked.
        auto* const current = new (again) ClientView;
        valid = lookup_row_locked(c, client->hash, *current);
        client = valid ? current : client;
    }
    Arrival a{args, *client, {}};
    if (!valid || !view_is_valid(*client, wall_s)) {
        reject(c, a, Outcome::rejected_invalid_api_key);
        return a.verdict;
    }
    if (args.process >= kMaxProcesses || c.processes[args.process].used == 0) {
        // Nobody could give its lease back if the caller died.
        a.verdict.model = find_model_locked(c, args.model);
        reject(c, a, Outcome::rejected_queue_full);
    } else if (identify(c, a)) {
        decide(c, a);
    }
    limits_headers(c, a);
    if (args.observe) {
        bump(c.header.counters.observed_rejections, uint64_t{a.verdict.would != Outcome::completed});
        bump(c.header.counters.observed_queued, uint64_t{a.verdict.would_queue});
    }
    return a.verdict;
}

}  // namespace llm::core
