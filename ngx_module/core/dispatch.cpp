// Dispatch: which waiting request gets a free place, and which engine with room a request goes to.
//
// Work conservation is the invariant: free room and an eligible waiting request never coexist when the lock
// is released. Whoever changes the state (arrival, release, report, new engine) runs the dispatcher for what
// changed.
#include <cmath>
#include <limits>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kAgedEvery = 10;   // at most one of so many dispatches may pass a stricter class
constexpr double kPromptOffset = 64;  // tokens; short prompts go where there is room, whoever has seen them
constexpr uint32_t kPreemptSurplus = 2;  // over max_running, for a stricter class on an engine that preempts

uint32_t limit_of(const Engine& e) {
    return e.limit >= 1 ? static_cast<uint32_t>(e.limit) : 1;
}

// Seats held by this class and stricter ones. Classes that share the last slot count always.
uint32_t held_from(const Engine& e, int32_t level_class) {
    uint32_t held = e.by_class[kClassSlots - 1].held;
    for (uint32_t i = 0; i + 1 < kClassSlots; ++i) {
        held += e.by_class[i].level_class >= level_class ? e.by_class[i].held : 0;
    }
    return held;
}

// Whether an engine with `load` seats taken, as many as it may have, makes room for this class by itself.
bool may_preempt(const Engine& e, uint64_t load, int32_t level_class) {
    if (e.preempts == 0 || load >= uint64_t{e.max_running} + kPreemptSurplus) {
        return false;
    }
    const uint32_t own = held_from(e, level_class);
    return own < e.held && own + uint64_t{e.foreign} < limit_of(e);
}

uint8_t class_slot(Engine& e, int32_t level_class) {
    if (e.held == 0) {  // no class holds any
        e.by_class[0].level_class = level_class;
        return 0;
    }
    uint32_t free_slot = kClassSlots - 1;
    for (uint32_t i = 0; i + 1 < kClassSlots; ++i) {
        if (e.by_class[i].held == 0) {
            free_slot = i < free_slot ? i : free_slot;
        } else if (e.by_class[i].level_class == level_class) {
            return static_cast<uint8_t>(i);
        }
    }
    if (free_slot + 1 < kClassSlots) {
        e.by_class[free_slot].level_class = level_class;
    }
    return static_cast<uint8_t>(free_slot);
}

// Whether a backup engine must stay out because another engine of the pool is usable.
bool primary_usable(const Core& c, const Pool& p) {
    bool found = false;
    for_engines_of(c, p.model, [&](uint32_t i) {
        const Engine& e = c.engines[i];
        found = e.backup == 0 && pool_admits(p, e, i) && engine_usable(e);
        return !found;
    });
    return found;
}

// Who is to be served, as far as the choice of an engine asks for it.
struct Wanted {
    uint32_t prompt_tokens;
    PrefixHits hits;  // none but under RoutingPolicy::prefix
    uint32_t random;
};

// Lower is better.
double score(const Core& c, const Engine& e, uint32_t index, const Wanted& wanted) {
    switch (c.header.settings.routing) {
        case RoutingPolicy::least_running:
            return static_cast<double>(e.held) + e.foreign;
        case RoutingPolicy::round_robin:
            return (index + c.header.plan.engines - c.header.round_robin % c.header.plan.engines - 1) %
                   c.header.plan.engines;
        case RoutingPolicy::random:
            return 0;
        case RoutingPolicy::prefix: {
            const double uncached = wanted.prompt_tokens * (1 - wanted.hits.part_on(index));
            return (uncached + kPromptOffset) * load_with_one_more(e);
        }
        case RoutingPolicy::throughput:
            break;
    }
    return load_with_one_more(e);
}

struct Best {
    uint32_t engine = kNone;
    double score = 0;
    double kv = 0;
    uint32_t draw = 0;
};

