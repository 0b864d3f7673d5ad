// Whether the emulation sees what a GPU would only sometimes show: accesses that no barrier separates.
#include <gtest/gtest.h>

#include <functional>

#include "engine_worker/backend/cuda/kernels/device.cuh"

// Read by ThreadSanitizer at the start.
extern "C" const char* __tsan_default_options() {
    return "halt_on_error=1";
}

namespace llm::engine::cuda {
namespace {

constexpr unsigned kThreads = 64;

void run(const std::function<void(int thread, float* shared)>& kernel) {
    llm::emulation::run_grid({2, 1, 1}, {kThreads, 1, 1}, 16 * kThreads * 2, [&] {
        kernel(static_cast<int>(threadIdx.x), reinterpret_cast<float*>(shared_bytes()));
    });
}

float reverse(int thread, float* shared, const std::function<void()>& barrier) {
    shared[thread] = static_cast<float>(thread);
    barrier();
    return shared[kThreads - 1 - static_cast<unsigned>(thread)];
}

TEST(RacesDeathTest, ABarrierSeparates) {
    int wrong = 0;
    run([&](int thread, float* shared) {
        const float got = reverse(thread, shared, [] { __syncthreads(); });
        atomicAdd(&wrong, got == static_cast<float>(63 - thread) ? 0 : 1);
    });
    EXPECT_EQ(wrong, 0);
    EXPECT_DEATH(run([](int thread, float* shared) { reverse(thread, shared, [] {}); }), "data race");
    EXPECT_DEATH(run([](int thread, float* shared) { reverse(thread, shared, [] { __syncwarp(); }); }),
                 "data race")
        << "the other warp's";
}

// The warps of a block run one after the other here: who is at the next barrier already has passed no other.
TEST(RacesDeathTest, EveryBarrierCountsForItself) {
    const auto kernel = [](int thread, float* shared, int without) {
        float sum = 0;
        for (int round = 0; round < 3; round++) {
            shared[thread] = static_cast<float>(round);
            if (without != 2 * round) {
                __syncthreads();
            }
            sum += shared[(thread + 32) % static_cast<int>(kThreads)];
            if (without != 2 * round + 1) {
                __syncthreads();
            }
        }
        return sum;
    };
    run([&](int thread, float* shared) { kernel(thread, shared, -1); });
    for (int without = 0; without < 5; without++) {
        EXPECT_DEATH(run([&](int thread, float* shared) { kernel(thread, shared, without); }), "data race")
            << without;
    }
}

TEST(RacesDeathTest, WarpsAreSeparatedBySyncwarpOnly) {
    const auto neighbour = [](int thread, float* shared, bool sync) {
        shared[thread] = static_cast<float>(thread);
        if (sync) {
            __syncwarp();
        }
        return __shfl_xor_sync(kFullMask, 1.0f, 1) + shared[thread ^ 1];
    };
    run([&](int thread, float* shared) { neighbour(thread, shared, true); });
    EXPECT_DEATH(run([&](int thread, float* shared) { neighbour(thread, shared, false); }), "data race")
        << "a shuffle orders no memory";
}

TEST(RacesDeathTest, AsynchronousCopiesMayArriveAtOnce) {
    alignas(16) static float global[4 * kThreads];
    const auto copy = [](int thread, float* shared, bool early) {
        float* mine = shared + 4 * thread;
        for (int i = 0; i < 4; i++) {
            mine[i] = 1.0f;
        }
        __syncthreads();
        const float read = shared[4 * kThreads - 1 - static_cast<unsigned>(thread)];
        if (!early) {
            __syncthreads();
        }
        async_copy16(mine, global + 4 * thread, true);
        async_commit();
        if (early) {
            __syncthreads();
        }
        async_wait<0>();
        __syncthreads();
        return read;
    };
    run([&](int thread, float* shared) { copy(thread, shared, false); });
    EXPECT_DEATH(run([&](int thread, float* shared) { copy(thread, shared, true); }), "data race")
        << "others may still read what the copy overwrites";
}

TEST(RacesDeathTest, WhatTheLaunchBeforeWritesIsReadAfterTheWait) {
    static float value = 0;
    const auto both = [](bool too_early) {
        float sum = 0;
        llm::emulation::EarlyLaunch first({1, 1, 1}, {32, 1, 1}, 0, [] {
            begin_launch();
            if (threadIdx.x == 0) {
                value = 1;
            }
        });
        llm::emulation::EarlyLaunch second({1, 1, 1}, {32, 1, 1}, 0, [&] {
            const float before = too_early ? value : 0;
            begin_launch();
            if (threadIdx.x == 0) {
                sum = before + value;
            }
        });
        second.start();
        first.run();
        second.run();
        return sum;
    };
    EXPECT_EQ(both(false), 1.0f);
    EXPECT_DEATH(both(true), "data race");
}

}  // namespace
}  // namespace llm::engine::cuda
