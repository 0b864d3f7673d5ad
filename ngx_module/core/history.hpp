// The last fifteen minutes, for the dashboard: one sample of totals each five seconds, in a ring in the zone,
// so that a page that was just opened has something to show. Not for billing: a crash may cost one sample.
//
// Whoever sweeps records: the sums are read without the lock, the sample is stored under it.
#pragma once

#include <cstdint>

#include "ngx_module/core/counters.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

constexpr int64_t kHistoryIntervalUs = 5'000'000;
constexpr uint32_t kHistorySamples = 180;

// What happened within one interval, and how things stood at its end.
struct HistorySample {
    int64_t wall_s = 0;        // its end, seconds since 1970
    uint32_t interval_ms = 0;  // its length: longer than usual when no worker was there to record
    uint32_t queued = 0;       // at the end
    uint32_t running = 0;      // at the end, seats
    uint32_t completed = 0;
    uint32_t rejected = 0;  // rejected_…
    uint32_t failed = 0;    // timeout, engine_error
    uint32_t cancelled = 0;
    uint32_t prompt_tokens = 0;
    uint32_t completion_tokens = 0;
    uint32_t dispatched = 0;  // requests whose wait ended
    float wait_p50_s = 0;     // of these; 0 when there were none
    float wait_p95_s = 0;
    float first_token_p50_s = 0;  // of the streams that began within the interval; 0 when none did
    uint32_t reserved = 0;
};
static_assert(sizeof(HistorySample) == 64);

// Sums over all models since the zone was made.
struct HistoryTotals {
    uint64_t completed = 0;
    uint64_t rejected = 0;
    uint64_t failed = 0;
    uint64_t cancelled = 0;
    uint64_t prompt_tokens = 0;
    uint64_t completion_tokens = 0;
    uint64_t wait[kMaxBuckets] = {};
    uint64_t first_token[kMaxBuckets] = {};
};

// Whether a sample is due. Without the lock; O(1).
bool history_due(const Zone& zone, int64_t now_us);

// Without the lock; O(models).
HistoryTotals history_totals(const Zone& zone);

// Stores one sample, unless somebody else has done so since history_due(). The very first call only starts
// the first interval, which has all that happened since the zone was made. O(1).
void record_history(const ZoneLock& lock, const HistoryTotals& totals, int64_t now_us, int64_t wall_s);

// Copies the newest samples, oldest first; returns how many. O(capacity).
uint32_t read_history(const ZoneLock& lock, HistorySample* out, uint32_t capacity);

// Linear within its bucket; the last bound when it lies beyond; 0 without observations. `counts` has bounds +
// 1 entries, not cumulative. 0 <= share <= 1.
double histogram_quantile(const double* bound, size_t bounds, const uint64_t* counts, double share);

}  // namespace llm::core
