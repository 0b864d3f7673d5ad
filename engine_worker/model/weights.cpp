#include "engine_worker/model/weights.hpp"

#include <set>
#include <stdexcept>

namespace llm::engine {
namespace {

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text = "[";
    for (size_t i = 0; i < shape.size(); i++) {
        text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return text + "]";
}

// Hands out tensors and remembers which it has handed out.
class Finder {
  public:
    explicit Finder(const TensorStore& store)
        : store_(store),
          base_(!store.find("model.embed_tokens.weight") && store.find("embed_tokens.weight") ? "" : "model.") {}

    // What the names of the decoder's tensors begin with. Embedding models (Qwen3-Embedding) are saved without the
    // class around the decoder, and without its prefix.
    const std::string& base() const { return base_; }

    // A matrix that may be e4m3, with `scale` then.
    Tensor take_projection(const std::string& name, const std::vector<int64_t>& shape, bool fp8, Tensor& scale) {
        const Tensor found = store_.find(name);
        if (!fp8 || !found || found.dtype != DType::kF8E4M3) {
            return take(name, shape);
        }
        if (found.shape != shape) {
            throw std::runtime_error(store_.names().at(name) + ": tensor " + name + " has shape " +
                                     shape_text(found.shape) + ", but config.json implies " + shape_text(shape));
        }
        taken_.insert(name);
        const std::string scale_name = name + "_scale";
        const Tensor raw = store_.find(scale_name);
        int64_t count = raw ? 1 : 0;
        for (const int64_t extent : raw.shape) {
            count *= extent;
        }
        if (count != 1 && count != shape[0]) {
            throw std::runtime_error(store_.root() + ": tensor " + scale_name + (raw ? " has shape " +
                                     shape_text(raw.shape) + ", not one factor or one per output" : " is missing"));
        }
        scale = take(scale_name, raw.shape);
        scale.shape = {count};
        taken_.insert(name.substr(0, name.size() - 6) + "input_scale");  // of activations, which stay bf16
        return found;
    }

    Tensor take(const std::string& name, const std::vector<int64_t>& shape) {
        Tensor tensor = store_.find(name);
        if (!tensor) {
            throw std::runtime_error(store_.root() + ": tensor " + name + " is missing");
        }
        const std::string& file = store_.names().at(name);
        if (tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBf16) {
            throw std::runtime_error(file + ": tensor " + name + " has dtype " +
                                     std::string(dtype_name(tensor.dtype)) +
                                     "; only F32, F16 and BF16 are supported");
        }
        if (tensor.shape != shape) {
            throw std::runtime_error(file + ": tensor " + name + " has shape " + shape_text(tensor.shape) +
                                     ", but config.json implies " + shape_text(shape));
        }
        taken_.insert(name);
        return tensor;
    }

    void refuse_leftovers(const ModelConfig& config) const {
        for (const auto& [name, file] : store_.names()) {
            const bool derived = name.ends_with(".rotary_emb.inv_freq");  // computed from rope_theta instead
            const bool unused_head = config.tied_embeddings && name == "lm_head.weight";
            if (!taken_.contains(name) && !derived && !unused_head) {
                throw std::runtime_error(file + ": tensor " + name + " is not part of the " +
                                         config.model_type + " model that config.json describes");
            }
        }
    }

  private:
    const TensorStore& store_;
    std::string base_;
    std::set<std::string> taken_;
};

LayerTensors take_layer(Finder& finder, const ModelConfig& config, int32_t index) {
    const int64_t dim = config.dim;
    const int64_t q_dim = int64_t{config.n_heads} * config.head_dim;
    const int64_t kv_dim = int64_t{config.n_kv_heads} * config.head_dim;
    const int64_t ffn = config.ffn_dim;
    const std::string prefix = finder.base() + "layers." + std::to_string(index) + ".";
    const std::string attention = prefix + "self_attn.";
    const bool fp8 = config.fp8_weights;
    LayerTensors layer;
    layer.attn_norm = finder.take(prefix + "input_layernorm.weight", {dim});
    layer.q = finder.take_projection(attention + "q_proj.weight", {q_dim, dim}, fp8, layer.q_scale);
    layer.k = finder.take_projection(attention + "k_proj.weight", {kv_dim, dim}, fp8, layer.k_scale);
    layer.v = finder.take_projection(attention + "v_proj.weight", {kv_dim, dim}, fp8, layer.v_scale);
    layer.o = finder.take_projection(attention + "o_proj.weight", {dim, q_dim}, fp8, layer.o_scale);
    if (config.qkv_bias) {
        layer.q_bias = finder.take(attention + "q_proj.bias", {q_dim});
        layer.k_bias = finder.take(attention + "k_proj.bias", {kv_dim});
        layer.v_bias = finder.take(attention + "v_proj.bias", {kv_dim});
    }
    if (config.o_bias) {
        layer.o_bias = finder.take(attention + "o_proj.bias", {dim});
    }
    if (config.qk_norm) {
        layer.q_norm = finder.take(attention + "q_norm.weight", {config.head_dim});
        layer.k_norm = finder.take(attention + "k_norm.weight", {config.head_dim});
    }
    layer.mlp_norm = finder.take(prefix + "post_attention_layernorm.weight", {dim});
    layer.gate = finder.take_projection(prefix + "mlp.gate_proj.weight", {ffn, dim}, fp8, layer.gate_scale);
    layer.up = finder.take_projection(prefix + "mlp.up_proj.weight", {ffn, dim}, fp8, layer.up_scale);
    layer.down = finder.take_projection(prefix + "mlp.down_proj.weight", {dim, ffn}, fp8, layer.down_scale);
    return layer;
}

}  // namespace

ModelTensors load_model_tensors(const ModelConfig& config) {
    ModelTensors tensors;
    tensors.store = std::make_shared<TensorStore>(config.dir);
    Finder finder(*tensors.store);
    tensors.embedding = finder.take(finder.base() + "embed_tokens.weight", {config.vocab_size, config.dim});
    tensors.norm = finder.take(finder.base() + "norm.weight", {config.dim});
    tensors.lm_head = config.tied_embeddings ? tensors.embedding
                                             : finder.take("lm_head.weight", {config.vocab_size, config.dim});
    for (int32_t i = 0; i < config.n_layers; i++) {
        tensors.layers.push_back(take_layer(finder, config, i));
    }
    finder.refuse_leftovers(config);
    return tensors;
}

}  // namespace llm::engine
