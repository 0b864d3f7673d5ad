#include "tests/support/model_builder.hpp"

#include <cmath>
#include <fstream>

#include "shared/json.hpp"

namespace llm::testing {

void write_text(const std::string& path, const std::string& text) {
    std::ofstream out(path, std::ios::binary);
    out << text;
    if (!out.flush()) {
        throw std::runtime_error(path + ": cannot be written");
    }
}

std::string safetensors_bytes(const std::vector<NamedTensor>& tensors, DType type) {
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

void write_safetensors(const std::string& dir, const std::vector<NamedTensor>& tensors, DType type,
                       size_t shards) {
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

std::vector<std::pair<std::string, std::vector<int64_t>>> tensor_shapes(const ModelConfig& config) {
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

NamedTensor random_tensor(const ModelConfig& config, uint64_t seed, const std::string& name,
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

void write_random_model(const std::string& dir, const std::string& config_json, uint64_t seed,
                        DType type, size_t shards) {
    write_text(dir + "/config.json", config_json);
    const ModelConfig config = engine::load_model_config(dir);
    std::vector<NamedTensor> tensors;
    for (const auto& [name, shape] : tensor_shapes(config)) {
        tensors.push_back(random_tensor(config, seed, name, shape));
    }
    write_safetensors(dir, tensors, type, shards);
}

void write_constructed_model(const std::string& dir, const std::string& config_json,
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

std::vector<float> sign_rows(size_t rows, size_t dim) {
    std::vector<float> values(rows * dim);
    const CounterRandom random(1, "signs");
    for (size_t i = 0; i < values.size(); i++) {
        values[i] = random(i) < 0 ? -1.0f : 1.0f;
    }
    return values;
}

void write_lookup_model(const std::string& dir, const std::vector<int32_t>& next,
                        const ConstructedOptions& options) {
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

void write_copy_model(const std::string& dir, int32_t vocab_size, int32_t distance,
                      const ConstructedOptions& options) {
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

void write_byte_tokenizer(const std::string& dir) {
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
