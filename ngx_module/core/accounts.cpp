// Accounts: what a client does, apart from who it is. Running and waiting counts, the sliding minute of
// tokens, virtual counters per domain. Keyed by the token's hash, so that they outlive a reload of the token
// table.
//
// An account without live requests stays on an LRU list until its place is needed: there is always one free
// or evictable account per free request slot.
#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

void unlink_idle(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    if (a.idle == 0) {
        return;
    }
    (a.idle_prev != kNone ? c.accounts[a.idle_prev].idle_next : c.header.idle_head) = a.idle_next;
    (a.idle_next != kNone ? c.accounts[a.idle_next].idle_prev : c.header.idle_tail) = a.idle_prev;
    a.idle = 0;
}

void link_held(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    a.held_next = kNone;
    a.held_prev = c.header.held_tail;
    (a.held_prev != kNone ? c.accounts[a.held_prev].held_next : c.header.held_head) = account;
    c.header.held_tail = account;
    a.held_tokens = 1;
}

void unlink_held(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    (a.held_prev != kNone ? c.accounts[a.held_prev].held_next : c.header.held_head) = a.held_next;
    (a.held_next != kNone ? c.accounts[a.held_next].held_prev : c.header.held_tail) = a.held_prev;
    a.held_tokens = 0;
}

void unlink_bucket(Core& c, uint32_t account) {
    uint32_t* link = &c.account_buckets[account_bucket(c, c.accounts[account].hash)];
    while (*link != account && *link != kNone) {
        link = &c.accounts[*link].hash_next;
    }
    if (*link == account) {
        *link = c.accounts[account].hash_next;
    }
}

uint32_t& bucket_of(Account& a, int64_t number) {
    constexpr int64_t kAboveZero = kWindowBuckets << 40;  // in the first minute of a clock, buckets are below it
    return a.window[static_cast<uint64_t>(number + kAboveZero) % kWindowBuckets];
}

// Moves the window on to the present bucket.
void advance_window(Core& c, Account& a) {
    const int64_t bucket = c.now / kWindowBucketUs;
    if (bucket <= a.window_at) {
        return;
    }
    int64_t steps = bucket - a.window_at;
    if (steps > kWindowBuckets) {
        steps = kWindowBuckets;
    }
    for (int64_t i = 1; i <= steps; ++i) {
        uint32_t& old = bucket_of(a, bucket - steps + i);
        a.window_sum -= old < a.window_sum ? old : a.window_sum;
        old = 0;
    }
    a.window_at = bucket;
}

// Frees the counters that no live request uses. There are two for each request slot, so that half of a full table
// is free afterwards, at the least: what this costs is spread over as many new ones.
void reclaim_standings(Core& c) {
    for (uint32_t i = 0; i < c.header.standing_end; ++i) {
        c.standings[i].in_use = 0;
    }
    for (uint32_t i = 0; i < c.header.request_end; ++i) {
        const Request& r = c.requests[i];
        if (state_of(r) != RequestState::free && r.standing < c.header.plan.standings) {
            c.standings[r.standing].in_use = 1;
        }
    }
    for (uint32_t i = 0; i < c.header.account_end; ++i) {
        if (c.accounts[i].used == 0) {
            continue;
        }
        for (uint32_t* link = &c.accounts[i].standings_head; *link != kNone;) {
            const uint32_t s = *link;
            Standing& standing = c.standings[s];
            if (standing.in_use != 0 || standing.flows_head != kNone) {
                link = &standing.next;
                continue;
            }
            *link = standing.next;
            standing.used = 0;
            standing.next = c.header.free_standings;
            c.header.free_standings = s;
        }
    }
}

}  // namespace

void link_account(Core& c, uint32_t account) {
    uint32_t& bucket = c.account_buckets[account_bucket(c, c.accounts[account].hash)];
    c.accounts[account].hash_next = bucket;
    bucket = account;
}

void link_idle(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    a.idle_next = kNone;
    a.idle_prev = c.header.idle_tail;
    (a.idle_prev != kNone ? c.accounts[a.idle_prev].idle_next : c.header.idle_head) = account;
    c.header.idle_tail = account;
    a.idle = 1;
}

