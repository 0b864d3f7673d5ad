// Writes Hugging Face model directories for tests: small, exact, and without a download.
//
//   write_random_model  weights from a counter-based generator that tools/tiny_model.py computes alike,
//                       so that only the expected logits need to be stored
//   write_lookup_model  each token is followed by a chosen one, in any precision
//   write_copy_model    each token is the one a fixed number of positions back: a wrong slot,
//                       position or stale block changes the text
//   write_byte_tokenizer  tokenizer.json whose token ids are the bytes, plus three special tokens
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "engine_worker/model/config.hpp"
#include "engine_worker/model/dtype.hpp"

namespace llm::testing {

using engine::DType;
using engine::ModelConfig;

// A directory that disappears with the object.
class TempDir {
  public:
    TempDir() {
        std::string pattern = (std::filesystem::temp_directory_path() / "llm-test-XXXXXX").string();
        if (mkdtemp(pattern.data()) == nullptr) {
            throw std::runtime_error("mkdtemp failed");
        }
        path_ = pattern;
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    TempDir(const TempDir&) = delete;
    TempDir& operator=(const TempDir&) = delete;
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

inline void write_text(const std::string& path, const std::string& text) {
    std::ofstream out(path, std::ios::binary);
    out << text;
    if (!out.flush()) {
        throw std::runtime_error(path + ": cannot be written");
    }
}

struct NamedTensor {
    std::string name;
    std::vector<int64_t> shape;
    std::vector<float> values;
};

// `type` is kF32, kF16 or kBf16.
inline std::string safetensors_bytes(const std::vector<NamedTensor>& tensors, DType type) {
    nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (const NamedTensor& tensor : tensors) {
        const size_t begin = data.size();
        for (const float value : tensor.values) {
            if (type == DType::kF32) {
                data.append(reinterpret_cast<const char*>(&value), 4);
            } else {
                const uint16_t half =
                    type == DType::kF16 ? engine::f32_to_f16(value) : engine::f32_to_bf16(value);
                data.append(reinterpret_cast<const char*>(&half), 2);
            }
        }
        header[tensor.name] = {{"dtype", engine::dtype_name(type)},
                               {"shape", tensor.shape},
                               {"data_offsets", {begin, data.size()}}};
    }
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    const uint64_t length = text.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + text + data;
}

// One file, or with `shards` > 1 that many and their index.
inline void write_safetensors(const std::string& dir, const std::vector<NamedTensor>& tensors, DType type,
                              size_t shards = 1) {
    if (shards <= 1) {
        write_text(dir + "/model.safetensors", safetensors_bytes(tensors, type));
        return;
    }
    nlohmann::json map = nlohmann::json::object();
    std::vector<std::vector<NamedTensor>> parts(shards);
    const auto file = [&](size_t shard) {
        return "model-0000" + std::to_string(shard + 1) + "-of-0000" + std::to_string(shards) +
               ".safetensors";
    };
    for (size_t i = 0; i < tensors.size(); i++) {
        parts[i % shards].push_back(tensors[i]);
        map[tensors[i].name] = file(i % shards);
    }
    for (size_t shard = 0; shard < shards; shard++) {
        write_text(dir + "/" + file(shard), safetensors_bytes(parts[shard], type));
    }
    write_text(dir + "/model.safetensors.index.json", nlohmann::json{{"weight_map", map}}.dump());
}

// Name and shape of every tensor that `config` asks for.
inline std::vector<std::pair<std::string, std::vector<int64_t>>> tensor_shapes(const ModelConfig& config) {
    const int64_t dim = config.dim;
    const int64_t ffn = config.ffn_dim;
    const int64_t q = int64_t{config.n_heads} * config.head_dim;
    const int64_t kv = int64_t{config.n_kv_heads} * config.head_dim;
    std::vector<std::pair<std::string, std::vector<int64_t>>> list;
    list.push_back({"model.embed_tokens.weight", {config.vocab_size, dim}});
    for (int32_t i = 0; i < config.n_layers; i++) {
        const std::string layer = "model.layers." + std::to_string(i) + ".";
        list.push_back({layer + "input_layernorm.weight", {dim}});
        const std::pair<const char*, int64_t> projections[] = {{"q", q}, {"k", kv}, {"v", kv}};
        for (const auto& [name, rows] : projections) {
            list.push_back({layer + "self_attn." + name + "_proj.weight", {rows, dim}});
            if (config.qkv_bias) {
                list.push_back({layer + "self_attn." + name + "_proj.bias", {rows}});
            }
        }
        list.push_back({layer + "self_attn.o_proj.weight", {dim, q}});
        if (config.o_bias) {
            list.push_back({layer + "self_attn.o_proj.bias", {dim}});
        }
        if (config.qk_norm) {
            list.push_back({layer + "self_attn.q_norm.weight", {config.head_dim}});
            list.push_back({layer + "self_attn.k_norm.weight", {config.head_dim}});
        }
        list.push_back({layer + "post_attention_layernorm.weight", {dim}});
        list.push_back({layer + "mlp.gate_proj.weight", {ffn, dim}});
        list.push_back({layer + "mlp.up_proj.weight", {ffn, dim}});
        list.push_back({layer + "mlp.down_proj.weight", {dim, ffn}});
    }
    list.push_back({"model.norm.weight", {dim}});
    if (!config.tied_embeddings) {
        list.push_back({"lm_head.weight", {config.vocab_size, dim}});
    }
    return list;
}

// Element `index` of the random tensor `name`: uniform in [-1, 1), a pure function of its arguments (FNV-1a
// of the name, splitmix64 of the counter, 24 bits of it).
class CounterRandom {
  public:
    CounterRandom(uint64_t seed, const std::string& name) {
        uint64_t hash = 0xcbf29ce484222325u;
        for (const char c : name) {
            hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
        }
        key_ = hash ^ (seed * 0xd1342543de82ef95u);
    }
    float operator()(uint64_t index) const {
        uint64_t z = key_ + (index + 1) * 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
    }

  private:
    uint64_t key_;
};

// Scaled so that every layer keeps the variance and logits have a deviation of about 3.
inline NamedTensor random_tensor(const ModelConfig& config, uint64_t seed, const std::string& name,
                                 const std::vector<int64_t>& shape) {
    const CounterRandom random(seed, name);
    size_t count = 1;
    for (const int64_t extent : shape) {
        count *= static_cast<size_t>(extent);
    }
    NamedTensor tensor{name, shape, std::vector<float>(count)};
    const bool head =
        name == "lm_head.weight" || (config.tied_embeddings && name == "model.embed_tokens.weight");
    float offset = 0;
    double scale = 0.3;  // biases
    if (name.ends_with("norm.weight")) {
        offset = 1;
        scale = 0.2;
    } else if (shape.size() == 2) {
        const bool embedding = name == "model.embed_tokens.weight";
        scale =
            std::sqrt(3.0 / (embedding && !head ? 1.0 : static_cast<double>(shape[1]))) * (head ? 3.0 : 1.0);
    }
    const auto factor = static_cast<float>(scale);
    for (size_t i = 0; i < count; i++) {
        const float scaled = random(i) * factor;
        tensor.values[i] = offset + scaled;
    }
    return tensor;
}

// config.json as given, random weights beside it.
inline void write_random_model(const std::string& dir, const std::string& config_json, uint64_t seed,
                               DType type, size_t shards = 1) {
    write_text(dir + "/config.json", config_json);
    const ModelConfig config = engine::load_model_config(dir);
    std::vector<NamedTensor> tensors;
    for (const auto& [name, shape] : tensor_shapes(config)) {
        tensors.push_back(random_tensor(config, seed, name, shape));
    }
    write_safetensors(dir, tensors, type, shards);
}

// Every tensor zero but norms, which are one, and those in `values`.
inline void write_constructed_model(const std::string& dir, const std::string& config_json,
                                    const std::map<std::string, std::vector<float>>& values, DType type) {
    write_text(dir + "/config.json", config_json);
    const ModelConfig config = engine::load_model_config(dir);
    std::vector<NamedTensor> tensors;
    for (const auto& [name, shape] : tensor_shapes(config)) {
        size_t count = 1;
        for (const int64_t extent : shape) {
            count *= static_cast<size_t>(extent);
        }
        NamedTensor tensor{name, shape,
                           std::vector<float>(count, name.ends_with("norm.weight") ? 1.0f : 0.0f)};
        if (const auto it = values.find(name); it != values.end()) {
            tensor.values = it->second;
        }
        tensors.push_back(std::move(tensor));
    }
    write_safetensors(dir, tensors, type);
}

// Rows of +-1, the same for the same arguments: nearly orthogonal to each other.
inline std::vector<float> sign_rows(size_t rows, size_t dim) {
    std::vector<float> values(rows * dim);
    const CounterRandom random(1, "signs");
    for (size_t i = 0; i < values.size(); i++) {
        values[i] = random(i) < 0 ? -1.0f : 1.0f;
    }
    return values;
}

struct ConstructedOptions {
    int32_t max_context = 4096;
    std::vector<int32_t> eos_ids;
    DType type = DType::kBf16;
};

// After token t, greedy decoding gives next[t]. `next.size()` is the size of the vocabulary. Throws when the
// rows of signs happen to be too alike for that to hold with a margin (many tokens that share one successor).
inline void write_lookup_model(const std::string& dir, const std::vector<int32_t>& next,
                               const ConstructedOptions& options = {}) {
    constexpr size_t kDim = 256;
    const size_t vocab = next.size();
    const std::vector<float> embedding = sign_rows(vocab, kDim);
    std::vector<float> head(vocab * kDim, 0.0f);
    for (size_t token = 0; token < vocab; token++) {
        for (size_t i = 0; i < kDim; i++) {
            head[static_cast<size_t>(next[token]) * kDim + i] += embedding[token * kDim + i];
        }
    }
    for (size_t token = 0; token < vocab; token++) {
        std::vector<float> logits(vocab, 0.0f);
        for (size_t other = 0; other < vocab; other++) {
            for (size_t i = 0; i < kDim; i++) {
                logits[other] += embedding[token * kDim + i] * head[other * kDim + i];
            }
        }
        const auto winner = static_cast<size_t>(next[token]);
        for (size_t other = 0; other < vocab; other++) {
            if (other != winner && logits[other] > logits[winner] - 16) {
                throw std::runtime_error("lookup model: token " + std::to_string(token) +
                                         " has no clear successor");
            }
        }
    }
    const nlohmann::json config = {{"architectures", {"LlamaForCausalLM"}},
                                   {"model_type", "llama"},
                                   {"hidden_size", kDim},
                                   {"intermediate_size", 16},
                                   {"num_hidden_layers", 1},
                                   {"num_attention_heads", 1},
                                   {"num_key_value_heads", 1},
                                   {"head_dim", 16},
                                   {"vocab_size", vocab},
                                   {"max_position_embeddings", options.max_context},
                                   {"rms_norm_eps", 1e-6},
                                   {"rope_theta", 10000.0},
                                   {"eos_token_id", options.eos_ids},
                                   {"tie_word_embeddings", false}};
    write_constructed_model(dir, config.dump(),
                            {{"model.embed_tokens.weight", embedding}, {"lm_head.weight", head}},
                            options.type);
}

// After the tokens t[0..p], greedy decoding gives t[p - distance]: with distance n - 1 a prompt of n tokens
// is repeated for ever. The prompt needs at least distance + 1 tokens; what follows a shorter one is not
// defined. One attention head per 64 dimensions copies the embedding found `distance` positions back (query
// and key are constants, given by biases; the rotation alone makes their product largest at that offset) into
// dimensions that only lm_head reads.
inline void write_copy_model(const std::string& dir, int32_t vocab_size, int32_t distance,
                             const ConstructedOptions& options = {}) {
    constexpr size_t kHeadDim = 64;
    constexpr size_t kHalf = kHeadDim / 2;
    constexpr size_t kWidth = 128;  // of an embedding
    constexpr size_t kDim = 2 * kWidth;
    constexpr size_t kHeads = kWidth / kHeadDim;
    constexpr double kTheta = 10000;
    const auto vocab = static_cast<size_t>(vocab_size);
    const std::vector<float> signs = sign_rows(vocab, kWidth);
    std::vector<float> embedding(vocab * kDim, 0.0f);
    std::vector<float> head(vocab * kDim, 0.0f);
    for (size_t token = 0; token < vocab; token++) {
        for (size_t i = 0; i < kWidth; i++) {
            embedding[token * kDim + i] = signs[token * kWidth + i];
            head[token * kDim + kWidth + i] = signs[token * kWidth + i];
        }
    }
    // The first offset off the peak loses sum(1 - cos(theta_i)) of it, about 1.1: scaled to some 80, so that
    // even a key rounded to 8 bits leaves all the weight on one position.
    constexpr double kAmplitude = 24;  // of q and of k; times 1/sqrt(head_dim) inside attention
    std::vector<float> q_bias(kHeads * kHeadDim);
    std::vector<float> k_bias(kHeads * kHeadDim);
    std::vector<float> identity(kWidth * kDim, 0.0f);    // [kWidth][kDim]
    std::vector<float> into_upper(kDim * kWidth, 0.0f);  // [kDim][kWidth]
    for (size_t h = 0; h < kHeads; h++) {
        for (size_t i = 0; i < kHalf; i++) {
            const double angle =
                -std::pow(kTheta, -2.0 * static_cast<double>(i) / kHeadDim) * static_cast<double>(distance);
            q_bias[h * kHeadDim + i] = static_cast<float>(kAmplitude * std::cos(angle));
            q_bias[h * kHeadDim + kHalf + i] = static_cast<float>(kAmplitude * std::sin(angle));
            k_bias[h * kHeadDim + i] = static_cast<float>(kAmplitude);
        }
    }
    for (size_t i = 0; i < kWidth; i++) {
        identity[i * kDim + i] = 1;
        into_upper[(kWidth + i) * kWidth + i] = 1;
    }
    const nlohmann::json config = {{"architectures", {"Qwen2ForCausalLM"}},
                                   {"model_type", "qwen2"},
                                   {"hidden_size", kDim},
                                   {"intermediate_size", 16},
                                   {"num_hidden_layers", 1},
                                   {"num_attention_heads", kHeads},
                                   {"num_key_value_heads", kHeads},
                                   {"head_dim", kHeadDim},
                                   {"vocab_size", vocab},
                                   {"max_position_embeddings", options.max_context},
                                   {"rms_norm_eps", 1e-6},
                                   {"rope_theta", kTheta},
                                   {"eos_token_id", options.eos_ids},
                                   {"tie_word_embeddings", false}};
    const std::string attention = "model.layers.0.self_attn.";
    write_constructed_model(dir, config.dump(),
                            {{"model.embed_tokens.weight", embedding},
                             {"lm_head.weight", head},
                             {attention + "q_proj.bias", q_bias},
                             {attention + "k_proj.bias", k_bias},
                             {attention + "v_proj.weight", identity},
                             {attention + "o_proj.weight", into_upper}},
                            options.type);
}

// Ids of the special tokens that write_byte_tokenizer adds to the 256 bytes; the vocabulary has 259.
inline constexpr int32_t kImStart = 256;
inline constexpr int32_t kImEnd = 257;
inline constexpr int32_t kEndOfText = 258;
inline constexpr int32_t kByteVocab = 259;

// tokenizer.json and tokenizer_config.json (ChatML) of a byte-level BPE without merges: one token per byte,
// whose id is the byte.
inline void write_byte_tokenizer(const std::string& dir) {
    nlohmann::json vocab = nlohmann::json::object();
    // GPT-2's printable stand-ins: most of Latin-1 for itself, the other bytes from U+0100 on.
    uint32_t next = 256;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        const uint32_t code = itself ? byte : next++;
        std::string text;
        if (code < 128) {
            text = std::string(1, static_cast<char>(code));
        } else {
            text = {static_cast<char>(0xc0 | (code >> 6)), static_cast<char>(0x80 | (code & 63))};
        }
        vocab[text] = byte;
    }
    nlohmann::json added = nlohmann::json::array();
    const std::pair<int32_t, const char*> specials[] = {
        {kImStart, "<|im_start|>"}, {kImEnd, "<|im_end|>"}, {kEndOfText, "<|endoftext|>"}};
    for (const auto& [id, content] : specials) {
        added.push_back({{"id", id},
                         {"content", content},
                         {"special", true},
                         {"single_word", false},
                         {"lstrip", false},
                         {"rstrip", false},
                         {"normalized", false}});
    }
    const nlohmann::json byte_level = {
        {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
    const nlohmann::json tokenizer = {{"version", "1.0"},
                                      {"truncation", nullptr},
                                      {"padding", nullptr},
                                      {"added_tokens", added},
                                      {"normalizer", nullptr},
                                      {"pre_tokenizer", byte_level},
                                      {"post_processor", nullptr},
                                      {"decoder", byte_level},
                                      {"model",
                                       {{"type", "BPE"},
                                        {"dropout", nullptr},
                                        {"unk_token", nullptr},
                                        {"continuing_subword_prefix", nullptr},
                                        {"end_of_word_suffix", nullptr},
                                        {"fuse_unk", false},
                                        {"byte_fallback", false},
                                        {"vocab", vocab},
                                        {"merges", nlohmann::json::array()}}}};
    write_text(dir + "/tokenizer.json", tokenizer.dump());
    const nlohmann::json settings = {
        {"eos_token", "<|im_end|>"},
        {"chat_template",
         "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] "
         "}}<|im_end|>\n"
         "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"}};
    write_text(dir + "/tokenizer_config.json", settings.dump());
}

}  // namespace llm::testing
