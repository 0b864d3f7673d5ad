// Recovery: everything derived is built again from the facts, after an owner of the lock died inside it.
//
// The request table is the truth. A request counts as what its `state` says; who waits where, who holds what,
// which slots are free follows. Virtual counters are facts of their own and may be off by the one charge that
// was under way.
//
// Every walk ends where entries have never been used, so that the cost follows use and not the zone's size.
#include <algorithm>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

template <class Entry, class Next>
uint32_t chain_free(Entry* table, uint32_t count, Next next, bool (*is_free)(const Entry&)) {
    uint32_t head = kNone;
    for (uint32_t i = count; i-- > 0;) {
        if (is_free(table[i])) {
            next(table[i]) = head;
            head = i;
        }
    }
    return head;
}

void reset_processes(Tables& t) {
    for (uint32_t i = 0; i < t.header.process_end; ++i) {
        Process& p = t.processes[i];
        p.requests_head = p.mail_head = p.mail_tail = kNone;
        std::atomic_ref<uint32_t>(p.requests).store(0, std::memory_order_relaxed);
        p.signalled = 0;
    }
}

void reset_accounts(Tables& t) {
    ZoneHeader& h = t.header;
    h.idle_head = h.idle_tail = h.held_head = h.held_tail = kNone;
    for (uint32_t i = 0; i < h.account_end; ++i) {
        Account& a = t.accounts[i];
        // An account leaves its bucket before its hash can change, so these are all that are not empty.
        t.account_buckets[account_bucket(t, a.hash)] = kNone;
        a.running = a.waiting = a.live = 0;
        a.standings_head = a.idle_prev = a.idle_next = a.held_prev = a.held_next = kNone;
        a.held_running = a.held_tokens = a.idle = 0;
        a.hash_next = kNone;
    }
    h.free_accounts = chain_free<Account>(
        t.accounts, h.account_end, [](Account& a) -> uint32_t& { return a.hash_next; },
        [](const Account& a) { return a.used == 0; });
    for (uint32_t i = 0; i < h.account_end; ++i) {
        if (t.accounts[i].used != 0) {
            uint32_t& bucket = t.account_buckets[account_bucket(t, t.accounts[i].hash)];
            t.accounts[i].hash_next = bucket;
            bucket = i;
        }
    }
    for (uint32_t i = 0; i < h.standing_end; ++i) {
        Standing& s = t.standings[i];
        s.flows_head = kNone;
        s.backlogged = 0;
        if (s.used != 0 && (s.account >= h.plan.accounts || t.accounts[s.account].used == 0 ||
                            s.domain >= h.plan.domains || !(s.vt > -1e300 && s.vt < 1e300))) {
            s.used = 0;
        }
    }
    h.free_standings = chain_free<Standing>(
        t.standings, h.standing_end, [](Standing& s) -> uint32_t& { return s.next; },
        [](const Standing& s) { return s.used == 0; });
    for (uint32_t i = 0; i < h.standing_end; ++i) {
        Standing& s = t.standings[i];
        if (s.used != 0) {
            s.next = t.accounts[s.account].standings_head;
            t.accounts[s.account].standings_head = i;
        }
    }
}

void reset_queues(Tables& t) {
    ZoneHeader& h = t.header;
    h.free_flows = h.free_levels = kNone;
    h.flow_end = h.level_end = 0;
    for (uint32_t i = 0; i < h.domain_end; ++i) {
        t.domains[i].levels_head = kNone;
    }
}

