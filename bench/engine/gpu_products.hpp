// Times the products of a decoding batch one by one. See engine_gpu_bench.cpp.
#pragma once

#include "engine_worker/backend/cuda/runtime.hpp"

namespace llm::bench {

// Prints, for the matrices of Llama-3.1-8B and the numbers of rows that both can make, our kernel's and cuBLASLt's bytes of weights
// per second: weights of two bytes, and of one (which cuBLASLt gets as a copy in bf16). `ceiling`: bytes per second that
// memory gives.
void print_products(const engine::cuda::DeviceInfo& device, double ceiling);

}  // namespace llm::bench
