// The forward pass: packed weights, paged keys and values, and the order of operations of one step.
#pragma once

#include <string>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/cpu/kernels.hpp"
#include "engine_worker/backend/cpu/memory.hpp"
#include "engine_worker/backend/cpu/pack.hpp"
#include "engine_worker/backend/cpu/profile.hpp"
#include "engine_worker/backend/cpu/thread_pool.hpp"
#include "engine_worker/model/weights.hpp"

namespace llm::engine {

struct CpuLayer {
    std::vector<float> attn_norm, mlp_norm;  // [dim]
    std::vector<float> q_norm, k_norm;       // [head_dim] or empty
    Matrix qkv;                              // q, k and v outputs one after the other
    Matrix o;
    Matrix gate_up;  // 16 outputs of gate and of up in turn
    Matrix down;
};

struct CpuModel {
    ModelConfig config;
    ModelTensors tensors;  // the embedding is read from the mapped file
    WeightType type = WeightType::kF32;
    std::vector<CpuLayer> layers;
    std::vector<float> norm;
    Matrix lm_head;
    std::vector<double> rope;  // angle per position

    // Bytes of packed weights that one step reads, whatever its size.
    size_t weight_bytes() const;
};

// Loads and packs. `dtype` is "auto", "f32", "bf16" or "int8"; auto = f32 for a model stored as f32, else
// bf16.
CpuModel load_cpu_model(const ModelConfig& config, const std::string& dtype, ThreadPool& pool);

// Bytes of keys and values of one token in all layers.
size_t kv_bytes_per_token(const ModelConfig& config, WeightType type);

class Forward {
  public:
    // Borrows all three for its lifetime.
    Forward(const CpuModel& model, const Kernels& kernels, ThreadPool& pool, int64_t kv_slots,
            int32_t max_tokens);

    // Computes the step up to the logits: n_logit rows of logits_stride() floats, valid until the next call.
    const float* run(const Step& step, Profile& profile);
    // After run(): the states of step.hidden_row behind the last norm, [n_hidden][dim].
    void last_hidden(const Step& step, float* out);
    size_t logits_stride() const { return static_cast<size_t>(model_.lm_head.packed.n_panels) * kPanel; }

  private:
    struct Tile {
        int32_t sequence;
        int32_t
            first;  // of the sequence's queries, numbered token by token and head by head within the group
        int32_t count;
    };
    void embed(const Step& step);
    void plan_attention(const Step& step);
    void rotate_and_store(const Step& step, const CpuLayer& layer, size_t layer_index);
    void attend(const Step& step, size_t layer_index);
    void prepare_normed(const float* x, size_t stride, const std::vector<float>& weight, int32_t m);
    void prepare_attended(int32_t m);
    void gate_up(const CpuLayer& layer, int32_t m);
    void matmul(const Matrix& matrix, Epilogue epilogue, void* y, size_t y_stride, int32_t m);
    std::byte* cache(size_t layer, size_t part, size_t head) const;
    template <typename Function>
    void for_rows(int32_t m, int32_t width, Function&& function);

    const CpuModel& model_;
    const Kernels& kernels_;
    ThreadPool& pool_;
    int64_t kv_slots_;
    int32_t head_dim_padded_;
    size_t dim_stride_;  // floats per row of the hidden state
    bool kv_bf16_;
    Region kv_;  // [layer][keys, values][kv head][slot][head_dim_padded]
    Region buffers_;
    float* hidden_ = nullptr;                // [max_tokens][dim_stride]
    float* qkv_ = nullptr;                   // [max_tokens][panels of qkv]
    float* query_ = nullptr;                 // [max_tokens][n_heads][head_dim_padded]
    float* attended_ = nullptr;              // same
    float* ffn_ = nullptr;                   // [max_tokens][half the panels of gate_up], for int8 only
    float* rotation_ = nullptr;              // [max_tokens][head_dim]: cosines, then sines
    std::byte* activations_ = nullptr;       // input of the next product
    std::byte* next_activations_ = nullptr;  // written by a product that still reads activations_
    size_t activation_stride_ = 0;           // of what activations_ holds now
    std::vector<Region> scratch_;            // per worker
    std::vector<Tile> tiles_;
    std::vector<float> gathered_;
    Region logits_;
};

}  // namespace llm::engine