void evict_account(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    unlink_idle(c, account);
    if (a.held_tokens != 0) {
        unlink_held(c, account);
    }
    unlink_bucket(c, account);
    std::atomic_signal_fence(std::memory_order_seq_cst);  // its bucket is named by its hash: see recover.cpp
    a.used = 0;
    for (uint32_t s = a.standings_head; s != kNone;) {
        const uint32_t next = c.standings[s].next;
        c.standings[s].used = 0;
        c.standings[s].next = c.header.free_standings;
        c.header.free_standings = s;
        s = next;
    }
    a.standings_head = kNone;
    a.hash_next = c.header.free_accounts;
    c.header.free_accounts = account;
}

uint32_t open_account(Core& c, const ClientView& client) {
    for (uint32_t i = c.account_buckets[account_bucket(c, client.hash)]; i != kNone;
         i = c.accounts[i].hash_next) {
        if (equal_constant_time(c.accounts[i].hash, client.hash)) {
            set_rights(c, c.accounts[i], client);
            return i;
        }
    }
    if (!has_slot(c.header.free_accounts, c.header.account_end, c.header.plan.accounts)) {
        if (c.header.idle_head == kNone) {
            return kNone;
        }
        evict_account(c, c.header.idle_head);
    }
    const uint32_t i =
        take_slot(c.accounts, c.header.free_accounts, c.header.account_end, &Account::hash_next);
    Account& a = c.accounts[i];
    a = Account{};
    a.hash = client.hash;
    copy_text(a.name, client.name);
    a.standings_head = kNone;
    a.window_at = c.now / kWindowBucketUs;
    a.anonymous = client.anonymous ? 1 : 0;
    a.series = client_series(c, a.name);
    LLM_LABEL();
    a.used = 1;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    set_rights(c, a, client);
    link_account(c, i);
    link_idle(c, i);
    return i;
}

void claim_account(Core& c, uint32_t account) {
    unlink_idle(c, account);
    c.accounts[account].live++;
}

void unclaim_account(Core& c, uint32_t account) {
    if (--c.accounts[account].live == 0) {
        link_idle(c, account);
    }
}

void expect_expiry(Core& c, const Account& a) {
    int64_t& next = c.header.next_expiry_s;
    if (a.waiting != 0 && a.expires_at != 0 && (next == 0 || a.expires_at < next)) {
        next = a.expires_at;
    }
}

void set_rights(Core& c, Account& a, const ClientView& client) {
    const float weight = client.weight > 0 ? client.weight : 0;
    const bool moved = a.priority != client.priority || a.band != client.band || a.weight != weight;
    a.weight = weight;
    a.threshold = client.threshold;
    a.max_running = client.max_running;
    a.tokens_per_minute = client.tokens_per_minute;
    a.expires_at = client.expires_at;
    a.revoked = 0;
    expect_expiry(c, a);
    if (!moved) {
        return;
    }
    a.priority = client.priority;
    a.band = client.band;
    if (a.waiting == 0) {
        return;
    }
    // Queued requests change class or level: each leaves its flow and enters the one it belongs to now. New
    // flows are put at the head of the standing's list, so the walk takes a request only from flows of the
    // old rights: `low` and `priority` are brought up to date as it goes, and a request that is right already
    // is left alone.
    for (uint32_t s = a.standings_head; s != kNone; s = c.standings[s].next) {
        for (uint32_t f = c.standings[s].flows_head; f != kNone;) {
            const uint32_t next_flow = c.flows[f].next;
            for (uint32_t i = c.flows[f].head; i != kNone;) {
                Request& r = c.requests[i];
                const uint32_t next = r.flow_next;
                const uint32_t count = c.flows[f].count;
                dequeue(c, r);
                if (r.low == 0 || r.priority > a.priority) {
                    r.priority = a.priority;
                }
                enqueue(c, r, false);
                if (count == 1) {
                    break;  // the flow is gone (or made anew from its slot)
                }
                i = next;
            }
            f = next_flow;
        }
    }
    run_account(c, static_cast<uint32_t>(&a - c.accounts));
}

