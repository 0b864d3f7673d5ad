#include "engine_worker/backend/cpu/thread_pool.hpp"

#include <sched.h>

#include <algorithm>
#include <chrono>

namespace llm::engine {
namespace {

constexpr auto kSpin = std::chrono::microseconds(20);

void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Spins until `ready` or for kSpin; returns whether it was ready.
template <typename Ready>
bool spin_until(Ready ready) {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    do {
        for (int i = 0; i < 32; i++) {
            if (ready()) {
                return true;
            }
            relax();
        }
    } while (std::chrono::steady_clock::now() < deadline);
    return ready();
}

int32_t usable_processors() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) {
        return CPU_COUNT(&set);
    }
    return static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
}

}  // namespace

ThreadPool::ThreadPool(int32_t threads) {
    const int32_t count = threads > 0 ? threads : usable_processors();
    for (int32_t worker = 1; worker < count; worker++) {
        workers_.emplace_back([this, worker] { worker_loop(worker); });
    }
}

ThreadPool::~ThreadPool() {
    stop_.store(true);
    wake_.fetch_add(1);
    wake_.notify_all();
    for (std::thread& worker : workers_) {
        worker.join();
    }
}

bool ThreadPool::work(int32_t worker) {
    bool worked = false;
    int32_t left = unclaimed_.load(std::memory_order_acquire);
    while (left > 0) {
        if (!unclaimed_.compare_exchange_weak(left, left - 1, std::memory_order_acq_rel,
                                              std::memory_order_acquire)) {
            continue;
        }
        call_(callable_, n_tasks_ - left, worker);
        worked = true;
        // After this the loop may end and the next one begin: nothing of this one may be touched.
        done_.fetch_add(1, std::memory_order_acq_rel);
        done_.notify_one();
        left = unclaimed_.load(std::memory_order_acquire);
    }
    return worked;
}

void ThreadPool::run_erased(int32_t n_tasks, Erased call, void* callable) {
    if (n_tasks <= 1 || workers_.empty()) {
        for (int32_t task = 0; task < n_tasks; task++) {
            call(callable, task, 0);
        }
        return;
    }
    call_ = call;
    callable_ = callable;
    n_tasks_ = n_tasks;
    done_.store(0, std::memory_order_relaxed);
    // Sequentially consistent on both sides: either this load sees the sleeper, or the sleeper sees the
    // tasks.
    unclaimed_.store(n_tasks, std::memory_order_seq_cst);
    if (sleepers_.load(std::memory_order_seq_cst) > 0) {
        wake_.fetch_add(1);
        wake_.notify_all();
    }
    work(0);
    const auto finished = [&] { return done_.load(std::memory_order_acquire) == n_tasks; };
    if (!spin_until(finished)) {
        for (int32_t seen = done_.load(std::memory_order_acquire); seen != n_tasks;
             seen = done_.load(std::memory_order_acquire)) {
            done_.wait(seen, std::memory_order_acquire);
        }
    }
}

void ThreadPool::worker_loop(int32_t worker) {
    const auto has_work = [&] {
        return unclaimed_.load(std::memory_order_relaxed) > 0 || stop_.load(std::memory_order_relaxed);
    };
    while (!stop_.load(std::memory_order_relaxed)) {
        if (work(worker) || spin_until(has_work)) {
            continue;
        }
        const int32_t seen = wake_.load();
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        if (unclaimed_.load(std::memory_order_seq_cst) == 0 && !stop_.load()) {
            wake_.wait(seen);
        }
        sleepers_.fetch_sub(1);
    }
}

}  // namespace llm::engine
