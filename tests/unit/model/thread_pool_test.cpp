#include "engine_worker/backend/cpu/thread_pool.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace llm::engine {
namespace {

TEST(ThreadPool, EveryTaskRunsOnceAndWorkersAreNotShared) {
    for (const int32_t threads : {1, 2, 4}) {
        ThreadPool pool(threads);
        EXPECT_EQ(pool.size(), threads);
        std::vector<int> busy(static_cast<size_t>(threads));
        for (int32_t round = 0; round < 300; round++) {
            const int32_t tasks = round % 50;
            // Plain ints: a task that ran twice or unordered with the end of run() is a race that tsan sees.
            std::vector<int> counts(static_cast<size_t>(tasks));
            pool.run(tasks, [&](int32_t task, int32_t worker) {
                int& mine = busy.at(static_cast<size_t>(worker));
                mine++;
                EXPECT_EQ(mine, 1);
                counts.at(static_cast<size_t>(task))++;
                mine--;
            });
            for (const int count : counts) {
                ASSERT_EQ(count, 1);
            }
        }
    }
}

TEST(ThreadPool, SleepingWorkersWakeUp) {
    ThreadPool pool(3);
    for (int round = 0; round < 20; round++) {
        // All three threads are needed at once: none of the tasks ends before the others have begun.
        std::atomic<int> begun{0};
        pool.run(3, [&](int32_t, int32_t) {
            begun++;
            while (begun < 3) {
                std::this_thread::yield();
            }
        });
        EXPECT_EQ(begun, 3);
        // Give up the processor for longer than workers spin, so that some rounds start from sleep.
        for (int i = 0; i < 200; i++) {
            std::this_thread::yield();
        }
    }
}

}  // namespace
}  // namespace llm::engine
