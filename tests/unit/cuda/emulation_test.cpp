// What the emulated GPU refuses, as a real one does.
#include <gtest/gtest.h>

#include <functional>

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

TEST(EmulationTest, WhatMayNotBeDoneWhileAGraphIsRecorded) {
    const cudaStream_t stream = test_stream().get();
    const GpuArray<int> there(4);
    cudaEvent_t event = nullptr;
    ASSERT_EQ(cudaEventCreateWithFlags(&event, cudaEventDefault), cudaSuccess);
    void* memory = nullptr;
    int unpinned = 0;
    const std::function<cudaError_t()> calls[] = {
        [&] { return cudaMalloc(&memory, 16); },
        [&] { return cudaMallocHost(&memory, 16); },
        [&] { return cudaFree(there.get()); },
        [&] { return cudaStreamSynchronize(stream); },
        [&] { return cudaDeviceSynchronize(); },
        [&] { return cudaMemcpyAsync(there.get(), &unpinned, 4, cudaMemcpyHostToDevice, stream); },
        [&] { return cudaMemcpyAsync(&unpinned, there.get(), 4, cudaMemcpyDeviceToHost, stream); },
    };
    for (const auto& call : calls) {
        ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
        EXPECT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaErrorIllegalState);
        EXPECT_EQ(call(), cudaErrorStreamCaptureUnsupported);
        cudaGetLastError();
        EXPECT_EQ(cudaMemsetAsync(there.get(), 0, 4, stream), cudaErrorStreamCaptureInvalidated);
        cudaGraph_t graph = nullptr;
        EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorStreamCaptureInvalidated);
        EXPECT_EQ(graph, nullptr);
        EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaErrorIllegalState);
    }
    ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
    EXPECT_EQ(cudaEventRecord(event, stream), cudaSuccess);
    EXPECT_EQ(cudaEventSynchronize(event), cudaErrorCapturedEvent);
    cudaGraph_t graph = nullptr;
    EXPECT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
    cudaGraphDestroy(graph);
    cudaEventDestroy(event);
    cudaGetLastError();
}

TEST(EmulationTest, TimesAreThoseOfEventsThatHaveComeAndHaveTiming) {
    const cudaStream_t stream = test_stream().get();
    float ms = 0;
    cudaEvent_t start = nullptr, end = nullptr, without = nullptr;
    cudaEventCreateWithFlags(&start, cudaEventDefault);
    cudaEventCreateWithFlags(&end, cudaEventDefault);
    cudaEventCreateWithFlags(&without, cudaEventDisableTiming);
    cudaEventRecord(start, stream);
    EXPECT_EQ(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady);
    cudaEventSynchronize(start);
    EXPECT_EQ(cudaEventElapsedTime(&ms, start, end), cudaErrorInvalidResourceHandle) << "never recorded";
    cudaEventRecord(end, stream);
    cudaEventRecord(without, stream);
    EXPECT_EQ(cudaEventElapsedTime(&ms, start, end), cudaErrorNotReady);
    cudaEventSynchronize(without);
    EXPECT_EQ(cudaEventElapsedTime(&ms, start, without), cudaErrorInvalidResourceHandle);
    EXPECT_EQ(cudaEventElapsedTime(&ms, start, end), cudaSuccess);
    for (const cudaEvent_t event : {start, end, without}) {
        cudaEventDestroy(event);
    }
    cudaGetLastError();
}

TEST(EmulationTest, CopiesStayInTheirAllocations) {
    const cudaStream_t stream = test_stream().get();
    const GpuArray<int> there(4);
    int here[8] = {};
    EXPECT_EQ(cudaMemcpyAsync(there.get() + 2, here, 12, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpyAsync(here, there.get(), 20, cudaMemcpyDeviceToHost, stream), cudaErrorInvalidValue);
    EXPECT_EQ(cudaMemcpyAsync(here, there.get(), 16, cudaMemcpyHostToDevice, stream), cudaErrorInvalidValue) << "the wrong way";
    EXPECT_EQ(cudaMemsetAsync(there.get() + 1, 0, 16, stream), cudaErrorInvalidValue);
    EXPECT_EQ(cudaFree(here), cudaErrorInvalidValue);
    cudaGetLastError();
    EXPECT_EQ(cudaMemsetAsync(there.get(), 0, 16, stream), cudaSuccess);
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
