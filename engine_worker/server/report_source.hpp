// What llm-engine's own report says (docs: engine report): who it is, and how it is doing.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "engine_worker/scheduler/engine_thread.hpp"
#include "engine_worker/server/api_service.hpp"
#include "engine_worker/server/options.hpp"
#include "shared/engine_report.hpp"

namespace llm::engine {

// Fills in what never changes. `port`: that of the server, 0 for a UNIX socket. Returns why an engine with
// these options cannot be reported, or nothing.
std::string describe_engine(const Options& options, uint16_t port, EngineReport& out);

// The changing part. An engine reports from its first second on; until its model is loaded all counters are
// zero.
class ReportSource {
  public:
    // `service` must outlive this object.
    ReportSource(EngineReport fixed, const ApiService& service);

    // Any thread, once: the model is loaded. `engine` must outlive this object; max_context in tokens.
    void set_engine(const EngineThread& engine, int32_t max_running, int32_t max_context);

    // Any thread. Without the fields that the publisher fills in.
    EngineReport snapshot() const;

  private:
    EngineReport fixed_;
    const ApiService& service_;
    double started_;
    std::atomic<const EngineThread*> engine_{nullptr};  // set last: who sees it sees the other two
    std::atomic<int32_t> max_running_{0}, max_context_{0};
};

}  // namespace llm::engine