void consider(const Core& c, Best& best, uint32_t index, const Wanted& wanted) {
    const Engine& e = c.engines[index];
    const bool first = best.engine == kNone;
    const bool random_only = c.header.settings.routing == RoutingPolicy::random;
    const double its_score = score(c, e, index, wanted);
    if (!first &&
        (its_score > best.score || (its_score == best.score && !random_only && e.kv_usage > best.kv))) {
        return;
    }
    const uint32_t draw = mix32((uint64_t{wanted.random} << 32) + c.header.counters.grants * 4096 + index);
    if (first || its_score < best.score || (!random_only && e.kv_usage < best.kv) || draw < best.draw) {
        best = {index, its_score, e.kv_usage, draw};
    }
}

// A flow that could be served next.
struct Pick {
    uint32_t flow = kNone;
    int32_t level_class = 0;
    bool aged = false;
};

bool goes_before(const Core& c, int32_t class_a, uint32_t a, int32_t class_b, uint32_t b) {
    if (class_a != class_b) {
        return class_a > class_b;
    }
    return served_before(c.flows[a], c.flows[b]);
}

Pick in_window(const Core& c, uint32_t engine, Pick pick) {
    const Settings& settings = c.header.settings;
    if (settings.routing == RoutingPolicy::prefix && settings.scheduler == Scheduler::weighted) {
        pick.flow = choose_in_window(c, engine, pick.flow, pick.level_class);
    }
    return pick;
}

// The next flow for this engine by class, virtual counter and arrival; or, in the tenth kept for it, the one
// whose head has waited longest and past llm_aging in a class below.
Pick pick_next(Core& c, uint32_t engine) {
    Pick pick;
    if (!room_for(c, c.engines[engine], std::numeric_limits<int32_t>::max()).open) {
        return pick;  // full for the strictest class: whoever waits need not be looked at
    }
    for_pools_of(c, engine, [&](const Pool& p) {
        for (uint32_t l = p.levels_head; l != kNone; l = c.levels[l].next) {
            const Level& level = c.levels[l];
            if (level.order_min != kNone) {
                if (pick.flow == kNone ||
                    goes_before(c, level.level_class, level.order_min, pick.level_class, pick.flow)) {
                    pick.flow = level.order_min;
                    pick.level_class = level.level_class;
                }
                break;  // the pool's lower classes come later in any case
            }
        }
    });
    const Engine& e = c.engines[engine];
    if (pick.flow == kNone || !room_for(c, e, pick.level_class).open) {
        return Pick();
    }
    const int64_t aging = c.header.settings.aging_us;
    const Domain& domain = c.domains[domain_of(c, c.pools[c.levels[c.flows[pick.flow].level].pool])];
    if (aging < 0 || domain.since_aged + 1 < kAgedEvery) {
        return in_window(c, engine, pick);
    }
    uint32_t oldest = kNone;
    int32_t oldest_class = 0;
    for_pools_of(c, engine, [&](const Pool& p) {
        for (uint32_t l = p.levels_head; l != kNone; l = c.levels[l].next) {
            const Level& level = c.levels[l];
            if (level.level_class >= pick.level_class || level.level_class == kBackground ||
                level.age_min == kNone ||
                (oldest != kNone && c.flows[oldest].key_seq < c.flows[level.age_min].key_seq)) {
                continue;
            }
            const Request& head = c.requests[c.flows[level.age_min].head];
            if (c.now - head.queued_us >= aging) {
                oldest = level.age_min;
                oldest_class = level.level_class;
            }
        }
    });
    if (oldest == kNone || !room_for(c, e, oldest_class).open) {
        return in_window(c, engine, pick);
    }
    pick.flow = oldest;
    pick.level_class = oldest_class;
    pick.aged = true;
    return pick;
}

}  // namespace

Room room_for(const Core& c, const Engine& e, int32_t level_class) {
    if (!engine_is_placed(e)) {
        return {false, false};
    }
    if (e.breaker != Breaker::closed) {
        const bool due = probe_due(c, e);
        return {due, due};
    }
    const uint64_t load = uint64_t{e.held} + e.foreign;
    return {(load < limit_of(e) && load < e.max_running) || may_preempt(e, load, level_class), false};
}

