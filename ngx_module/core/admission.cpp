// The admission law: how many requests an engine may run at a pleasant speed for everyone on it.
//
// Speed per user comes from cumulative counters (Δdecode_tokens / Δuser_seconds), never from an instantaneous
// quotient, which lies during prefill. The limit L grows while the speed is above 1.15 times the minimum and
// the room is used, and shrinks in proportion when it is below (docs/scheduler.md, "When").
#include <algorithm>
#include <cmath>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr double kMargin = 1.15;   // aim this much above the minimum
constexpr double kFilterS = 2;     // time constant of the speed filter
// Going down is quicker than going up: what runs cannot be removed, so a limit that is too high is felt for as
// long as its requests last, one that is too low only until the next report. With the same gain both ways 1.6 to
// 1.8 % of 5 s windows were below the minimum in bench/simulate, with this 0 to 0.5 %, for 0.6 % of the tokens.
constexpr double kDownward = 1.5;
constexpr double kMaxSpeed = 1e5;  // tokens/s per user: more is a lie
constexpr double kFirstLimit = 2;
constexpr double kSlowStartEnds = 0.15;  // e below this, twice, with ≥ 1 user-second each
constexpr double kKvNoGrowth = 0.92;
constexpr double kKvShrink = 0.97;
constexpr double kStaleHold = 0.8;
// An answer in one piece tells the speed as a lower bound only: its prompt's time is within its own. One that takes
// less than this at the speed aimed at tells of its prompt and nothing else.
constexpr double kTellingS = 1;
constexpr int64_t kWholeLifeUs = 10'000'000;
constexpr double kMaxStepS = 3600;
constexpr uint32_t kMaxReported = 1'000'000;  // users of one engine: more is a lie

// The reaction to one measured step. `growth` false: may only shrink.
void adapt(Core& c, Engine& e, double dt, double tokens, double user_seconds, bool growth) {
    const double minimum = minimum_of(c, e);
    const double a = 1 - std::exp(-dt / kFilterS);
    e.et += a * (tokens / dt - e.et);
    e.eu += a * (user_seconds / dt - e.eu);
    const double v = e.eu > 0 ? e.et / e.eu : 0;
    if (minimum <= 0) {
        return;
    }
    const double error = v / (kMargin * minimum) - 1;
    const double gain = std::min(0.4, 1 - std::exp(-0.5 * dt));
    const double g = std::min(dt, 1.0);
    const double load = static_cast<double>(e.held) + e.foreign;
    if (e.slow_start != 0) {
        e.slow_user_seconds += user_seconds;
        if (e.slow_user_seconds >= 1) {
            e.slow_user_seconds = 0;
            if (error < kSlowStartEnds && ++e.slow_reports >= 2) {
                e.slow_start = 0;
            }
        }
    }
    if (error >= 0) {
        e.below_minimum = 0;
        if (growth && e.kv_usage <= kKvNoGrowth && load + 1 >= 0.8 * e.limit) {
            e.limit += e.slow_start != 0 ? e.limit * g
                                         : std::max(std::min(gain * error * e.limit, 0.10 * e.limit * g),
                                                    g * std::min(1.0, error / 0.05));
        }
        return;
    }
    e.limit += std::max(kDownward * gain * error, -0.30) * e.limit;
    e.limit = std::min(e.limit, 1.25 * load + 2);  // running requests cannot be removed
    if (e.limit <= 1) {
        e.below_minimum = 1;
    }
}

// Own counters of the interval, taken and reset.
void restart_own(Core& c, Engine& e) {
    e.own_tokens = 0;
    e.own_user_seconds = 0;
    e.whole_tokens = 0;
    e.whole_user_seconds = 0;
    e.own_answers = 0;
    e.own_us = c.now;
}

}  // namespace

double minimum_of(const Tables& t, const Engine& e) {
    double minimum = 0;
    for (uint32_t i = 0; i < e.model_count; ++i) {
        minimum = std::max(minimum, t.models[e.models[i]].minimum);
    }
    return minimum;
}

void clamp_limit(Core& c, Engine& e) {
    const double most = e.max_running >= 1 ? e.max_running : 1;
    if (!(e.limit >= 1)) {  // NaN too
        e.limit = 1;
    }
    e.limit = std::min(e.limit, most);
}

void start_limit(Core& c, Engine& e) {
    e.below_minimum = 0;
    e.et = e.eu = 0;
    e.slow_reports = 0;
    e.slow_user_seconds = 0;
    e.stale_hold = 0;
    restart_own(c, e);
    e.recover_us = c.now;
    e.slow_start = minimum_of(c, e) > 0 ? 1 : 0;
    e.limit = e.slow_start != 0 ? kFirstLimit : e.max_running;
    clamp_limit(c, e);
}

