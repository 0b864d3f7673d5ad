// What tests may set of the emulated GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <functional>

#include "tests/support/cuda_emulation/emulation.hpp"

namespace llm::emulation {

struct Device {
    int count = 1;
    cudaError_t count_error = cudaSuccess;
    int driver_version = 13000;
    int major = 9, minor = 0;
#if defined(LLM_EMULATED_MULTIPROCESSORS)
    int multiprocessors = LLM_EMULATED_MULTIPROCESSORS;
#else
    int multiprocessors = 4;
#endif
    size_t memory = size_t{512} << 20;
    long allocations_until_failure = -1;  // cudaMalloc fails after so many more; -1 = never
    long calls_until_lost = -1;           // every call fails after so many more launches or copies
    long graphs_until_failure = -1;       // no graph can be made after so many more
    cudaError_t graph_error = cudaErrorMemoryAllocation;  // why
    bool early_in_graphs = true;          // launches that may begin early can be recorded
    size_t used = 0;                      // bytes of device memory that are allocated now
    size_t graph_launches = 0;
    size_t kernels = 0;                   // that were launched, or recorded
    size_t divided_anew = 0;              // of them, with PTX: could begin early but for how they want shared memory and cache divided
};
Device& device();

// As cudaFuncSetAttribute() for dynamic shared memory; an error if one of the GPUs that the kernels are built for has less than that and
// the kernel's `static_shared` bytes.
cudaError_t allow_shared(const void* kernel, size_t bytes, size_t static_shared = 0);
// A launch of `body`, once per thread; refused if the kernel wants more dynamic shared memory than it was allowed, or than 48 KiB with
// the static if it was allowed none. `early`: it may begin before the launch right before it in the stream, or in the graph, has ended.
// `static_shared` bytes more are there before the dynamic ones.
cudaError_t enqueue_kernel(cudaStream_t stream, const void* kernel, Index3 grid, Index3 block, size_t shared_bytes, bool early,
                           std::function<void()> body, size_t static_shared = 0);

// Puts `work` into the stream, or into what is recorded of it; the default stream waits for all others and does it.
cudaError_t enqueue(cudaStream_t stream, std::function<void()> work);

}  // namespace llm::emulation
