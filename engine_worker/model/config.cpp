#include "engine_worker/model/config.hpp"

#include <cmath>
#include <fstream>
#include <limits>
#include <numbers>
#include <sstream>
#include <stdexcept>

#include "shared/json.hpp"

namespace llm::engine {
namespace {

using Json = nlohmann::json;

// A value as an error message shows it. Never the text of a whole list or object: dump() of those recurses,
// and how deep is the file's choice.
std::string brief(const Json& value) {
    if (value.is_array()) {
        return value.size() == 1 && value[0].is_primitive() ? "[" + value[0].dump() + "]" : "a list";
    }
    return value.is_object() ? "an object" : value.dump();
}

// One JSON object of one file: reads fields and, when one is wrong, says which of which file.
class Fields {
  public:
    Fields(const Json& json, std::string file, std::string prefix = "")
        : json_(json), file_(std::move(file)), prefix_(std::move(prefix)) {}

    [[noreturn]] void fail(const std::string& key, const std::string& what) const {
        throw std::runtime_error(file_ + ": " + prefix_ + key + " " + what);
    }
    // nullptr: absent or null.
    const Json* find(const std::string& key) const {
        const auto it = json_.find(key);
        return it == json_.end() || it->is_null() ? nullptr : &*it;
    }
    bool has(const std::string& key) const { return find(key) != nullptr; }
    bool is_null(const std::string& key) const {  // written, as null: not what is meant where it is absent
        const auto it = json_.find(key);
        return it != json_.end() && it->is_null();
    }

    int32_t integer(const std::string& key, int32_t low, int32_t high) const {
        const Json* value = find(key);
        if (value == nullptr) {
            fail(key, "is missing");
        }
        if (!value->is_number_integer()) {
            fail(key, "is not an integer");
        }
        // An unsigned value above INT64_MAX would wrap: compare as double first.
        if (value->get<double>() < low || value->get<double>() > high) {
            fail(key,
                 "is " + brief(*value) + ", outside " + std::to_string(low) + ".." + std::to_string(high));
        }
        return value->get<int32_t>();
    }
    int32_t integer_or(const std::string& key, int32_t otherwise, int32_t low, int32_t high) const {
        return has(key) ? integer(key, low, high) : otherwise;
    }
    double positive(const std::string& key) const {
        const Json* value = find(key);
        if (value == nullptr) {
            fail(key, "is missing");
        }
        if (!value->is_number()) {
            fail(key, "is not a number");
        }
        const double number = value->get<double>();
        if (!(number > 0) || !std::isfinite(number)) {
            fail(key, "is " + brief(*value) + ", not a positive number");
        }
        return number;
    }
    double positive_or(const std::string& key, double otherwise) const {
        return has(key) ? positive(key) : otherwise;
    }
    bool boolean_or(const std::string& key, bool otherwise) const {
        const Json* value = find(key);
        if (value == nullptr) {
            return otherwise;
        }
        if (!value->is_boolean()) {
            fail(key, "is neither true nor false");
        }
        return value->get<bool>();
    }
    std::string string_or(const std::string& key, const std::string& otherwise) const {
        const Json* value = find(key);
        if (value == nullptr) {
            return otherwise;
        }
        if (!value->is_string()) {
            fail(key, "is not a string");
        }
        return value->get<std::string>();
    }
    // An object below this one; nullopt-like: an empty object where absent.
    const Json& object_or_empty(const std::string& key) const {
        static const Json empty = Json::object();
        const Json* value = find(key);
        if (value == nullptr) {
            return empty;
        }
        if (!value->is_object()) {
            fail(key, "is not an object");
        }
        return *value;
    }
    const std::string& file() const { return file_; }