uint32_t open_standing(Core& c, uint32_t account, uint32_t domain) {
    Account& a = c.accounts[account];
    for (uint32_t i = a.standings_head; i != kNone; i = c.standings[i].next) {
        if (c.standings[i].domain == domain) {
            return i;
        }
    }
    const auto has_room = [&c] {
        return has_slot(c.header.free_standings, c.header.standing_end, c.header.plan.standings);
    };
    while (!has_room()) {
        uint32_t idle = c.header.idle_head;
        if (idle == account) {
            idle = a.idle_next;
        }
        if (idle == kNone) {
            break;
        }
        evict_account(c, idle);
    }
    if (!has_room()) {
        reclaim_standings(c);
    }
    if (!has_room()) {
        return kNone;
    }
    const uint32_t i =
        take_slot(c.standings, c.header.free_standings, c.header.standing_end, &Standing::next);
    Standing& s = c.standings[i];
    s.account = account;
    s.domain = domain;
    s.vt = 0;
    s.flows_head = kNone;
    s.backlogged = 0;
    s.next = a.standings_head;
    LLM_LABEL();
    s.used = 1;
    a.standings_head = i;
    return i;
}

void count_window(Core& c, uint32_t account, int64_t tokens) {
    Account& a = c.accounts[account];
    advance_window(c, a);
    const int64_t room = int64_t{0xffffffff} - a.window_sum;
    const auto add = static_cast<uint32_t>(tokens < room ? tokens : room);
    bucket_of(a, a.window_at) += add;
    a.window_sum += add;
}

void take_from_window(Core& c, uint32_t account, int64_t from_us, int64_t to_us, int64_t tokens) {
    Account& a = c.accounts[account];
    advance_window(c, a);
    const int64_t oldest = a.window_at - kWindowBuckets + 1;
    const int64_t from = from_us / kWindowBucketUs > oldest ? from_us / kWindowBucketUs : oldest;
    const int64_t to = to_us / kWindowBucketUs < a.window_at ? to_us / kWindowBucketUs : a.window_at;
    int64_t back = tokens;
    for (int64_t k = to; k >= from && back > 0; --k) {
        uint32_t& bucket = bucket_of(a, k);
        const auto take = static_cast<uint32_t>(back < bucket ? back : bucket);
        bucket -= take;
        a.window_sum -= take < a.window_sum ? take : a.window_sum;
        back -= take;
    }
}

uint32_t window_tokens(Core& c, Account& a) {
    advance_window(c, a);
    return a.window_sum;
}

int64_t window_wait_us(Core& c, Account& a) {
    advance_window(c, a);
    uint64_t sum = a.window_sum;
    for (int64_t k = a.window_at - kWindowBuckets + 1; k <= a.window_at; ++k) {
        if (sum < a.tokens_per_minute) {
            return k <= a.window_at - kWindowBuckets + 1 ? 0
                                                         : (k - 1 + kWindowBuckets) * kWindowBucketUs - c.now;
        }
        const uint32_t bucket = bucket_of(a, k);
        sum -= bucket < sum ? bucket : sum;
    }
    return kWindowBuckets * kWindowBucketUs;
}

bool update_hold(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    const bool was = held_back(a);
    const bool tokens = a.tokens_per_minute != 0 && window_tokens(c, a) >= a.tokens_per_minute;
    a.held_running = a.max_running != 0 && a.running >= a.max_running ? 1 : 0;
    if (tokens && a.held_tokens == 0) {
        link_held(c, account);
    } else if (!tokens && a.held_tokens != 0) {
        unlink_held(c, account);
    }
    const bool is = held_back(a);
    if (was == is) {
        return false;
    }
    LLM_TRACE_ACCOUNT(c, TraceKind::held, account, is ? 1 : 0);
    bool rejoined = false;
    for (uint32_t s = a.standings_head; s != kNone; s = c.standings[s].next) {
        for (uint32_t f = c.standings[s].flows_head; f != kNone; f = c.flows[f].next) {
            if (is && c.flows[f].place == Place::in) {
                take_from_queue(c, f);
            } else if (!is && c.flows[f].place == Place::out) {
                put_in_queue(c, f, true);
                rejoined = true;
            }
        }
    }
    return rejoined;
}

uint32_t next_held(Core& c) {
    const uint32_t account = c.header.held_head;
    if (account != kNone) {
        unlink_held(c, account);
        link_held(c, account);
    }
    return account;
}

void refresh_hold(Core& c, uint32_t account) {
    if (update_hold(c, account)) {
        run_account(c, account);
    }
}

void tighten_hold(Core& c, uint32_t account) {
    Account& a = c.accounts[account];
    if ((a.max_running != 0 && a.running >= a.max_running) ||
        (a.tokens_per_minute != 0 && window_tokens(c, a) >= a.tokens_per_minute)) {
        update_hold(c, account);
    }
}

}  // namespace llm::core
