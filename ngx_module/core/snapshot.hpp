// Snapshots for the web layer: copies of what is queued, which engines there are and who is active, taken in
// bounded batches so that the lock is never held for long. A walk in batches is not one instant; that is fine
// for people.
#pragma once

#include <cstdint>

#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

struct RequestSnapshot {
    Ticket ticket;
    RequestState state = RequestState::free;
    char client[kMaxNameBytes + 1] = {};
    uint32_t model = kNone;
    uint32_t engine = kNone;
    int32_t priority = 0;
    int32_t level_class = 0;
    uint32_t seats = 1;
    uint32_t attempts = 0;
    uint32_t prompt_tokens = 0;
    uint32_t completion_tokens = 0;
    bool stream = false;
    bool held_back = false;  // waits for its client's own limit, not for an engine
    bool parked = false;     // its owner is silent
    int64_t arrived_us = 0;
    int64_t queued_us = 0;      // arrival, later by the time that engines had it which it failed on
    int64_t dispatched_us = 0;  // 0 = not yet
};
// Copies live requests from slot `cursor` on: at most `capacity`, looking at no more than 1024 slots. Moves
// the cursor; the walk is over when cursor == plan().requests. Returns how many were copied.
uint32_t snapshot_requests(const ZoneLock& lock, uint32_t& cursor, RequestSnapshot* out, uint32_t capacity);
// One request; false when stale.
bool snapshot_request(const ZoneLock& lock, Ticket ticket, RequestSnapshot& out);

enum class Breaker : uint8_t { closed, open, half_open };

struct EngineSnapshot {
    uint32_t engine = kNone;
    char id[kMaxEngineIdBytes + 1] = {};
    char url[kMaxEngineUrlBytes + 1] = {};
    char org[kMaxOrgBytes + 1] = {};
    uint8_t state = 0;  // llm::EngineState
    Breaker breaker = Breaker::closed;
    bool is_static = false;
    bool backup = false;
    bool drained = false;  // by an administrator
    bool leaving = false;  // gone; its last leases run out
    bool usable = false;   // ready, breaker closed, has an address, not drained
    bool slow_start = false;
    bool below_minimum = false;
    bool has_report = false;
    uint32_t models[kMaxEngineModels] = {};
    uint32_t model_count = 0;
    uint32_t held = 0;  // seats
    uint32_t foreign = 0;
    uint32_t max_running = 0;
    uint32_t reported_running = 0;
    uint32_t reported_waiting = 0;
    double limit = 0;    // L
    double speed = 0;    // v: tokens/s per user, filtered; 0 = unknown
    double minimum = 0;  // the minimum that it must keep
    double tokens_per_second = 0;
    double tokens_per_second_per_user = 0;
    double kv_usage = 0;
    int64_t report_us = 0;      // time of the last newer report; 0 = never
    int64_t report_ttl_us = 0;  // life of a report, as it says
    uint64_t served = 0;    // leases that ended with a complete answer
    uint64_t failures = 0;
};
// Copies engines from slot `cursor` on; the walk is over when cursor == plan().engines.
uint32_t snapshot_engines(const ZoneLock& lock, uint32_t& cursor, EngineSnapshot* out, uint32_t capacity);

struct AccountSnapshot {
    char name[kMaxNameBytes + 1] = {};
    char organisation[kMaxOrgBytes + 1] = {};
    int32_t priority = 0;
    double weight = 0;
    int32_t band = 0;
    uint32_t running = 0;  // seats
    uint32_t waiting = 0;  // requests
    int32_t threshold = 0;
    uint32_t max_running = 0;
    uint32_t tokens_per_minute = 0;
    uint32_t tokens_last_minute = 0;
    uint64_t prompt_tokens = 0;  // since its account was opened
    uint64_t completion_tokens = 0;
};
// Copies accounts (clients with live requests or a recent past); the walk is over when cursor ==
// plan().accounts.
uint32_t snapshot_accounts(const ZoneLock& lock, uint32_t& cursor, AccountSnapshot* out, uint32_t capacity,
                           int64_t now_us);

struct QueueTotals {
    uint32_t queued = 0;
    uint32_t granted = 0;
    uint32_t running = 0;
    uint32_t held = 0;  // seats on all engines
};
QueueTotals queue_totals(const ZoneLock& lock);

// Recomputes every derived count from the request table and compares. True when all agree (invariant I1 and
// tests). `where` is set to the name of the first that does not. O(zone).
bool check_zone(const ZoneLock& lock, const char** where);

}  // namespace llm::core