void reset_models(Tables& t) {
    ZoneHeader& h = t.header;
    for (uint32_t i = 0; i < h.model_count; ++i) {
        Model& m = t.models[i];
        m.engines = m.waiting = m.held = 0;
        m.pools_head = kNone;
        std::memset(t.engines_of(i), 0, t.engine_words() * sizeof(uint64_t));
        if (find_model_locked(t, std::string_view(m.name, m.name_bytes)) == kNone) {
            // Its maker died between the count and the link. Readers may be walking: link it with one store.
            uint32_t& bucket = t.model_buckets[m.name_hash % h.plan.models];
            m.hash_next = bucket;
            std::atomic_ref<uint32_t>(bucket).store(i, std::memory_order_release);
        }
    }
    for (uint32_t i = 0; i < h.pool_end; ++i) {
        Pool& p = t.pools[i];
        p.levels_head = kNone;
        p.waiting = 0;
        if (p.used != 0) {
            p.next = t.models[p.model].pools_head;
            t.models[p.model].pools_head = i;
        }
    }
    for (uint32_t i = 0; i < h.engine_end; ++i) {
        Engine& e = t.engines[i];
        e.held = 0;
        e.probe_out = 0;
        std::memset(e.by_class, 0, sizeof e.by_class);
        if (e.used == 0 || e.leaving != 0) {
            continue;
        }
        e.model_count = std::min(e.model_count, kMaxEngineModels);
        for (uint32_t m = 0; m < e.model_count; ++m) {
            if (e.models[m] < h.model_count) {
                uint64_t& word = t.engines_of(e.models[m])[i / 64];
                const uint64_t bit = uint64_t{1} << (i % 64);
                t.models[e.models[m]].engines += (word & bit) == 0 ? 1 : 0;
                word |= bit;
            }
        }
    }
}

// False: the entry makes no sense (its slot was being filled, or its owner is gone) and is freed.
bool is_sound(const Tables& t, const Request& r) {
    const ZonePlan& plan = t.header.plan;
    const RequestState state = state_of(r);
    if (state == RequestState::free || r.account >= plan.accounts || t.accounts[r.account].used == 0 ||
        r.pool >= plan.pools || t.pools[r.pool].used == 0 || r.model >= t.header.model_count) {
        return false;
    }
    if (!owner_matches(t, r)) {
        return false;
    }
    return r.lease == 0 || (r.engine < plan.engines && t.engines[r.engine].used != 0);
}

void hold_again(Core& c, Request& r) {
    Engine& e = c.engines[r.engine];
    uint32_t slot = kClassSlots - 1;
    for (uint32_t i = kClassSlots - 1; i-- > 0;) {
        if (e.by_class[i].held == 0) {
            slot = i;
        }
    }
    for (uint32_t i = 0; i + 1 < kClassSlots; ++i) {
        if (e.by_class[i].held != 0 && e.by_class[i].level_class == r.level_class) {
            slot = i;
        }
    }
    e.by_class[slot].level_class = r.level_class;
    e.by_class[slot].held += r.seats;
    r.class_slot = static_cast<uint8_t>(slot);
    e.held += r.seats;
    e.probe_out |= r.probe;
    c.models[r.model].held += r.seats;
    c.accounts[r.account].running += r.seats;
    c.header.held += r.seats;
}

// Puts one request back where its state says. QUEUED ones are collected for later, in order of arrival.
void restore(Core& c, Request& r, uint32_t& queued) {
    r.flow = r.mail_next = r.mail_prev = r.process_next = r.process_prev = kNone;
    r.mailed = 0;
    r.parked = 0;
    c.accounts[r.account].live++;
    link_to_process(c, r);
    const uint32_t standing = open_standing(c, r.account, domain_of(c, c.pools[r.pool]));
    r.standing = standing;
    if (state_of(r) != RequestState::queued) {
        r.pool = lasting_pool(c, r.pool);
    }
    switch (state_of(r)) {
        case RequestState::queued:
            if (r.lease != 0) {  // died between the lease and the new state: it was never granted
                r.lease = 0;
                r.probe = 0;
            }
            r.attempts = r.failed;
            join_waiting(c, r);
            c.scratch[queued++] = index_of(c, r);
            break;
        case RequestState::granted:
            if (r.lease == 0) {  // its lease was on the way back
                r.attempts = r.failed;
                set_state(r, RequestState::queued);
                join_waiting(c, r);
                c.scratch[queued++] = index_of(c, r);
                break;
            }
            hold_again(c, r);
            link_grant(c, r);
            put_mail(c, r, Mail::granted);
            break;
        case RequestState::running:
            if (r.lease != 0) {
                hold_again(c, r);
            }
            c.header.running++;
            if (r.mail == Mail::aborted) {
                put_mail(c, r, Mail::aborted);
            }
            break;
        case RequestState::ended:
            put_mail(c, r, r.mail == Mail::aborted ? Mail::aborted : Mail::revoked);
            break;
        case RequestState::free:
            break;
    }
}

}  // namespace

