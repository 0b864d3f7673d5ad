#include "engine_worker/reporter/report_maker.hpp"

#include <algorithm>
#include <cmath>

namespace llm::reporter {
namespace {

constexpr Field kCounters[] = {Field::tokens_in, Field::tokens_out, Field::decode_tokens, Field::user_seconds,
                               Field::completed};
// Of these only those that an engine gives as they are: a difference of two may fall by itself.
constexpr Field kPlainCounters[] = {Field::tokens_in, Field::tokens_out, Field::completed};
constexpr double kWaitsLong = 1.0;  // seconds
constexpr double kSameStart = 1.0;  // seconds between two tellings of one start
constexpr uint32_t kMostRunning = 1'000'000;

size_t index(Field field) {
    return static_cast<size_t>(field);
}

uint32_t whole(double value, uint32_t low, uint32_t high) {
    return static_cast<uint32_t>(std::clamp(value, double{1.0} * low, double{1.0} * high));
}

}  // namespace

bool ReportMaker::has_restarted(const Observation& seen) const {
    if (seen[Field::started] && raw_[index(Field::started)] > 0 &&
        std::abs(*seen[Field::started] - raw_[index(Field::started)]) > kSameStart) {
        return true;
    }
    return std::any_of(std::begin(kPlainCounters), std::end(kPlainCounters),
                       [&](Field field) { return seen[field] && *seen[field] < raw_[index(field)]; });
}

void ReportMaker::restart(const Observation& seen, double now, uint64_t unix_ms, bool engine_restarted) {
    boot_ = std::max(unix_ms, boot_ + 1);
    booted_at_ = now;
    waiting_.clear();
    told_.fill(0);
    decode_tokens_ = user_seconds_ = 0;
    for (const Field field : kCounters) {
        // A restarted engine has counted from 0; one that we meet has counted for others before.
        baseline_[index(field)] = engine_restarted ? 0 : seen[field].value_or(0);
        raw_[index(field)] = 0;
    }
}

double ReportMaker::counter(const Observation& seen, Field field) {
    const size_t i = index(field);
    if (seen[field]) {
        raw_[i] = *seen[field];
        told_[i] = std::max(told_[i], raw_[i] - baseline_[i]);
    }
    return told_[i];
}

void ReportMaker::fill(const Observation& seen, double now, EngineReport& out) {
    const auto value = [&seen](Field field) { return seen[field].value_or(0); };
    out.running = whole(value(Field::running), 0, kMostRunning);
    out.kv_usage = std::clamp(value(Field::kv_usage), 0.0, 1.0);
    // Engines tell how many wait, not for how long: as many as waited all through the last second.
    waiting_.emplace_back(now, value(Field::waiting));
    while (waiting_.size() > 1 && waiting_[1].first <= now - kWaitsLong) {
        waiting_.pop_front();
    }
    double least = waiting_.front().first <= now - kWaitsLong ? waiting_.front().second : 0;
    for (const auto& [at, count] : waiting_) {
        least = std::min(least, count);
    }
    out.waiting = whole(least, 0, kMostRunning);
    out.uptime_s = now - booted_at_;
    out.tokens_in = counter(seen, Field::tokens_in);
    out.tokens_out = counter(seen, Field::tokens_out);
    out.completed = counter(seen, Field::completed);
    // Tokens and their seconds move together or not at all: an engine that prints large counters in steps
    // (llama.cpp: six digits) would seem to have made tokens in no time, and then to have taken time for
    // none.
    const double seconds = counter(seen, Field::user_seconds);
    const double tokens = seen[Field::decode_tokens] ? counter(seen, Field::decode_tokens) : out.tokens_out;
    if (tokens > decode_tokens_ && seconds > user_seconds_) {
        decode_tokens_ = tokens;
        user_seconds_ = seconds;
    }
    out.decode_tokens = decode_tokens_;
    out.user_seconds = user_seconds_;
    out.has_counters = seen[Field::user_seconds] && (seen[Field::decode_tokens] || seen[Field::tokens_out]);
    if (!options_.has_max_running) {
        out.max_running =
            whole(seen[Field::max_running].value_or(options_.default_max_running), 1, kMostRunning);
    }
    if (!options_.has_max_context) {
        out.max_context = whole(value(Field::max_context), 0, UINT32_MAX);
    }
}

std::optional<EngineReport> ReportMaker::take(const Observation& seen, double now, uint64_t unix_ms) {
    if (!seen.models.empty()) {
        models_ = seen.models;
    }
    if (boot_ == 0) {
        boot_ = unix_ms;
        booted_at_ = now;
    }
    if (models_.empty()) {
        return std::nullopt;
    }
    EngineReport out = options_.fixed;
    out.models = models_;
    out.boot = boot_;
    if (seen.health == Health::up) {
        if (!was_ready_ || has_restarted(seen)) {
            restart(seen, now, unix_ms, was_ready_);
        }
        raw_[index(Field::started)] = seen[Field::started].value_or(0);
        was_ready_ = true;
        away_since_.reset();
        out.boot = boot_;
        out.state = EngineState::ready;
        fill(seen, now, out);
        last_ = out;
        return out;
    }
    waiting_.clear();
    if (!was_ready_) {
        // Not there yet: requests may wait for it. Something else at its address is not "loading".
        if (seen.health != Health::not_ready && seen.health != Health::absent) {
            return std::nullopt;
        }
        out.max_running = options_.has_max_running ? out.max_running : options_.default_max_running;
        out.state = EngineState::loading;
        return out;
    }
    if (seen.health == Health::silent || seen.health == Health::strange) {
        away_since_.reset();  // somebody listens
        return std::nullopt;  // may be busy, or what answers is not the engine: nothing is known
    }
    away_since_ = away_since_.value_or(now);
    if (seen.health == Health::absent && now - *away_since_ < options_.fail_after_s) {
        return std::nullopt;
    }
    out = last_;
    out.state = EngineState::failed;
    out.running = 0;
    out.waiting = 0;
    out.kv_usage = 0;
    return out;
}

}  // namespace llm::reporter
