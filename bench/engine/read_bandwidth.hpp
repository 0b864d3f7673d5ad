// Reads `bytes` of device memory once. See engine_gpu_bench.cpp.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

void launch_read(const void* data, size_t bytes, unsigned* out, int multiprocessors, cudaStream_t stream);
