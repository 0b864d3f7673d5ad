// A small thread pool for short parallel loops: work is claimed one task at a time, so a thread that the
// system has taken off its core delays one task and not the whole loop (a static split waits for it a
// scheduler quantum).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace llm::engine {

// run() is called by one thread at a time, which works along. Between loops the workers spin for some 20 µs,
// then sleep on a futex.
class ThreadPool {
  public:
    // `threads` counts the caller: 1 = no worker at all. 0 = as many as this process may use processors.
    explicit ThreadPool(int32_t threads);
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int32_t size() const { return static_cast<int32_t>(workers_.size()) + 1; }

    // Calls function(task, worker) for each task in [0, n_tasks), in about that order, and returns when all
    // have returned. 0 <= worker < size() is the same for no two calls under way at once. `function` must not
    // throw.
    template <typename Function>
    void run(int32_t n_tasks, Function&& function) {
        using Callable = std::remove_reference_t<Function>;
        run_erased(
            n_tasks,
            [](void* callable, int32_t task, int32_t worker) {
                (*static_cast<Callable*>(callable))(task, worker);
            },
            const_cast<void*>(static_cast<const void*>(&function)));
    }

  private:
    using Erased = void (*)(void* callable, int32_t task, int32_t worker);
    void run_erased(int32_t n_tasks, Erased call, void* callable);
    bool work(int32_t worker);
    void worker_loop(int32_t worker);

    // Written by run() while no task is claimed, read only by whoever has claimed one.
    Erased call_ = nullptr;
    void* callable_ = nullptr;
    int32_t n_tasks_ = 0;

    // Tasks not yet claimed. A claim lowers it by one and never below zero, so a latecomer either takes a
    // task of whatever loop is current, whose description it then reads, or none.
    alignas(64) std::atomic<int32_t> unclaimed_{0};
    alignas(64) std::atomic<int32_t> done_{0};
    alignas(64) std::atomic<int32_t> sleepers_{0};
    std::atomic<int32_t> wake_{0};
    std::atomic<bool> stop_{false};
    std::vector<std::thread> workers_;
};

}  // namespace llm::engine
