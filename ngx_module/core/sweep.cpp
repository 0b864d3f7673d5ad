// What happens by the passing of time, and what administrators and the configuration change.
#include <algorithm>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr int64_t kStandstillUs = 2'000'000;  // without a sweep, of which each worker makes four a second
constexpr uint32_t kHeldBatch = 1024;         // clients held back by tokens_per_minute, looked at per sweep
constexpr uint32_t kAccountBatch = 2048;  // accounts refreshed per sweep, after a change of the token table

// The machine was suspended, or all workers were frozen. Nobody could be served and no report be read: that
// time counts neither as waiting nor as an engine's silence.
void note_standstill(Core& c) {
    ZoneHeader& h = c.header;
    const int64_t gap = c.now - h.swept_us;
    if (h.swept_us != 0 && gap > kStandstillUs) {
        h.redis_up_us = c.now;
        for (uint32_t i = 0; i < h.request_end; ++i) {
            Request& r = c.requests[i];
            if (state_of(r) == RequestState::queued || state_of(r) == RequestState::granted) {
                r.deadline_us += std::clamp<int64_t>(c.now - r.queued_us, 0, gap);
            }
        }
    }
    h.swept_us = c.now;
}

void expire_grants(Core& c, SweepResult& result) {
    while (c.header.grant_head != kNone) {
        Request& r = c.requests[c.header.grant_head];
        if (c.now - r.granted_us <= kGrantLifeUs) {
            return;
        }
        bump(c.header.counters.grants_expired);
        result.expired_grants++;
        return_grant(c, r, true);
    }
}

void park_silent_processes(Core& c) {
    for (uint32_t i = 0; i < c.header.process_end; ++i) {
        Process& p = c.processes[i];
        if (p.used != 0 && p.suspended == 0 && p.requests != 0 && c.now - p.heartbeat_us > kHeartbeatLifeUs) {
            suspend_process(c, p);
        }
    }
}

void release_held_accounts(Core& c) {
    uint32_t first = kNone;
    for (uint32_t n = 0; n < kHeldBatch; ++n) {
        const uint32_t account = next_held(c);
        if (account == kNone || account == first) {
            return;  // all of them have been looked at
        }
        refresh_hold(c, account);
        first = first == kNone && c.accounts[account].held_tokens != 0 ? account : first;
    }
}

void end_expired_clients(Core& c, int64_t wall_s) {
    if (c.header.next_expiry_s == 0 || wall_s < c.header.next_expiry_s) {
        return;
    }
    c.header.next_expiry_s = 0;
    for (uint32_t i = 0; i < c.header.account_end; ++i) {
        Account& a = c.accounts[i];
        if (a.used == 0 || a.waiting == 0 || a.expires_at == 0) {
            continue;
        }
        if (a.expires_at <= wall_s) {
            refresh_account(c, i, wall_s);
        }
        expect_expiry(c, a);
    }
}

void watch_engines(Core& c, SweepResult& result) {
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        Engine& e = c.engines[i];
        if (e.used == 0 || e.leaving != 0) {
            continue;
        }
        control_stale(c, e);
    }
    result.lost_engines = lose_silent_engines(c, result.lost);
}

// Every waiting request enters its queue anew: its class may mean something else now.
void requeue_everything(Core& c) {
    for (uint32_t i = 0; i < c.header.standing_end; ++i) {
        c.standings[i].vt = 0;  // counters of another discipline mean nothing in this one
    }
    for (uint32_t i = 0; i < c.header.domain_end; ++i) {
        std::memset(c.domains[i].classes, 0, sizeof c.domains[i].classes);
    }
    for (uint32_t i = 0; i < c.header.request_end; ++i) {
        c.requests[i].charged_vt = 0;
    }
    rebuild(c);
}

}  // namespace

void end_all_waiting(Core& c, uint32_t account, Mail mail) {
    Account& a = c.accounts[account];
    for (uint32_t s = a.standings_head; s != kNone; s = c.standings[s].next) {
        while (c.standings[s].flows_head != kNone) {
            end_waiting(c, c.requests[c.flows[c.standings[s].flows_head].head], mail);
        }
    }
    for (uint32_t i = 0; a.waiting != 0 && i < c.header.request_end;
         ++i) {  // parked ones are in no flow; rare
        Request& r = c.requests[i];
        if (state_of(r) == RequestState::queued && r.account == account) {
            end_waiting(c, r, mail);
        }
    }
}

SweepResult sweep(const ZoneLock& lock, int64_t now_us, int64_t wall_s, uint32_t random, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    SweepResult result;
    c.header.pools_reclaimed = 0;
    note_standstill(c);
    expire_grants(c, result);
    park_silent_processes(c);
    watch_engines(c, result);
    release_held_accounts(c);
    if (c.header.refresh_cursor != kNone) {
        refresh_accounts(lock, kAccountBatch, now_us, wall_s, wakes);
    }
    end_expired_clients(c, wall_s);
    run_all(c);
    return result;
}

void apply_settings(const ZoneLock& lock, const Settings& settings, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    ZoneHeader& h = c.header;
    if (h.settings == settings && h.settings_pending == kNothingPending) {
        return;  // each worker of a cycle says the same
    }
    const bool other_order =
        h.settings.scheduler != settings.scheduler || h.settings_pending == kReorderPending;
    std::atomic_ref<uint32_t>(h.settings_pending)
        .store(other_order ? kReorderPending : kSettingsPending, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    double before[kMaxZoneEngines];
    for (uint32_t i = 0; i < h.engine_end; ++i) {
        before[i] = minimum_of(c, c.engines[i]);
    }
    h.settings = settings;
    h.settings.throughput_rules = std::min(settings.throughput_rules, kMaxThroughputRules);
    std::atomic_ref<int64_t>(h.grace_us).store(settings.grace_us, std::memory_order_relaxed);
    std::atomic_ref<uint32_t>(h.open_access).store(settings.open_access ? 1 : 0, std::memory_order_relaxed);
    refresh_minimums(c);
    for (uint32_t i = 0; i < h.engine_end; ++i) {
        Engine& e = c.engines[i];
        const double minimum = minimum_of(c, e);
        if (e.used == 0 || (before[i] > 0) == (minimum > 0)) {
            continue;
        }
        start_limit(c, e);
        if (minimum > 0) {
            // A minimum where there was none: what runs is let finish, growth starts from there.
            e.limit = std::max(e.limit, static_cast<double>(e.held));
            clamp_limit(c, e);
        }
    }
    if (other_order) {
        requeue_everything(c);
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    std::atomic_ref<uint32_t>(h.settings_pending).store(kNothingPending, std::memory_order_relaxed);
    run_all(c);
}

bool abort_request(const ZoneLock& lock, Ticket ticket, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* r = find_request(c, ticket);
    if (r == nullptr) {
        return false;
    }
    switch (state_of(*r)) {
        case RequestState::queued:
        case RequestState::granted:
            end_waiting(c, *r, Mail::aborted);
            return true;
        case RequestState::running:
            put_mail(c, *r, Mail::aborted);
            return true;
        default:
            return false;
    }
}

bool set_priority(const ZoneLock& lock, Ticket ticket, int32_t priority, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* r = find_request(c, ticket);
    if (r == nullptr || state_of(*r) != RequestState::queued) {
        return false;
    }
    const bool in_flow = r->flow != kNone;
    dequeue(c, *r);
    r->priority = std::clamp(priority, 0, kMaxPriority);
    r->low = 1;  // no longer follows its client's own priority upwards
    if (in_flow) {
        enqueue(c, *r, true);
        run_pool(c, r->pool);
    }
    return true;
}

}  // namespace llm::core