  private:
    const Json& json_;
    std::string file_;
    std::string prefix_;
};

constexpr int32_t kMaxDim = 1 << 20;
constexpr int32_t kMaxContext = 1 << 24;  // positions are compared as floats in the attention kernels

Json parse_object(std::string_view text, const std::string& file) {
    Json json = Json::parse(text, nullptr, false);
    if (json.is_discarded() || !json.is_object()) {
        throw std::runtime_error(file + ": is not a JSON object");
    }
    return json;
}

void check_architecture(const Fields& fields, const std::string& type) {
    static constexpr struct {
        const char* type;
        const char* architecture;
    } kKnown[] = {{"llama", "LlamaForCausalLM"},
                  {"mistral", "MistralForCausalLM"},
                  {"qwen2", "Qwen2ForCausalLM"},
                  {"qwen3", "Qwen3ForCausalLM"}};
    for (const auto& known : kKnown) {
        if (type != known.type) {
            continue;
        }
        const Json* list = fields.find("architectures");
        if (list != nullptr) {
            if (!list->is_array() || list->size() != 1 || !(*list)[0].is_string() ||
                (*list)[0].get<std::string>() != known.architecture) {
                fields.fail("architectures", "is " + brief(*list) + "; for model_type " + type + " only [\"" +
                                                 known.architecture + "\"] is supported");
            }
        }
        return;
    }
    fields.fail("model_type", "is \"" + type + "\"; supported are llama, mistral, qwen2 and qwen3");
}

void read_rope(const Fields& fields, ModelConfig& config) {
    // transformers 5 gathers what was rope_theta and rope_scaling in rope_parameters.
    const bool gathered = fields.has("rope_parameters");
    const std::string key = gathered ? "rope_parameters" : "rope_scaling";
    const Fields rope(fields.object_or_empty(key), fields.file(), key + ".");
    config.rope_theta =
        rope.has("rope_theta") ? rope.positive("rope_theta") : fields.positive_or("rope_theta", 10000);
    for (const Fields& at : {fields, rope}) {
        if (at.has("partial_rotary_factor") && at.positive("partial_rotary_factor") != 1) {
            at.fail("partial_rotary_factor", "is not 1; partial rotation is not supported");
        }
    }
    const std::string kind = rope.string_or("rope_type", rope.string_or("type", "default"));
    if (kind == "default") {
        return;
    }
    if (kind == "linear") {
        config.rope.kind = RopeScaling::Kind::kLinear;
        config.rope.factor = rope.positive("factor");
        return;
    }
    if (kind == "llama3") {
        config.rope.kind = RopeScaling::Kind::kLlama3;
        config.rope.factor = rope.positive("factor");
        config.rope.low_freq_factor = rope.positive("low_freq_factor");
        config.rope.high_freq_factor = rope.positive("high_freq_factor");
        config.rope.original_max_context = rope.integer("original_max_position_embeddings", 1, kMaxContext);
        if (config.rope.high_freq_factor <= config.rope.low_freq_factor) {
            rope.fail("high_freq_factor", "is not above low_freq_factor");
        }
        return;
    }
    rope.fail(rope.has("rope_type") ? "rope_type" : "type",
              "is \"" + kind + "\"; supported are default, linear and llama3");
}

void read_windows(const Fields& fields, ModelConfig& config) {
    config.window.assign(static_cast<size_t>(config.n_layers), 0);
    const bool optional = config.model_type == "qwen2" || config.model_type == "qwen3";
    if (config.model_type == "llama" || (optional && !fields.boolean_or("use_sliding_window", false))) {
        return;
    }
    if (fields.is_null("sliding_window")) {
        return;
    }
    // Absent fields have the defaults of transformers' MistralConfig, Qwen2Config and Qwen3Config.
    const int32_t window = fields.integer_or("sliding_window", 4096, 1, kMaxContext);
    // Mistral: every layer. Qwen: the layers from max_window_layers on, unless layer_types says it one by
    // one.
    const int32_t first =
        optional ? fields.integer_or("max_window_layers", 28, 0, std::numeric_limits<int32_t>::max()) : 0;
    for (int32_t layer = first; layer < config.n_layers; layer++) {
        config.window[static_cast<size_t>(layer)] = window;
    }
    if (const Json* types = fields.find("layer_types"); types != nullptr) {
        if (!types->is_array() || types->size() != config.window.size()) {
            fields.fail("layer_types", "is not a list of num_hidden_layers entries");
        }
        for (size_t layer = 0; layer < config.window.size(); layer++) {
            const Json& type = (*types)[layer];
            if (type == "full_attention") {
                config.window[layer] = 0;
            } else if (type == "sliding_attention") {
                config.window[layer] = window;
            } else {
                fields.fail("layer_types", "has the unsupported entry " + brief(type));
            }
        }
    }
}

void read_ids(const Fields& fields, const std::string& key, int32_t vocab_size, std::vector<int32_t>& ids) {
    const Json* value = fields.find(key);
    if (value == nullptr) {
        return;
    }
    const Json list = value->is_array() ? *value : Json::array({*value});
    ids.clear();
    for (const Json& id : list) {
        if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() >= vocab_size) {
            fields.fail(key, "has the entry " + brief(id) + ", which is not a token id below vocab_size");
        }
        ids.push_back(id.get<int32_t>());
    }
}

void read_bos(const Fields& fields, int32_t vocab_size, int32_t& bos) {
    std::vector<int32_t> ids;
    read_ids(fields, "bos_token_id", vocab_size, ids);
    if (!ids.empty()) {
        bos = ids.front();
    }
}

// compressed-tensors with e4m3 weights, one scale per output or per matrix. How activations were to be quantised does
// not matter: they stay in bf16, which is closer to the original.
bool is_fp8(const Json& quantization) {
    const auto is = [](const Json& object, const char* key, const Json& value) {
        return object.is_object() && object.contains(key) && object[key] == value;
    };
    if (!is(quantization, "quant_method", "compressed-tensors") || !is(quantization, "format", "float-quantized") ||
        !quantization.contains("config_groups") || !quantization["config_groups"].is_object()) {
        return false;
    }
    for (const auto& [name, group] : quantization["config_groups"].items()) {
        if (!group.is_object() || !group.contains("weights")) {
            return false;
        }
        const Json& weights = group["weights"];
        if (!is(weights, "num_bits", 8) || !is(weights, "type", "float") ||
            (!is(weights, "strategy", "channel") && !is(weights, "strategy", "tensor"))) {
            return false;
        }
    }
    return true;
}

void refuse_unsupported(const Fields& fields) {
    for (const char* key : {"quantization_config", "compression_config"}) {
        const Json* quantization = fields.find(key);
        if (quantization != nullptr && !is_fp8(*quantization)) {
            const bool named = quantization->is_object() && quantization->contains("quant_method");
            fields.fail(key, "asks for " +
                                 (named ? "quantisation " + brief((*quantization)["quant_method"])
                                        : std::string("quantised weights")) +
                                 "; only plain f32, f16 and bf16 weights, and on GPUs e4m3 of "
                                 "compressed-tensors with one scale per output or matrix, are supported");
        }
    }
    const std::string activation = fields.string_or("hidden_act", "silu");
    if (activation != "silu") {
        fields.fail("hidden_act", "is \"" + activation + "\"; only silu is supported");
    }
    if (fields.boolean_or("mlp_bias", false)) {
        fields.fail("mlp_bias", "is true, which is not supported");
    }
    if (fields.boolean_or("is_encoder_decoder", false)) {
        fields.fail("is_encoder_decoder", "is true, which is not supported");
    }
    for (const char* key : {"num_experts", "num_local_experts", "n_routed_experts"}) {
        if (fields.has(key)) {
            fields.fail(key, "is set; mixtures of experts are not supported");
        }
    }
}

std::string read_file(const std::string& path, bool required) {
    std::ifstream in(path, std::ios::binary);
    if (!in) {
        if (required) {
            throw std::runtime_error(path + ": cannot be read");
        }
        return "";
    }
    std::ostringstream text;
    text << in.rdbuf();
    return text.str();
}

}  // namespace

