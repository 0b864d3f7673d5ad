// A model's weights in GPU memory.
//
// Matrices are [outputs][inputs] as in the files, but padded with zeros: outputs to a multiple of 16, inputs to a
// multiple of kRowPad. q, k and v are one matrix; gate and up are one whose rows alternate 8 by 8, as the fused
// activation wants them.
#pragma once

#include <cstdint>
#include <vector>

#include "engine_worker/backend/cuda/runtime.hpp"
#include "engine_worker/model/weights.hpp"

namespace llm::engine::cuda {

struct GpuMatrix {
    const void* w = nullptr;       // bf16, or e4m3 where there is a scale
    const float* scale = nullptr;  // [n]
    const float* bias = nullptr;   // [n]
    int n = 0;                     // outputs, padded
    int k = 0;                     // inputs, padded
    int bytes_per_weight() const { return scale != nullptr ? 1 : 2; }
    size_t bytes() const { return static_cast<size_t>(n) * static_cast<size_t>(k) * static_cast<size_t>(bytes_per_weight()); }
};

struct GpuLayer {
    const float* attn_norm = nullptr;  // [hidden_stride], zero beyond dim
    const float* mlp_norm = nullptr;
    const float* q_norm = nullptr;     // [head_dim] or nullptr
    const float* k_norm = nullptr;
    GpuMatrix qkv, o, gate_up, down;
};

struct GpuModel {
    ModelConfig config;
    int hidden_stride = 0;    // dim, padded to kRowPad
    int attended_stride = 0;  // n_heads * head_dim, padded
    int ffn_stride = 0;       // ffn_dim, padded
    std::vector<GpuLayer> layers;
    const float* norm = nullptr;
    const uint16_t* embedding = nullptr;    // bf16 [vocab, padded to 16][hidden_stride]
    GpuMatrix lm_head;                      // the embedding itself where tied
    const double* frequencies = nullptr;    // [head_dim / 2]
    size_t bytes = 0;                       // of GPU memory
    DeviceMemory memory;

    // Bytes of weights that every step reads.
    size_t bytes_per_step() const;
};

// The model without memory: sizes are right, addresses are not.
GpuModel model_shape(const ModelConfig& config, const ModelTensors& tensors);

// Copies through two pinned buffers, one filled while the other is sent; what is not bf16 is rounded to it on the way.
GpuModel upload_model(const ModelConfig& config, const ModelTensors& tensors, const Stream& stream);

}  // namespace llm::engine::cuda
