#include "engine_worker/scheduler/engine_thread.hpp"

#include <exception>
#include <iterator>
#include <utility>

namespace llm::engine {

EngineThread::EngineThread(EngineCore& core, Callbacks callbacks)
    : core_(core), callbacks_(std::move(callbacks)), thread_([this] { run(); }) {}

EngineThread::~EngineThread() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

void EngineThread::submit(Request request) {
    {
        const std::lock_guard lock(mutex_);
        submitted_.push_back(std::move(request));
    }
    wake_.notify_one();
}

void EngineThread::cancel(uint64_t request) {
    {
        const std::lock_guard lock(mutex_);
        cancelled_.push_back(request);
    }
    wake_.notify_one();
}

std::vector<Event> EngineThread::take_events() {
    const std::lock_guard lock(mutex_);
    return std::exchange(events_, {});
}

EngineStats EngineThread::stats() const {
    const std::lock_guard lock(mutex_);
    return stats_;
}

std::string EngineThread::failure() const {
    const std::lock_guard lock(mutex_);
    return failure_;
}

// Waits for something to do; false when the thread is to end.
bool EngineThread::apply_inbox() {
    std::vector<Request> submitted;
    std::vector<uint64_t> cancelled;
    {
        std::unique_lock lock(mutex_);
        wake_.wait(lock, [this] {
            return stopping_ || !submitted_.empty() || !cancelled_.empty() || core_.has_work();
        });
        if (stopping_) {
            return false;
        }
        submitted.swap(submitted_);
        cancelled.swap(cancelled_);
    }
    for (Request& request : submitted) {
        core_.add(std::move(request));
    }
    for (const uint64_t request : cancelled) {
        core_.cancel(request);
    }
    return true;
}

void EngineThread::run() {
    std::vector<Event> events;
    while (apply_inbox()) {
        try {
            if (!failure_.empty()) {
                core_.fail(failure_, events);
            } else if (core_.has_work()) {
                core_.step(events, [&] { publish(events); });
            }
        } catch (const std::exception& error) {
            {
                const std::lock_guard lock(mutex_);
                failure_ = error.what();
            }
            core_.fail(error.what(), events);
            publish(events);
            callbacks_.on_load();
            continue;
        }
        publish(events);
    }
}

void EngineThread::publish(std::vector<Event>& events) {
    const EngineStats& now = core_.stats();
    bool wake_server = false;
    bool load_changed = false;
    {
        const std::lock_guard lock(mutex_);
        wake_server = events_.empty() && !events.empty();
        events_.insert(events_.end(), std::make_move_iterator(events.begin()),
                       std::make_move_iterator(events.end()));
        load_changed = now.running != stats_.running || now.waiting_long != stats_.waiting_long;
        stats_ = now;
    }
    events.clear();
    if (wake_server) {
        callbacks_.on_events();
    }
    if (load_changed) {
        callbacks_.on_load();
    }
}

}  // namespace llm::engine
