// The tensors of a model, found by name and checked against its configuration. Nothing is converted or copied
// here.
#pragma once

#include <memory>
#include <vector>

#include "engine_worker/model/config.hpp"
#include "engine_worker/model/safetensors.hpp"

namespace llm::engine {

// Matrices are [outputs][inputs], row by row, as Hugging Face stores them. An empty Tensor = the model has
// none.
struct LayerTensors {
    Tensor attn_norm;                       // [dim]
    Tensor q, k, v;                         // [heads * head_dim][dim]
    Tensor q_bias, k_bias, v_bias, o_bias;  // empty without bias
    Tensor q_norm, k_norm;                  // [head_dim]; empty without per-head norms
    Tensor o;                               // [dim][n_heads * head_dim]
    Tensor mlp_norm;                        // [dim]
    Tensor gate, up;                        // [ffn_dim][dim]
    Tensor down;                            // [dim][ffn_dim]
    // Of projections that are kF8E4M3: [outputs] or [1] factors. Empty for all others.
    Tensor q_scale, k_scale, v_scale, o_scale, gate_scale, up_scale, down_scale;
};

struct ModelTensors {
    std::shared_ptr<TensorStore> store;  // keeps the files mapped
    Tensor embedding;                    // [vocab_size][dim]
    Tensor norm;                         // [dim]
    Tensor lm_head;                      // [vocab_size][dim]; the embedding itself where tied
    std::vector<LayerTensors> layers;
};

// Maps the files of `config.dir`. Throws std::runtime_error naming the file and the tensor that is missing,
// of an unexpected shape, in a format that cannot be computed with, or not part of such a model (a feature of
// the model that config.json did not tell would else be ignored silently).
ModelTensors load_model_tensors(const ModelConfig& config);

}  // namespace llm::engine
