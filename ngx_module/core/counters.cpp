#include "ngx_module/core/counters.hpp"

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr std::string_view kOutcomeNames[] = {
    "completed",
    "rejected_invalid_api_key",
    "rejected_model_not_allowed",
    "rejected_invalid_json",
    "rejected_model_required",
    "rejected_model_not_found",
    "rejected_body_too_large",
    "rejected_unsupported_encoding",
    "rejected_threshold",
    "rejected_max_running",
    "rejected_tokens_per_minute",
    "rejected_queue_full",
    "rejected_queue_timeout",
    "rejected_no_engine",
    "rejected_auth_unavailable",
    "rejected_access_denied",
    "rejected_bad_request",
    "rejected_request_timeout",
    "rejected_not_found",
    "rejected_method_not_allowed",
    "rejected_internal_error",
    "rejected_error",
    "timeout",
    "engine_error",
    "cancelled_queued",
    "cancelled_running",
};
static_assert(std::size(kOutcomeNames) == kOutcomes);

constexpr std::string_view kOthers = "other";  // clients without a series of their own

static_assert(std::size(kWaitBounds) < kMaxBuckets && std::size(kFirstTokenBounds) < kMaxBuckets);
static_assert(std::size(kInterTokenBounds) < kMaxBuckets && std::size(kDurationBounds) < kMaxBuckets);
static_assert(std::size(kDispatchBounds) < kMaxBuckets);

uint64_t load(const uint64_t& counter) {
    return std::atomic_ref<uint64_t>(const_cast<uint64_t&>(counter)).load(std::memory_order_relaxed);
}

template <size_t N>
HistogramView view_of(const Histogram& h, const double (&bounds)[N]) {
    HistogramView view;
    view.bounds = N;
    view.bound = bounds;
    for (size_t i = 0; i <= N; ++i) {
        view.buckets[i] = load(h.buckets[i]);
        view.count += view.buckets[i];
    }
    view.sum = static_cast<double>(load(h.sum_us)) / 1e6;
    return view;
}

}  // namespace

std::string_view outcome_name(Outcome outcome) {
    return kOutcomeNames[static_cast<size_t>(outcome)];
}

void observe_many(Histogram& h, const double* bounds, size_t count, int64_t us, uint64_t times) {
    us = us < 0 ? 0 : us;
    const double seconds = static_cast<double>(us) / 1e6;
    size_t bucket = 0;
    while (bucket < count && seconds > bounds[bucket]) {
        ++bucket;
    }
    bump(h.buckets[bucket], times);
    bump(h.sum_us, static_cast<uint64_t>(us) * times);
}

void observe(Histogram& h, const double* bounds, size_t count, int64_t us) {
    observe_many(h, bounds, count, us, 1);
}

ModelCounters& counters_of(const Tables& t, uint32_t model) {
    return t.model_counters[model < t.header.plan.models ? model + 1 : 0];
}

void observe_wait(const Tables& t, const Request& r, int64_t us) {
    constexpr int32_t kHighest = int32_t{kWaitPriorities} - 1;
    const int32_t priority = r.priority < 0 ? 0 : r.priority > kHighest ? kHighest : r.priority;
    observe(counters_of(t, r.model).wait[priority], kWaitBounds, std::size(kWaitBounds), us);
}

uint32_t client_series(Core& c, const char* name) {
    ZoneHeader& h = c.header;
    if (kOthers == name) {
        return kClientSeries;  // a series is there once
    }
    const auto hash = static_cast<uint32_t>(hash_bytes(name));
    for (uint32_t i = 0; i < h.client_series; ++i) {
        if (h.series[i].name_hash == hash && std::string_view(h.series[i].name) == name) {
            return i;
        }
    }
    if (h.client_series >= kClientSeries) {
        return kClientSeries;
    }
    const uint32_t i = h.client_series;
    copy_text(h.series[i].name, name);
    h.series[i].name_hash = hash;
    std::atomic_ref<uint32_t>(h.client_series).store(i + 1, std::memory_order_release);
    return i;
}