bool engine_serves(const Core& c, const Engine& e, const Pool& p) {
    return pool_admits(p, e, static_cast<uint32_t>(&e - c.engines)) && (e.backup == 0 || !primary_usable(c, p));
}

uint32_t choose_engine(Core& c, const Pool& p, uint32_t prefer_org, int32_t level_class, const Prompt& prompt,
                       uint32_t random) {
    Wanted wanted;
    wanted.prompt_tokens = prompt.tokens;
    wanted.random = random;
    wanted.hits.count = 0;
    if (c.header.settings.routing == RoutingPolicy::prefix) {
        wanted.hits = find_prefix(c, prompt.keys);
    }
    Best best;
    Best preferred;
    Best backup;
    bool primary = false;
    for_engines_of(c, p.model, [&](uint32_t i) {
        const Engine& e = c.engines[i];
        if (!pool_admits(p, e, i)) {
            return true;
        }
        primary = primary || (e.backup == 0 && engine_usable(e));
        if (!room_for(c, e, level_class).open) {
            return true;
        }
        if (e.backup != 0) {
            consider(c, backup, i, wanted);
            return true;
        }
        consider(c, best, i, wanted);
        if (prefer_org != kNone && e.org == prefer_org) {
            consider(c, preferred, i, wanted);
        }
        return true;
    });
    if (preferred.engine != kNone) {
        return preferred.engine;
    }
    return best.engine != kNone || primary ? best.engine : backup.engine;
}

Usable pool_usable(const Core& c, const Pool& p) {
    Usable usable = Usable::none;
    for_engines_of(c, p.model, [&](uint32_t i) {
        const Engine& e = c.engines[i];
        if (!pool_admits(p, e, i) || e.leaving != 0 || e.drained != 0) {
            return true;
        }
        if (engine_usable(e)) {
            usable = Usable::yes;
            return false;
        }
        if (engine_is_placed(e) && probe_due(c, e)) {
            usable = Usable::probe;
        } else if (usable == Usable::none && e.breaker == Breaker::closed &&
                   (e.state == static_cast<uint8_t>(EngineState::loading) ||
                    e.state == static_cast<uint8_t>(EngineState::ready))) {
            usable = Usable::loading;  // loading, or ready and its address still being resolved
        }
        return true;
    });
    return usable;
}

void take_lease(Core& c, Request& r, uint32_t engine) {
    Engine& e = c.engines[engine];
    r.engine = engine;
    r.granted_us = c.now;
    r.level_class = class_of(c, c.accounts[r.account], r.priority);
    r.probe = e.breaker != Breaker::closed ? 1 : 0;
    LLM_LABEL();
    r.lease = 1;
    LLM_LABEL();
    if (r.probe != 0) {
        e.probe_out = 1;
        e.breaker = Breaker::half_open;
    }
    r.class_slot = class_slot(e, r.level_class);
    e.by_class[r.class_slot].held += r.seats;
    e.held += r.seats;
    e.held_high = e.held > e.held_high ? e.held : e.held_high;
    c.models[r.model].held += r.seats;
    c.accounts[r.account].running += r.seats;
    c.header.held += r.seats;
    c.header.round_robin = engine;
    if (c.header.settings.routing == RoutingPolicy::prefix) {
        remember_prefix(c, c.request_prefixes[index_of(c, r)], engine);
    }
    LLM_TRACE(c, TraceKind::leased, r, e.foreign, e.preempts);
}

uint32_t drop_lease(Core& c, Request& r) {
    if (r.lease == 0) {
        return kNone;
    }
    r.lease = 0;
    LLM_LABEL();
    Engine& e = c.engines[r.engine];
    e.by_class[r.class_slot].held -= r.seats;
    e.held -= r.seats;
    c.models[r.model].held -= r.seats;
    c.accounts[r.account].running -= r.seats;
    c.header.held -= r.seats;
    if (r.probe != 0) {
        e.probe_out = 0;
        r.probe = 0;
    }
    LLM_TRACE(c, TraceKind::released, r);
    return r.engine;
}

