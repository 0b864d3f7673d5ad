// Makes reports of observations: states, counters since the boot, and silence where nothing is known.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "engine_worker/reporter/engine_probe.hpp"
#include "shared/engine_report.hpp"

namespace llm::reporter {

struct MakerOptions {
    EngineReport fixed;  // id, url, org, ttl_ms; max_running and max_context when the operator gives them
    bool has_max_running = false;
    bool has_max_context = false;
    uint32_t default_max_running = 64;
    double fail_after_s = 5;  // of absence until an engine that was ready has failed
};

// Pure: clocks come as arguments.
class ReportMaker {
  public:
    explicit ReportMaker(const MakerOptions& options) : options_(options) {}

    // Takes what was seen; `now` in seconds of a monotonic clock, `unix_ms` of the wall. Returns what is to
    // be said now, or nothing: an engine of unknown models, or one that is silent or strange. An engine is
    // `loading` until it was ready once, and `failed` when it was ready and is not any more.
    std::optional<EngineReport> take(const Observation& seen, double now, uint64_t unix_ms);

  private:
    void restart(const Observation& seen, double now, uint64_t unix_ms, bool engine_restarted);
    bool has_restarted(const Observation& seen) const;
    void fill(const Observation& seen, double now, EngineReport& out);
    double counter(const Observation& seen, Field field);

    MakerOptions options_;
    uint64_t boot_ = 0;
    double booted_at_ = 0;
    bool was_ready_ = false;
    std::optional<double> away_since_;
    std::array<double, kFieldCount> raw_{};       // counters as last seen
    std::array<double, kFieldCount> baseline_{};  // and at the boot
    std::array<double, kFieldCount> told_{};      // since the boot, never falling
    double decode_tokens_ = 0;                    // as reported
    double user_seconds_ = 0;
    std::deque<std::pair<double, double>> waiting_;  // (when, how many) of the last second
    std::vector<std::string> models_;
    EngineReport last_;
};

}  // namespace llm::reporter
