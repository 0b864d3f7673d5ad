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
        llm::emulation::enqueue_kernel(test_stream().get(), &kernel, bytes, [] {});
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

}  // namespace
}  // namespace llm::engine::cuda
