#include "engine_worker/server/background.hpp"

#include <utility>

namespace llm::engine {

Background::Background(std::function<void()> wake) : wake_(std::move(wake)), thread_([this] { run(); }) {}

Background::~Background() {
    {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
    }
    posted_.notify_one();
    thread_.join();
}

void Background::post(std::function<Done()> work) {
    {
        const std::lock_guard lock(mutex_);
        waiting_.push_back(std::move(work));
    }
    posted_.notify_one();
}

std::vector<Background::Done> Background::take_done() {
    const std::lock_guard lock(mutex_);
    return std::exchange(done_, {});
}

void Background::run() {
    for (;;) {
        std::function<Done()> work;
        {
            std::unique_lock lock(mutex_);
            posted_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
            if (stopping_) {
                return;
            }
            work = std::move(waiting_.front());
            waiting_.pop_front();
        }
        Done done = work();
        work = nullptr;  // what it holds may be large
        {
            const std::lock_guard lock(mutex_);
            done_.push_back(std::move(done));
        }
        wake_();
    }
}

}  // namespace llm::engine