void count_tokens(Core& c, const Request& r, uint64_t prompt, uint64_t completion) {
    ModelCounters& m = counters_of(c, r.model);
    bump(m.prompt_tokens, prompt);
    bump(m.completion_tokens, completion);
    Account& a = c.accounts[r.account];
    a.prompt_tokens += prompt;
    a.completion_tokens += completion;
    ClientSeries& series = c.header.series[a.series <= kClientSeries ? a.series : kClientSeries];
    bump(series.tokens.prompt, prompt);
    bump(series.tokens.completion, completion);
}

void count_outcome(Zone& zone, uint32_t model, Outcome outcome) {
    bump(counters_of(Tables(zone), model).outcomes[static_cast<size_t>(outcome)]);
}

uint64_t read_outcome(const Zone& zone, uint32_t model, Outcome outcome) {
    return load(counters_of(Tables(zone), model).outcomes[static_cast<size_t>(outcome)]);
}

HistogramView read_wait_histogram(const Zone& zone, uint32_t model, uint32_t priority) {
    return view_of(
        counters_of(Tables(zone), model).wait[priority < kWaitPriorities ? priority : kWaitPriorities - 1],
        kWaitBounds);
}

HistogramView read_model_histogram(const Zone& zone, uint32_t model, ModelHistogram which) {
    const ModelCounters& m = counters_of(Tables(zone), model);
    switch (which) {
        case ModelHistogram::time_to_first_token:
            return view_of(m.first_token, kFirstTokenBounds);
        case ModelHistogram::inter_token:
            return view_of(m.inter_token, kInterTokenBounds);
        case ModelHistogram::duration:
            break;
    }
    return view_of(m.duration, kDurationBounds);
}

HistogramView read_dispatch_histogram(const Zone& zone) {
    return view_of(zone.header()->dispatch, kDispatchBounds);
}

TokenTotals read_model_tokens(const Zone& zone, uint32_t model) {
    const ModelCounters& m = counters_of(Tables(zone), model);
    return {load(m.prompt_tokens), load(m.completion_tokens)};
}

uint64_t read_cached_tokens(const Zone& zone, uint32_t model) {
    return load(counters_of(Tables(zone), model).cached_tokens);
}

bool read_client_tokens(const Zone& zone, uint32_t series, ClientTokens& out) {
    ZoneHeader& h = *zone.header();
    const uint32_t used = std::atomic_ref<uint32_t>(h.client_series).load(std::memory_order_acquire);
    if (series > kClientSeries) {
        return false;
    }
    const ClientSeries& entry = h.series[series];
    out.tokens = {load(entry.tokens.prompt), load(entry.tokens.completion)};
    if (series == kClientSeries) {
        copy_text(out.name, kOthers);
        return used == kClientSeries || out.tokens.prompt + out.tokens.completion > 0;
    }
    if (series >= used) {
        out = ClientTokens();
        return false;
    }
    std::memcpy(out.name, entry.name, sizeof out.name);
    return true;
}

ZoneCounters read_counters(const Zone& zone) {
    const ZoneCounters& from = zone.header()->counters;
    ZoneCounters to;
    to.leases_reaped = load(from.leases_reaped);
    to.grants_expired = load(from.grants_expired);
    to.rebuilds = load(from.rebuilds);
    to.tokens_estimated = load(from.tokens_estimated);
    to.bad_reports = load(from.bad_reports);
    to.engines_lost = load(from.engines_lost);
    to.observed_rejections = load(from.observed_rejections);
    to.observed_queued = load(from.observed_queued);
    to.grants = load(from.grants);
    to.aged_grants = load(from.aged_grants);
    to.usage_written = load(from.usage_written);
    to.usage_dropped = load(from.usage_dropped);
    return to;
}

void count_usage_records(Zone& zone, uint64_t written, uint64_t dropped) {
    bump(zone.header()->counters.usage_written, written);
    bump(zone.header()->counters.usage_dropped, dropped);
}

}  // namespace llm::core
