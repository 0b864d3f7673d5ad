// Counters: what happened, for Prometheus. Relaxed atomics in the zone; monotone across reloads; torn sums
// after a crash are acceptable. All functions are lock-free and may be called with or without the ZoneLock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

// Label value of llm_requests_total{outcome}: "completed", "rejected_threshold", …
std::string_view outcome_name(Outcome outcome);

// Upper bounds of the histograms' buckets, seconds; +Inf is implied.
constexpr double kWaitBounds[] = {0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120};
constexpr double kFirstTokenBounds[] = {0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 25, 60, 120};
constexpr double kInterTokenBounds[] = {0.002, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05,
                                        0.075, 0.1,   0.2,  0.5,  1,    2.5};
constexpr double kDurationBounds[] = {0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640};
constexpr double kDispatchBounds[] = {0.00005, 0.0001, 0.0002, 0.0003, 0.0005, 0.001,
                                      0.002,   0.005,  0.01,   0.1,    1};
constexpr size_t kMaxBuckets = 16;        // of any histogram, +Inf included
constexpr uint32_t kWaitPriorities = 11;  // llm_queue_wait_seconds: priority clamped to 0..10

// A copy of one histogram. buckets[i] counts observations ≤ bounds[i] and above the bound before (not
// cumulative); the last used one, at index `bounds`, is +Inf.
struct HistogramView {
    size_t bounds = 0;
    const double* bound = nullptr;
    uint64_t buckets[kMaxBuckets] = {};
    uint64_t count = 0;
    double sum = 0;
};

// Time to first token and duration count from the request's arrival; a non-stream has no first token.
enum class ModelHistogram : uint8_t { time_to_first_token, inter_token, duration };

// `model` = kNone reads or counts the series model="". count_outcome() is for requests that ended without
// finish(), cancel() or the death of their process, which count by themselves: refusals, above all.
void count_outcome(Zone& zone, uint32_t model, Outcome outcome);
uint64_t read_outcome(const Zone& zone, uint32_t model, Outcome outcome);
HistogramView read_wait_histogram(const Zone& zone, uint32_t model, uint32_t priority);
HistogramView read_model_histogram(const Zone& zone, uint32_t model, ModelHistogram which);
HistogramView read_dispatch_histogram(const Zone& zone);

struct TokenTotals {
    uint64_t prompt = 0;
    uint64_t completion = 0;
};
TokenTotals read_model_tokens(const Zone& zone, uint32_t model);
// Of the model's prompt tokens, those that engines say their prefix caches had.
uint64_t read_cached_tokens(const Zone& zone, uint32_t model);

// Token series of clients: 0..199 are the first clients to appear, by name; kClientSeries is "other", all further ones
// and those who bear that name. False for a series that is not there.
struct ClientTokens {
    char name[kMaxNameBytes + 1] = {};
    TokenTotals tokens;
};
constexpr uint32_t kClientSeries = 200;
bool read_client_tokens(const Zone& zone, uint32_t series, ClientTokens& out);

struct ZoneCounters {
    uint64_t leases_reaped = 0;
    uint64_t grants_expired = 0;
    uint64_t rebuilds = 0;          // the lock was found dirty
    uint64_t tokens_estimated = 0;  // completion tokens charged without the engine's usage
    uint64_t bad_reports = 0;
    uint64_t engines_lost = 0;         // they stopped reporting without saying goodbye
    uint64_t observed_rejections = 0;  // llm_observe: would have been refused
    uint64_t observed_queued = 0;      // llm_observe: would have waited
    uint64_t grants = 0;
    uint64_t aged_grants = 0;  // dispatches that passed a stricter class
    uint64_t usage_written = 0;  // usage records that the database has taken
    uint64_t usage_dropped = 0;  // and that were lost
};
ZoneCounters read_counters(const Zone& zone);

void count_usage_records(Zone& zone, uint64_t written, uint64_t dropped);

}  // namespace llm::core
