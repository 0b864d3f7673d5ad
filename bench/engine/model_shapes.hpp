// Models of known shapes with random weights, written as a Hugging Face directory: what speed is measured with where
// nothing may be downloaded.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/model/dtype.hpp"
#include "shared/json.hpp"
#include "tests/support/model_builder.hpp"

namespace llm::bench {

inline constexpr const char* kQwen05Config = R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
    "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16"})";

inline constexpr const char* kLlama8Config = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256, "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
    "tie_word_embeddings": false, "torch_dtype": "bfloat16"})";

// 4.0 GB of weights: how long loading takes.
inline constexpr const char* kFourGbConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 29, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16"})";

// For trying the benchmark itself out.
inline constexpr const char* kTinyConfig = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
    "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16"})";

inline const char* shape_config(std::string_view name) {
    if (name == "qwen2.5-0.5b") {
        return kQwen05Config;
    }
    if (name == "llama-3.1-8b") {
        return kLlama8Config;
    }
    if (name == "4gb") {
        return kFourGbConfig;
    }
    if (name == "tiny") {
        return kTinyConfig;
    }
    throw std::runtime_error("the shapes are qwen2.5-0.5b, llama-3.1-8b, 4gb and tiny");
}

// Random bf16 straight to the file: magnitudes in [2^-7, 2^-5), as initialised weights have. The last norm's weights make
// logits of a spread of about 4, as trained models have: what top_p costs depends on that.
inline void write_shape(const std::string& dir, const char* config_json) {
    llm::testing::write_text(dir + "/config.json", config_json);
    const auto config = engine::load_model_config(dir);
    nlohmann::json header = nlohmann::json::object();
    uint64_t end = 0;
    uint64_t last_norm = 0;
    for (const auto& [name, shape] : llm::testing::tensor_shapes(config)) {
        uint64_t bytes = 2;
        for (const int64_t extent : shape) {
            bytes *= static_cast<uint64_t>(extent);
        }
        last_norm = name == "model.norm.weight" ? end : last_norm;
        header[name] = {{"dtype", "BF16"}, {"shape", shape}, {"data_offsets", {end, end + bytes}}};
        end += bytes;
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::FILE* file = std::fopen((dir + "/model.safetensors").c_str(), "wb");
    if (file == nullptr) {
        throw std::runtime_error(dir + ": cannot be written");
    }
    bool good = std::fwrite(&length, 8, 1, file) == 1 && std::fwrite(text.data(), 1, text.size(), file) == text.size();
    std::vector<uint16_t> block(1 << 22);
    uint64_t state = 88172645463325252u;
    for (uint64_t written = 0; good && written < end; written += block.size() * 2) {
        for (size_t i = 0; i < block.size(); i += 4) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            const uint64_t four = (state & 0x80ff80ff80ff80ffu) | 0x3c003c003c003c00u;
            std::memcpy(&block[i], &four, 8);
        }
        const size_t count = std::min<uint64_t>(block.size() * 2, end - written);
        good = std::fwrite(block.data(), 1, count, file) == count;
    }
    const std::vector<uint16_t> norm(static_cast<size_t>(config.dim),
                                     engine::f32_to_bf16(256.0f / std::sqrt(static_cast<float>(config.dim))));
    good = good && std::fseek(file, static_cast<long>(8 + text.size() + last_norm), SEEK_SET) == 0 &&
           std::fwrite(norm.data(), 2, norm.size(), file) == norm.size();
    if (std::fclose(file) != 0 || !good) {
        throw std::runtime_error(dir + ": the disk is full");
    }
    llm::testing::write_byte_tokenizer(dir);
}

}  // namespace llm::bench