void rebuild(Core& c) {
    ZoneHeader& h = c.header;
    bump(h.counters.rebuilds);
    LLM_TRACE_ACCOUNT(c, TraceKind::rebuilt, kNone, 0);
    h.queued = h.granted = h.running = h.held = 0;
    h.next_expiry_s = 0;
    h.grant_head = h.grant_tail = kNone;
    h.free_requests = kNone;
    for (ClientTable& table : h.tables) {
        if ((table.version & 1) != 0) {  // its writer died: let readers in again
            std::atomic_ref<uint32_t>(table.version).fetch_add(1, std::memory_order_release);
        }
    }
    reset_processes(c);
    reset_models(c);
    reset_accounts(c);
    reset_queues(c);
    for (uint32_t i = 0; i < h.engine_end; ++i) {
        if (c.engines[i].used != 0) {
            clamp_limit(c, c.engines[i]);  // it steps outside its bounds while it is being worked out
        }
    }
    uint32_t queued = 0;
    for (uint32_t i = h.request_end; i-- > 0;) {
        Request& r = c.requests[i];
        if (is_sound(c, r)) {
            restore(c, r, queued);
            LLM_TRACE(c, TraceKind::found, r, 0, r.state);
            continue;
        }
        set_state(r, RequestState::free);
        r.lease = 0;
        r.flow_next = h.free_requests;
        h.free_requests = i;
    }
    for (uint32_t i = 0; i < h.pool_end; ++i) {
        if (c.pools[i].used != 0 && c.pools[i].temporary != 0 && c.pools[i].waiting == 0) {
            close_pool(c, i);
        }
    }
    for (uint32_t i = 0; i < h.account_end; ++i) {
        if (c.accounts[i].used != 0 && c.accounts[i].live == 0) {
            link_idle(c, i);
        }
    }
    std::sort(c.scratch, c.scratch + queued,
              [&c](uint32_t a, uint32_t b) { return c.requests[a].seq < c.requests[b].seq; });
    for (uint32_t i = 0; i < queued; ++i) {
        Request& r = c.requests[c.scratch[i]];
        h.next_seq = r.seq >= h.next_seq ? r.seq + 1 : h.next_seq;
        if (c.processes[r.process].suspended != 0) {
            r.parked = 1;
        } else {
            enqueue(c, r, false);
        }
    }
    for (uint32_t i = 0; i < h.account_end; ++i) {
        if (c.accounts[i].used != 0 && c.accounts[i].live != 0) {
            update_hold(c, i);
        }
    }
    for (uint32_t i = 0; i < h.engine_end; ++i) {
        Engine& e = c.engines[i];
        if (e.used != 0 && e.leaving != 0 && e.held == 0) {
            e.used = 0;
        }
    }
    for (uint32_t i = 0; i < h.process_end; ++i) {
        c.processes[i].signalled = 0;  // run_all() wakes everybody who has mail
    }
    h.engines_version++;
    h.run_pending = 1;
}

void rebuild(Zone& zone) {
    WakeSet nobody;
    Core c(zone, nobody);
    rebuild(c);
    // Whoever died may have changed what engines serve and not yet drawn the consequences.
    refresh_minimums(c);
    refresh_domains(c);
}

}  // namespace llm::core
