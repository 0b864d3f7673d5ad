// What the emulated GPU refuses, as a real one does.
#include <gtest/gtest.h>

#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "tests/support/cuda_emulation/runtime.hpp"
#include "tests/support/gpu_array.hpp"

namespace llm::engine::cuda {
namespace {

using llm::testing::GpuArray;
using llm::testing::test_stream;

TEST(EmulationDeathTest, MisalignedAddresses) {
    const GpuArray<uint16_t> in(256), out(256);
    const auto multiply = [&](size_t offset) {
        launch_silu_multiply(in.get() + offset, 128, out.get(), 64, 1, test_stream().get());
        test_stream().synchronize();
    };
    multiply(8);
    EXPECT_DEATH(multiply(4), "misaligned");
}

TEST(EmulationTest, SharedMemoryThatWasNotAllowed) {
    const int kernel = 0;
    const auto launch = [&](size_t bytes) {
        llm::emulation::enqueue_kernel(test_stream().get(), &kernel, {}, {}, bytes, false, [] {});
        return cudaGetLastError();
    };
    EXPECT_EQ(launch(48 << 10), cudaSuccess);
    EXPECT_EQ(launch((48 << 10) + 1), cudaErrorInvalidValue);
    EXPECT_EQ(llm::emulation::allow_shared(&kernel, 64 << 10), cudaSuccess);
    EXPECT_EQ(launch(64 << 10), cudaSuccess);
    EXPECT_EQ(launch((64 << 10) + 1), cudaErrorInvalidValue);
    EXPECT_EQ(llm::emulation::allow_shared(&kernel, 100 << 10), cudaErrorInvalidValue) << "8.9 has 99 KiB";
    EXPECT_EQ(cudaGetLastError(), cudaErrorInvalidValue);
}

// A launch that may begin early reads, before it has waited, what was there before the one that it overlaps with.
TEST(EmulationTest, ALaunchBeginsBeforeTheOneBeforeItHasEnded) {
    const GpuArray<int> value(std::vector<int>{1});
    const GpuArray<int> seen(std::vector<int>(6, 0));
    const auto launch = [&](bool early, const std::function<void()>& body) {
        const int kernel = 0;
        llm::emulation::enqueue_kernel(test_stream().get(), &kernel, {3, 1, 1}, {32, 1, 1}, 0, early, body);
    };
    const auto write = [=, to = value.get()] { *to = 2; };
    const auto read = [from = value.get(), to = seen.get()] {
        const int before = *from;
        llm::emulation::sync_block();
        llm::emulation::wait_for_launch_before();
        to[llm::emulation::block_index.x * 2] = before;
        to[llm::emulation::block_index.x * 2 + 1] = *from;
    };
    launch(false, write);
    launch(true, read);
    const std::vector<int> got = seen.values();
    int early = 0;
    for (size_t block = 0; block < 3; block++) {
        early += got[block * 2] == 1 ? 1 : 0;
        EXPECT_EQ(got[block * 2 + 1], 2) << "after it has waited";
    }
    EXPECT_EQ(early, 1);
    EXPECT_DEATH(
        {
            launch(true, [] {});
            test_stream().synchronize();
        },
        "without waiting");
}

}  // namespace
}  // namespace llm::engine::cuda
