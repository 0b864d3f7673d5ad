// Work that would hold up everybody if the server's thread did it.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace llm::engine {

// One thread that does what it is given, in order. All functions belong to the thread that gives.
class Background {
  public:
    using Done = std::function<void()>;

    // `wake` is called by the background thread whenever take_done() has something.
    explicit Background(std::function<void()> wake);
    // Waits for the work under way; what has not begun is dropped.
    ~Background();
    Background(const Background&) = delete;
    Background& operator=(const Background&) = delete;

    // `work` must not throw. What it returns is for the thread that gave it.
    void post(std::function<Done()> work);
    std::vector<Done> take_done();

  private:
    void run();

    std::function<void()> wake_;
    std::mutex mutex_;
    std::condition_variable posted_;
    std::deque<std::function<Done()>> waiting_;
    std::vector<Done> done_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace llm::engine