ModelConfig parse_model_config(std::string_view config_json, std::string_view generation_json,
                               const std::string& file, const std::string& generation_file) {
    const Json json = parse_object(config_json, file);
    const Fields fields(json, file);
    ModelConfig config;
    if (!fields.has("model_type")) {
        fields.fail("model_type", "is missing");
    }
    config.model_type = fields.string_or("model_type", "");
    check_architecture(fields, config.model_type);
    refuse_unsupported(fields);
    config.fp8_weights = fields.has("quantization_config") || fields.has("compression_config");

    config.dim = fields.integer("hidden_size", 1, kMaxDim);
    config.ffn_dim = fields.integer("intermediate_size", 1, kMaxDim);
    config.n_layers = fields.integer("num_hidden_layers", 1, 4096);
    config.n_heads = fields.integer("num_attention_heads", 1, 4096);
    config.vocab_size = fields.integer("vocab_size", 1, 1 << 24);
    config.max_context = fields.integer("max_position_embeddings", 1, kMaxContext);
    config.n_kv_heads = fields.integer_or("num_key_value_heads", config.n_heads, 1, 4096);
    if (config.n_heads % config.n_kv_heads != 0) {
        fields.fail("num_attention_heads", "is not a multiple of num_key_value_heads");
    }
    if (fields.has("head_dim")) {
        config.head_dim = fields.integer("head_dim", 2, 1024);
    } else if (config.model_type == "qwen3") {
        config.head_dim = 128;  // the default of transformers' Qwen3Config, whatever hidden_size is
    } else if (config.dim % config.n_heads == 0) {
        config.head_dim = config.dim / config.n_heads;
    } else {
        fields.fail("hidden_size", "is not a multiple of num_attention_heads, and head_dim is missing");
    }
    if (config.head_dim % 2 != 0 || config.head_dim > 1024) {
        fields.fail("head_dim", "is " + std::to_string(config.head_dim) + ", not an even number up to 1024");
    }
    config.norm_eps = fields.positive_or("rms_norm_eps", 1e-6);
    config.tied_embeddings = fields.boolean_or("tie_word_embeddings", false);
    if (config.model_type == "qwen2") {
        config.qkv_bias = true;
    } else if (config.model_type != "mistral") {
        config.qkv_bias = config.o_bias = fields.boolean_or("attention_bias", false);
    }
    config.qk_norm = config.model_type == "qwen3";
    read_rope(fields, config);
    read_windows(fields, config);
    read_ids(fields, "eos_token_id", config.vocab_size, config.eos_ids);
    read_bos(fields, config.vocab_size, config.bos_id);

    if (!generation_json.empty()) {
        const Json generation = parse_object(generation_json, generation_file);
        const Fields more(generation, generation_file);
        read_ids(more, "eos_token_id", config.vocab_size, config.eos_ids);
        read_bos(more, config.vocab_size, config.bos_id);
    }
    return config;
}

