// The engine's own thread: steps as long as there is work, sleeps when there is none.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "engine_worker/scheduler/engine_core.hpp"

namespace llm::engine {

// All functions may be called from any thread. None waits for a step.
class EngineThread {
  public:
    struct Callbacks {
        std::function<void()> on_events;  // take_events() has something; called from the engine's thread
        std::function<void()> on_load;    // running or waiting changed, or the engine failed; same thread
    };

    // `core` must outlive this object and belongs to its thread from now on.
    EngineThread(EngineCore& core, Callbacks callbacks);
    ~EngineThread();  // stops after the current step; unfinished requests get no further event

    void submit(Request request);
    void cancel(uint64_t request);     // honoured before the next step
    std::vector<Event> take_events();  // in order
    EngineStats stats() const;         // as of the last step
    std::string failure() const;       // why the backend is lost; empty = it is not

  private:
    void run();
    bool apply_inbox();
    void publish(std::vector<Event>& events);

    EngineCore& core_;
    Callbacks callbacks_;
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::vector<Request> submitted_;
    std::vector<uint64_t> cancelled_;
    std::vector<Event> events_;
    EngineStats stats_;
    std::string failure_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace llm::engine
