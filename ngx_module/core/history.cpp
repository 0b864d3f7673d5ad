#include "ngx_module/core/history.hpp"

#include <algorithm>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

// Counters are torn at worst by a crash: a difference that makes no sense is shown as nothing, or as much.
uint32_t difference(uint64_t now, uint64_t before) {
    const uint64_t grown = now > before ? now - before : 0;
    return grown < 0xffffffffu ? static_cast<uint32_t>(grown) : 0xffffffffu;
}

template <size_t N>
float quantile_between(const double (&bound)[N], const uint64_t* now, const uint64_t* before, double share,
                       uint32_t* count = nullptr) {
    uint64_t grown[kMaxBuckets] = {};
    uint64_t all = 0;
    for (size_t i = 0; i <= N; ++i) {
        grown[i] = difference(now[i], before[i]);
        all += grown[i];
    }
    if (count != nullptr) {
        *count = difference(all, 0);
    }
    return static_cast<float>(histogram_quantile(bound, N, grown, share));
}

void add_buckets(uint64_t* sum, const HistogramView& view) {
    for (size_t i = 0; i <= view.bounds; ++i) {
        sum[i] += view.buckets[i];
    }
}

void add_outcomes(HistoryTotals& totals, const Zone& zone, uint32_t model) {
    for (size_t i = 0; i < kOutcomes; ++i) {
        const auto outcome = static_cast<Outcome>(i);
        const uint64_t count = read_outcome(zone, model, outcome);
        if (outcome == Outcome::completed) {
            totals.completed += count;
        } else if (outcome == Outcome::timeout || outcome == Outcome::engine_error) {
            totals.failed += count;
        } else if (outcome == Outcome::cancelled_queued || outcome == Outcome::cancelled_running) {
            totals.cancelled += count;
        } else {
            totals.rejected += count;
        }
    }
}

}  // namespace

bool history_due(const Zone& zone, int64_t now_us) {
    const int64_t last = std::atomic_ref<int64_t>(zone.header()->history_us).load(std::memory_order_relaxed);
    return last == 0 || now_us - last >= kHistoryIntervalUs;
}

HistoryTotals history_totals(const Zone& zone) {
    HistoryTotals totals;
    add_outcomes(totals, zone, kNone);
    const uint32_t models = model_count(zone);
    for (uint32_t model = 0; model < models; ++model) {
        add_outcomes(totals, zone, model);
        const TokenTotals tokens = read_model_tokens(zone, model);
        totals.prompt_tokens += tokens.prompt;
        totals.completion_tokens += tokens.completion;
        for (uint32_t priority = 0; priority < kWaitPriorities; ++priority) {
            add_buckets(totals.wait, read_wait_histogram(zone, model, priority));
        }
        add_buckets(totals.first_token,
                    read_model_histogram(zone, model, ModelHistogram::time_to_first_token));
    }
    return totals;
}

void record_history(const ZoneLock& lock, const HistoryTotals& totals, int64_t now_us, int64_t wall_s) {
    ZoneHeader& h = *lock.zone().header();
    std::atomic_ref<int64_t> last(h.history_us);
    const int64_t before_us = last.load(std::memory_order_relaxed);
    if (before_us != 0 && now_us - before_us < kHistoryIntervalUs) {
        return;
    }
    if (before_us != 0) {
        const HistoryTotals& before = h.history_totals;
        HistorySample sample;
        sample.wall_s = wall_s;
        sample.interval_ms =
            difference(static_cast<uint64_t>(now_us / 1000), static_cast<uint64_t>(before_us / 1000));
        sample.queued = h.queued;
        sample.running = h.held;
        sample.completed = difference(totals.completed, before.completed);
        sample.rejected = difference(totals.rejected, before.rejected);
        sample.failed = difference(totals.failed, before.failed);
        sample.cancelled = difference(totals.cancelled, before.cancelled);
        sample.prompt_tokens = difference(totals.prompt_tokens, before.prompt_tokens);
        sample.completion_tokens = difference(totals.completion_tokens, before.completion_tokens);
        sample.wait_p50_s = quantile_between(kWaitBounds, totals.wait, before.wait, .5, &sample.dispatched);
        sample.wait_p95_s = quantile_between(kWaitBounds, totals.wait, before.wait, .95);
        sample.first_token_p50_s =
            quantile_between(kFirstTokenBounds, totals.first_token, before.first_token, .5);
        h.history[h.history_count % kHistorySamples] = sample;
        h.history_count++;
        h.history_totals = totals;
    }
    last.store(now_us, std::memory_order_relaxed);
}

uint32_t read_history(const ZoneLock& lock, HistorySample* out, uint32_t capacity) {
    const ZoneHeader& h = *lock.zone().header();
    const uint64_t kept = std::min<uint64_t>(h.history_count, kHistorySamples);
    const uint64_t wanted = std::min<uint64_t>(kept, capacity);
    for (uint64_t i = 0; i < wanted; ++i) {
        out[i] = h.history[(h.history_count - wanted + i) % kHistorySamples];
    }
    return static_cast<uint32_t>(wanted);
}

double histogram_quantile(const double* bound, size_t bounds, const uint64_t* counts, double share) {
    uint64_t all = 0;
    for (size_t i = 0; i <= bounds; ++i) {
        all += counts[i];
    }
    if (all == 0) {
        return 0;
    }
    const double rank = share * static_cast<double>(all);
    double below = 0;
    for (size_t i = 0; i < bounds; ++i) {
        const auto here = static_cast<double>(counts[i]);
        if (here > 0 && below + here >= rank) {
            const double low = i == 0 ? 0 : bound[i - 1];
            return low + (bound[i] - low) * ((rank - below) / here);
        }
        below += here;
    }
    return bound[bounds - 1];
}

}  // namespace llm::core