ModelConfig load_model_config(const std::string& dir) {
    const std::string file = dir + "/config.json";
    const std::string generation_file = dir + "/generation_config.json";
    ModelConfig config =
        parse_model_config(read_file(file, true), read_file(generation_file, false), file, generation_file);
    config.dir = dir;
    return config;
}

std::vector<double> rope_frequencies(const ModelConfig& config) {
    const int32_t half = config.head_dim / 2;
    std::vector<double> frequencies(static_cast<size_t>(half));
    const RopeScaling& rope = config.rope;
    for (int32_t i = 0; i < half; i++) {
        double frequency = std::pow(config.rope_theta, -2.0 * i / config.head_dim);
        if (rope.kind == RopeScaling::Kind::kLinear) {
            frequency /= rope.factor;
        } else if (rope.kind == RopeScaling::Kind::kLlama3) {
            // Long waves are stretched, short ones kept, those between blended.
            const double wave = 2 * std::numbers::pi / frequency;
            const double periods = rope.original_max_context / wave;
            if (periods < rope.low_freq_factor) {
                frequency /= rope.factor;
            } else if (periods <= rope.high_freq_factor) {
                const double smooth =
                    (periods - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor);
                frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
            }
        }
        frequencies[static_cast<size_t>(i)] = frequency;
    }
    return frequencies;
}

}  // namespace llm::engine
