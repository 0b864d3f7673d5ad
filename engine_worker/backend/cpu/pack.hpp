// Weights from the files' row-major order into the panels that the kernels read.
#pragma once

#include <vector>

#include "engine_worker/backend/cpu/kernels.hpp"
#include "engine_worker/backend/cpu/memory.hpp"
#include "engine_worker/backend/cpu/thread_pool.hpp"
#include "engine_worker/model/safetensors.hpp"

namespace llm::engine {

// A matrix and the memory it lives in.
struct Matrix {
    PackedMatrix packed;
    Region memory;
    Region bias_memory;

    size_t bytes() const { return packed.panel_bytes * static_cast<size_t>(packed.n_panels); }
};

// Inputs as stored: what rows of activations must be padded to.
int32_t padded_inputs(WeightType type, int32_t k);
// Bytes of one row of activations prepared for `type`, a multiple of 64.
size_t activation_stride(WeightType type, int32_t k);

// Packs the rows of `parts` one after the other, in parallel; `interleave` (two parts of equal height, a
// multiple of 16 after padding) alternates their panels instead, as swiglu expects gate and up. All parts are
// [n][k]; `biases` is empty or has one entry per part.
Matrix pack_matrix(ThreadPool& pool, WeightType type, const std::vector<Tensor>& parts,
                   const std::vector<Tensor>& biases, bool interleave);

// A vector of weights as f32.
std::vector<float> load_vector(const Tensor& tensor);

}  // namespace llm::engine