void control(Core& c, Engine& e, const EngineReport& report, bool other_boot) {
    const double dt = report.uptime_s > 0 && e.uptime_s > 0 ? report.uptime_s - e.uptime_s
                                                            : static_cast<double>(c.now - e.report_us) / 1e6;
    const double tokens = report.decode_tokens - e.decode_tokens;
    const double user_seconds = report.user_seconds - e.user_seconds;
    const double completed = report.completed - e.completed;
    const bool baseline = e.has_baseline != 0 && !other_boot;
    const uint32_t held_then = std::max(e.held, e.held_high);
    const uint64_t reported =
        uint64_t{std::min(report.running, kMaxReported)} + std::min(report.waiting, kMaxReported);

    e.uptime_s = report.uptime_s;
    e.decode_tokens = report.decode_tokens;
    e.user_seconds = report.user_seconds;
    e.completed = report.completed;
    e.has_baseline = report.has_counters ? 1 : 0;
    e.kv_usage = std::isfinite(report.kv_usage) ? std::min(std::max(report.kv_usage, 0.0), 1.0) : 0;
    e.reported_running = std::min(report.running, kMaxReported);
    e.reported_waiting = std::min(report.waiting, kMaxReported);
    // A report is some milliseconds old: whatever this zone held since the one before may be in it.
    e.foreign = reported > held_then ? static_cast<uint32_t>(reported - held_then) : 0;
    e.held_high = e.held;
    e.stale_hold = 0;
    if (report.has_counters) {
        restart_own(c, e);  // otherwise our own streams are all that is measured (control_stale())
    }

    const bool credible = baseline && report.has_counters && dt > 0 && dt < kMaxStepS && tokens >= 0 &&
                          user_seconds >= 0 && completed >= 0 && std::isfinite(tokens) &&
                          std::isfinite(user_seconds);
    const double minimum = minimum_of(c, e);
    if (credible && user_seconds > 0) {
        if (tokens / user_seconds <= kMaxSpeed && user_seconds <= kMaxReported * dt) {
            adapt(c, e, dt, tokens, user_seconds, true);
        }
    } else if (credible && minimum > 0 && completed > 0 && report.waiting == 0 && e.kv_usage <= kKvNoGrowth) {
        e.limit += std::min(1.0, dt);  // embeddings, one-token answers
    }
    if (minimum > 0) {
        if (e.kv_usage > kKvShrink) {
            e.limit = std::min(e.limit, 0.9 * e.held);
        }
        if (e.reported_waiting > 0) {
            const double total = static_cast<double>(e.reported_running) + e.reported_waiting;
            e.limit = std::min(e.limit, e.held * e.reported_running / total);
        }
    }
    clamp_limit(c, e);
}

void engine_saturated(Core& c, Engine& e) {
    e.limit = std::min(e.limit, static_cast<double>(e.held) - 1);
    e.recover_us = c.now;
    clamp_limit(c, e);
}

void measure_answer(Core& c, Engine& e, const Request& r, const Usage& usage) {
    const double tokens = static_cast<double>(usage.completion_tokens) / r.seats;
    if (r.stream == 0 && tokens > 1 && tokens >= kMargin * minimum_of(c, e) * kTellingS) {
        const int64_t end = r.last_token_us != 0 ? r.last_token_us : c.now;
        e.whole_tokens += usage.completion_tokens;
        e.whole_user_seconds += static_cast<double>(end - r.granted_us) / 1e6 * r.seats;
    } else if (usage.exact && usage.prompt_tokens != 0 && (r.stream == 0 || tokens <= 1)) {
        e.own_answers++;
    }
}

void control_stale(Core& c, Engine& e) {
    const double minimum = minimum_of(c, e);
    if (minimum <= 0) {
        // No minimum: back to max_running after the engine itself refused, a tenth per second.
        const double dt = static_cast<double>(c.now - e.recover_us) / 1e6;
        if (dt >= 0.2) {
            e.recover_us = c.now;
            e.limit += std::max(1.0, 0.1 * e.limit) * std::min(dt, 1.0);
            clamp_limit(c, e);
        }
    }
    const int64_t unit = e.announced != 0 ? e.ttl_us / 6 : 0;
    const bool silent = e.announced == 0 || c.now - e.report_us > 10 * unit;
    if (!silent && e.has_baseline != 0) {
        return;
    }
    // Silent, never reports, or reports without counters of speed: the gateway measures its own streams. Of foreign
    // requests nobody knows where there are no reports.
    if (silent) {
        e.foreign = 0;
    }
    const double dt = static_cast<double>(c.now - e.own_us) / 1e6;
    if (dt < 0.5) {
        return;
    }
    // What streams tell is exact, so a lower bound counts only where there are none.
    const bool whole = e.own_user_seconds <= 0 && e.whole_user_seconds > 0;
    const double tokens = whole ? e.whole_tokens : e.own_tokens;
    const double user_seconds = whole ? e.whole_user_seconds : e.own_user_seconds;
    if (user_seconds > 0 && tokens / user_seconds <= kMaxSpeed) {
        e.whole_us = whole ? c.now : e.whole_us;
        e.stale_hold = silent ? 1 : 0;
        e.kv_usage = silent ? 0 : e.kv_usage;
        adapt(c, e, std::min(dt, kFilterS), tokens, user_seconds, true);
        clamp_limit(c, e);
    } else if (user_seconds <= 0 && e.own_answers != 0 && minimum > 0) {
        e.stale_hold = silent ? 1 : 0;
        if (e.whole_us == 0 || c.now - e.whole_us > kWholeLifeUs) {  // longer ones tell more, but end more rarely
            e.limit += std::min(1.0, dt);  // embeddings, short answers, as in control()
            clamp_limit(c, e);
        }
    } else if (silent && e.stale_hold == 0 && e.announced != 0 && minimum > 0) {
        e.stale_hold = 1;
        e.limit *= kStaleHold;
        clamp_limit(c, e);
    }
    restart_own(c, e);
}

}  // namespace llm::core