void grant(Core& c, Request& r, uint32_t engine, bool immediate) {
    take_lease(c, r, engine);
    r.attempts++;
    const bool was_queued = r.flow != kNone;
    if (was_queued) {
        detach(c, r);
        charge_dispatch(c, r);
        dequeue(c, r);
    } else {
        enter_for_a_moment(c, r);
        charge_dispatch(c, r);
        leave_after_a_moment(c, r);
    }
    r.dispatched_us = c.now;
    LLM_LABEL();
    set_state(r, immediate ? RequestState::running : RequestState::granted);
    LLM_LABEL();
    LLM_TRACE(c, TraceKind::granted, r, 0, immediate ? 1 : 0);
    if (was_queued) {
        leave_waiting(c, r);
    }
    Pool& p = c.pools[r.pool];
    if (immediate) {
        c.header.running++;
    } else {
        link_grant(c, r);
        put_mail(c, r, Mail::granted);
    }
    c.domains[domain_of(c, p)].since_aged++;
    bump(c.header.counters.grants);
    count_dispatch(c, p);
    tighten_hold(c, r.account);
}

void run_engine(Core& c, uint32_t engine) {
    for (;;) {
        const Pick pick = pick_next(c, engine);
        if (pick.flow == kNone) {
            return;
        }
        Request& r = c.requests[c.flows[pick.flow].head];
        if (!owner_is_awake(c, r)) {
            if (r.flow != kNone) {  // suspended before, and still in a flow: cannot be, but must not spin
                dequeue(c, r);
                r.parked = 1;
            }
            continue;
        }
        const uint32_t chosen =
            choose_engine(c, c.pools[r.pool], r.prefer_org, pick.level_class, prompt_of(c, r), 0);
        if (chosen == kNone) {
            return;
        }
        Domain& domain = c.domains[domain_of(c, c.pools[r.pool])];
        grant(c, r, chosen, false);
        if (pick.aged) {
            domain.since_aged = 0;
            bump(c.header.counters.aged_grants);
            LLM_TRACE(c, TraceKind::aged, r);
        }
    }
}

void run_pool(Core& c, uint32_t pool) {
    const uint32_t model = c.pools[pool].model;
    if (c.pools[pool].levels_head == kNone) {
        return;
    }
    for_engines_of(c, model, [&](uint32_t i) {
        run_engine(c, i);
        return c.pools[pool].levels_head != kNone;
    });
}

void run_models_of(Core& c, uint32_t engine) {
    const Engine& e = c.engines[engine];
    for (uint32_t m = 0; m < e.model_count && c.header.queued != 0; ++m) {
        for (uint32_t i = c.models[e.models[m]].pools_head; i != kNone; i = c.pools[i].next) {
            run_pool(c, i);
        }
    }
}

void run_account(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    for (uint32_t s = a.standings_head; s != kNone; s = c.standings[s].next) {
        for (uint32_t f = c.standings[s].flows_head; f != kNone;) {
            const uint32_t before = f;
            run_pool(c, c.levels[c.flows[f].level].pool);
            // The run may have closed this flow; then start over (each round grants at least one request).
            f = c.flows[before].used != 0 && c.flows[before].standing == s ? c.flows[before].next
                                                                           : c.standings[s].flows_head;
        }
    }
}

void run_all(Core& c) {
    if (c.header.run_pending != 0) {
        c.header.run_pending = 0;
        for (uint32_t i = 0; i < c.header.process_end; ++i) {
            Process& p = c.processes[i];
            if (p.used != 0 && p.mail_head != kNone) {
                p.signalled = 1;
                c.wakes.add(i);
            }
        }
    }
    if (c.header.queued == 0) {
        return;
    }
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        if (c.engines[i].used != 0) {
            run_engine(c, i);
        }
    }
}

void after_release(Core& c, uint32_t account, uint32_t engine) {
    refresh_hold(c, account);
    if (engine != kNone) {
        free_engine_if_idle(c, engine);
        if (c.engines[engine].used != 0 && c.header.queued != 0) {
            run_engine(c, engine);
        }
    }
}

}  // namespace llm::core
