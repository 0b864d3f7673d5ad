// What config.json (and generation_config.json) of a Hugging Face directory say, checked and in our own
// words.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llm::engine {

// How rotary frequencies are stretched for longer contexts.
struct RopeScaling {
    enum class Kind : uint8_t { kNone, kLinear, kLlama3 };
    Kind kind = Kind::kNone;
    double factor = 1;
    double low_freq_factor = 1;        // kLlama3
    double high_freq_factor = 4;       // kLlama3
    int32_t original_max_context = 0;  // kLlama3, tokens
};

// The dense decoder that Llama, Mistral, Qwen2 and Qwen3 have in common; a variation is a field, not a class.
struct ModelConfig {
    std::string dir;
    std::string model_type;   // "llama", "mistral", "qwen2", "qwen3"
    int32_t dim = 0;
    int32_t ffn_dim = 0;
    int32_t n_layers = 0;
    int32_t n_heads = 0;
    int32_t n_kv_heads = 0;
    int32_t head_dim = 0;
    int32_t vocab_size = 0;
    int32_t max_context = 0;  // tokens
    double norm_eps = 1e-6;
    double rope_theta = 10000;
    RopeScaling rope;
    bool tied_embeddings = false;  // lm_head is the embedding table
    bool qkv_bias = false;
    bool o_bias = false;
    bool fp8_weights = false;      // projections are e4m3 with a scale per output or per matrix (compressed-tensors)
    bool qk_norm = false;          // RMSNorm over each head of q and k, before the rotation
    std::vector<int32_t> window;   // [n_layers] attention sees the last window[i] positions; 0 = all of them
    std::vector<int32_t> eos_ids;  // generation_config.json's where it has any, else config.json's
    int32_t bos_id = -1;           // -1 = none
};

// Reads and checks DIR/config.json and, if there, DIR/generation_config.json. Throws std::runtime_error with
// one sentence that names the file and the missing, malformed or unsupported field.
ModelConfig load_model_config(const std::string& dir);

// The same from texts; `generation_json` may be empty. `file` is what errors call config.json.
ModelConfig parse_model_config(std::string_view config_json, std::string_view generation_json,
                               const std::string& file = "config.json",
                               const std::string& generation_file = "generation_config.json");

// Angle per position of each of the head_dim/2 rotated pairs, scaling included. Pair i is (i, i +
// head_dim/2), the "rotate half" convention of Hugging Face checkpoints. llama3: transformers,
// modeling_rope_utils.
std::vector<double> rope_frequencies(const ModelConfig& config);

}  // namespace llm::engine
