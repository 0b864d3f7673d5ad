// Tells gateways, through Redis, that an engine exists, what it serves and how fast it is (docs: engine
// report). Used by llm-engine for itself and by llm-reporter for others.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "engine_worker/server/redis_client.hpp"
#include "shared/engine_report.hpp"

namespace llm::engine {

struct PublisherOptions {
    RedisUrl redis;
    std::string prefix = "llm:";
    double heartbeat = 0.4;  // seconds between reports when nothing changes: 0.5 with what waking takes
    double min_gap = 0.1;                // seconds between reports when much changes
    std::string program = "llm-engine";  // for log lines
};

// Speed over the last two seconds of a boot, from reports of cumulative counters.
class RecentRates {
  public:
    // Fills tokens_per_second and tokens_per_second_per_user of `report` and remembers it. `now` in seconds.
    void apply(EngineReport& report, double now);

  private:
    struct Sample {
        double at = 0, tokens_out = 0, decode_tokens = 0, user_seconds = 0;
    };
    uint64_t boot_ = 0;
    std::deque<Sample> samples_;
};

// Owns its thread: Redis being absent, slow or restarted delays nothing but reports.
class ReportPublisher {
  public:
    using Snapshot = std::function<std::optional<EngineReport>()>;
    // `snapshot` gives a report without seq and rates, or nothing when there is nothing to say; called from
    // the publisher's thread.
    ReportPublisher(const PublisherOptions& options, Snapshot snapshot);
    ~ReportPublisher();  // without a goodbye

    void notify();  // something changed; any thread, does not block

    // Deletes the key, publishes "gone" and ends the thread. Takes at most a few seconds.
    void goodbye();

  private:
    void run();
    bool publish(const EngineReport& report);
    void say_gone();
    std::string write(EngineReport& report);
    void end(bool say_goodbye);

    PublisherOptions options_;
    Snapshot snapshot_;
    std::optional<EngineReport> published_;  // the last one that Redis has taken
    RedisClient redis_;
    RecentRates rates_;
    uint64_t seq_ = 0;
    std::string trouble_;  // why Redis could not be told the last time; empty = it was

    std::mutex mutex_;
    std::condition_variable wake_;
    bool changed_ = false;
    bool ending_ = false;
    bool say_goodbye_ = false;
    std::thread thread_;
};

}  // namespace llm::engine
