#include "engine_worker/backend/cpu/forward.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace llm::engine {
namespace {

// Rows of one matmul task, and the weights of one: at least so much that runs are long enough for the
// prefetchers, and for more rows than a tile has as much as stays in the second-level cache from one tile to
// the next.
constexpr int32_t kRowBlock = 48;
constexpr int32_t kFewRows = 8;
constexpr size_t kTaskBytesFewRows = 48 << 10;
constexpr size_t kTaskBytes = 256 << 10;
constexpr int32_t kElementsPerTask =
    16384;  // below this, handing a row to another thread costs more than it saves

int32_t padded_head_dim(const ModelConfig& config) {
    return static_cast<int32_t>(round_up(static_cast<size_t>(config.head_dim), 16));
}

size_t scratch_floats(const ModelConfig& config) {
    const auto d = static_cast<size_t>(padded_head_dim(config));
    const size_t attention = d * (2 * kQueryLanes + kKvBlock + 1) + kKvBlock * kQueryLanes + 3 * kQueryLanes;
    const auto rows =
        static_cast<size_t>(std::max({config.dim, config.ffn_dim, config.n_heads * config.head_dim}));
    return round_up(std::max(attention, rows), 16) + 16;
}

WeightType pick_type(const std::string& dtype, const ModelTensors& tensors) {
    if (dtype == "auto") {
        // f16 rounds to bf16 like anything else; only who stored f32 is taken to want it.
        return tensors.layers[0].gate.dtype == DType::kF32 ? WeightType::kF32 : WeightType::kBf16;
    }
    if (dtype == "f32") {
        return WeightType::kF32;
    }
    if (dtype == "bf16") {
        return WeightType::kBf16;
    }
    if (dtype == "int8") {
        return WeightType::kInt8;
    }
    throw std::runtime_error("dtype \"" + dtype + "\" is not one of auto, f32, bf16 and int8");
}

}  // namespace

size_t CpuModel::weight_bytes() const {
    size_t bytes = lm_head.bytes();
    for (const CpuLayer& layer : layers) {
        bytes += layer.qkv.bytes() + layer.o.bytes() + layer.gate_up.bytes() + layer.down.bytes();
    }
    return bytes;
}

CpuModel load_cpu_model(const ModelConfig& config, const std::string& dtype, ThreadPool& pool) {
    CpuModel model;
    model.config = config;
    model.tensors = load_model_tensors(config);
    const ModelTensors& tensors = model.tensors;
    if (config.fp8_weights) {
        throw std::runtime_error(config.dir + ": FP8 weights are supported on GPUs only (--backend cuda)");
    }
    model.type = pick_type(dtype, tensors);
    for (const LayerTensors& from : tensors.layers) {
        CpuLayer layer;
        layer.attn_norm = load_vector(from.attn_norm);
        layer.mlp_norm = load_vector(from.mlp_norm);
        if (from.q_norm) {
            layer.q_norm = load_vector(from.q_norm);
            layer.k_norm = load_vector(from.k_norm);
        }
        layer.qkv = pack_matrix(pool, model.type, {from.q, from.k, from.v},
                                {from.q_bias, from.k_bias, from.v_bias}, false);
        layer.o = pack_matrix(pool, model.type, {from.o}, {from.o_bias}, false);
        layer.gate_up = pack_matrix(pool, model.type, {from.gate, from.up}, {}, true);
        layer.down = pack_matrix(pool, model.type, {from.down}, {}, false);
        model.layers.push_back(std::move(layer));
    }
    model.norm = load_vector(tensors.norm);
    model.lm_head = pack_matrix(pool, model.type, {tensors.lm_head}, {}, false);
    model.rope = rope_frequencies(config);
    tensors.store->release_pages();  // all but the embedding's rows are copied
    return model;
}

size_t kv_bytes_per_token(const ModelConfig& config, WeightType type) {
    const size_t element = type == WeightType::kF32 ? 4 : 2;
    return 2 * element * static_cast<size_t>(config.n_layers) * static_cast<size_t>(config.n_kv_heads) *
           static_cast<size_t>(padded_head_dim(config));
}

Forward::Forward(const CpuModel& model, const Kernels& kernels, ThreadPool& pool, int64_t kv_slots,
                 int32_t max_tokens)
    : model_(model),
      kernels_(kernels),
      pool_(pool),
      kv_slots_(kv_slots),
      head_dim_padded_(padded_head_dim(model.config)),
      dim_stride_(round_up(static_cast<size_t>(model.config.dim), kPanel)),
      kv_bf16_(model.type != WeightType::kF32),
      kv_(kv_bytes_per_token(model.config, model.type) * static_cast<size_t>(kv_slots),
          Region::Pages::kSmall) {
    const ModelConfig& config = model.config;
    const auto tokens = static_cast<size_t>(max_tokens);
    const size_t heads = static_cast<size_t>(config.n_heads) * static_cast<size_t>(head_dim_padded_);
    const size_t qkv = static_cast<size_t>(model.layers[0].qkv.packed.n_panels) * kPanel;
    const size_t gate_up = static_cast<size_t>(model.layers[0].gate_up.packed.n_panels) * kPanel;
    const size_t activations = std::max({activation_stride(model.type, config.dim),
                                         activation_stride(model.type, config.n_heads * config.head_dim),
                                         activation_stride(model.type, config.ffn_dim)});
    // One region, cut into rows per buffer; every buffer begins on a cache line.
    const size_t ffn = model.type == WeightType::kInt8 ? gate_up / 2 : 0;
    const size_t rows[] = {dim_stride_ * 4, qkv * 4,    heads * 4,
                           heads * 4,       ffn * 4,    static_cast<size_t>(config.head_dim) * 4,
                           activations,     activations};
    size_t offsets[std::size(rows)];
    size_t total = 0;
    for (size_t i = 0; i < std::size(rows); i++) {
        offsets[i] = total;
        total += round_up(rows[i] * tokens, 64);
    }
    buffers_ = Region(total);
    const auto floats = [&](size_t i) { return reinterpret_cast<float*>(buffers_.data() + offsets[i]); };
    hidden_ = floats(0);
    qkv_ = floats(1);
    query_ = floats(2);
    attended_ = floats(3);
    ffn_ = floats(4);
    rotation_ = floats(5);
    activations_ = buffers_.data() + offsets[6];
    next_activations_ = buffers_.data() + offsets[7];
    for (int32_t worker = 0; worker < pool.size(); worker++) {
        scratch_.emplace_back(scratch_floats(config) * sizeof(float));
    }
}

// Calls function(row, scratch) for each row, in parallel where it pays.
template <typename Function>
void Forward::for_rows(int32_t m, int32_t width, Function&& function) {
    const int32_t per_task = std::max(1, kElementsPerTask / std::max(1, width));
    pool_.run((m + per_task - 1) / per_task, [&](int32_t task, int32_t worker) {
        auto* scratch = reinterpret_cast<float*>(scratch_[static_cast<size_t>(worker)].data());
        for (int32_t row = task * per_task; row < std::min(m, (task + 1) * per_task); row++) {
            function(static_cast<size_t>(row), scratch);
        }
    });
}

void Forward::embed(const Step& step) {
    const Tensor& table = model_.tensors.embedding;
    const auto dim = static_cast<size_t>(model_.config.dim);
    const auto half = static_cast<size_t>(model_.config.head_dim) / 2;
    for_rows(step.n_tok, model_.config.dim, [&](size_t row, float*) {
        const auto token = static_cast<size_t>(step.tok[row]);
        convert_to_f32(table.dtype, table.data + token * table.row_bytes(), dim, hidden_ + row * dim_stride_);
        float* rotation = rotation_ + row * 2 * half;
        for (size_t i = 0; i < half; i++) {
            const double angle = model_.rope[i] * step.pos[row];
            rotation[i] = static_cast<float>(std::cos(angle));
            rotation[half + i] = static_cast<float>(std::sin(angle));
        }
    });
}

void Forward::plan_attention(const Step& step) {
    const int32_t group = model_.config.n_heads / model_.config.n_kv_heads;
    tiles_.clear();
    for (int32_t sequence = 0; sequence < step.n_seq; sequence++) {
        const int32_t queries = (step.q_start[sequence + 1] - step.q_start[sequence]) * group;
        for (int32_t first = 0; first < queries; first += kQueryLanes) {
            tiles_.push_back({sequence, first, std::min(kQueryLanes, queries - first)});
        }
    }
}

std::byte* Forward::cache(size_t layer, size_t part, size_t head) const {
    const size_t element = kv_bf16_ ? 2 : 4;
    const size_t index = (layer * 2 + part) * static_cast<size_t>(model_.config.n_kv_heads) + head;
    return kv_.data() +
           index * static_cast<size_t>(kv_slots_) * static_cast<size_t>(head_dim_padded_) * element;
}

void Forward::rotate_and_store(const Step& step, const CpuLayer& layer, size_t layer_index) {
    const ModelConfig& config = model_.config;
    const auto head_dim = static_cast<size_t>(config.head_dim);
    const size_t half = head_dim / 2;
    const auto padded = static_cast<size_t>(head_dim_padded_);
    const auto n_heads = static_cast<size_t>(config.n_heads);
    const auto n_kv = static_cast<size_t>(config.n_kv_heads);
    const size_t qkv_stride = static_cast<size_t>(layer.qkv.packed.n_panels) * kPanel;
    const auto eps = static_cast<float>(config.norm_eps);

    for_rows(step.n_tok, static_cast<int32_t>(qkv_stride), [&](size_t row, float* scratch) {
        const float* from = qkv_ + row * qkv_stride;
        const float* cosines = rotation_ + row * head_dim;
        const float* sines = cosines + half;
        const auto slot = static_cast<size_t>(step.slot[row]);
        const auto rotate = [&](const float* x, const std::vector<float>& norm, float* out) {
            if (!norm.empty()) {
                kernels_.rms_norm(x, norm.data(), eps, config.head_dim, scratch);
                x = scratch;
            }
            kernels_.rotate(x, cosines, sines, static_cast<int32_t>(half), out);
            std::fill(out + head_dim, out + padded, 0.0f);
        };
        const auto store = [&](const float* x, size_t part, size_t head) {
            std::byte* base = cache(layer_index, part, head);
            if (kv_bf16_) {
                kernels_.f32_to_bf16(x, head_dim_padded_, reinterpret_cast<uint16_t*>(base) + slot * padded);
            } else {
                std::memcpy(reinterpret_cast<float*>(base) + slot * padded, x, padded * sizeof(float));
            }
        };
        for (size_t head = 0; head < n_heads; head++) {
            rotate(from + head * head_dim, layer.q_norm, query_ + (row * n_heads + head) * padded);
        }
        from += n_heads * head_dim;
        float* padded_row = scratch + head_dim_padded_;
        for (size_t head = 0; head < n_kv; head++) {
            rotate(from + head * head_dim, layer.k_norm, padded_row);
            store(padded_row, 0, head);
        }
        from += n_kv * head_dim;
        for (size_t head = 0; head < n_kv; head++) {
            std::copy_n(from + head * head_dim, head_dim, padded_row);
            std::fill(padded_row + head_dim, padded_row + padded, 0.0f);
            store(padded_row, 1, head);
        }
    });
}

void Forward::attend(const Step& step, size_t layer_index) {
    const ModelConfig& config = model_.config;
    const int32_t n_kv = config.n_kv_heads;
    const int32_t group = config.n_heads / n_kv;
    const auto padded = static_cast<size_t>(head_dim_padded_);
    const auto n_heads = static_cast<size_t>(config.n_heads);
    // Last tiles first: they have the longest contexts.
    const auto n_tiles = static_cast<int32_t>(tiles_.size());
    pool_.run(n_tiles * n_kv, [&](int32_t task, int32_t worker) {
        const Tile& tile = tiles_[static_cast<size_t>(n_tiles - 1 - task / n_kv)];
        const int32_t kv_head = task % n_kv;
        AttentionArgs args;
        args.n_queries = tile.count;
        for (int32_t i = 0; i < tile.count; i++) {
            const int32_t token = step.q_start[tile.sequence] + (tile.first + i) / group;
            const int32_t head = kv_head * group + (tile.first + i) % group;
            const size_t offset = (static_cast<size_t>(token) * n_heads + static_cast<size_t>(head)) * padded;
            args.query[i] = query_ + offset;
            args.out[i] = attended_ + offset;
            args.position[i] = step.pos[token];
        }
        args.window = config.window[layer_index];
        args.head_dim_padded = head_dim_padded_;
        args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
        args.keys = cache(layer_index, 0, static_cast<size_t>(kv_head));
        args.values = cache(layer_index, 1, static_cast<size_t>(kv_head));
        args.kv_bf16 = kv_bf16_;
        args.table = step.table + static_cast<size_t>(tile.sequence) * static_cast<size_t>(step.table_ld);
        args.scratch = reinterpret_cast<float*>(scratch_[static_cast<size_t>(worker)].data());
        kernels_.attention(args);
    });
}

void Forward::prepare_normed(const float* x, size_t stride, const std::vector<float>& weight, int32_t m) {
    const int32_t dim = model_.config.dim;
    activation_stride_ = activation_stride(model_.type, dim);
    const int32_t padded = padded_inputs(model_.type, dim);
    for_rows(m, dim, [&](size_t row, float* scratch) {
        kernels_.rms_norm(x + row * stride, weight.data(), static_cast<float>(model_.config.norm_eps), dim,
                          scratch);
        kernels_.prepare(model_.type, scratch, dim, padded, activations_ + row * activation_stride_);
    });
}

void Forward::prepare_attended(int32_t m) {
    const auto n_heads = static_cast<size_t>(model_.config.n_heads);
    const auto head_dim = static_cast<size_t>(model_.config.head_dim);
    const auto padded = static_cast<size_t>(head_dim_padded_);
    const int32_t width = model_.config.n_heads * model_.config.head_dim;
    activation_stride_ = activation_stride(model_.type, width);
    const int32_t k_padded = padded_inputs(model_.type, width);
    for_rows(m, width, [&](size_t row, float* scratch) {
        const float* x = attended_ + row * n_heads * padded;
        if (padded != head_dim) {
            for (size_t head = 0; head < n_heads; head++) {
                std::copy_n(x + head * padded, head_dim, scratch + head * head_dim);
            }
            x = scratch;
        }
        kernels_.prepare(model_.type, x, width, k_padded, activations_ + row * activation_stride_);
    });
}

// silu(gate) * up, as input of the next product. bf16 and f32 come out of the product ready for use; a scale
// of int8 covers outputs of several panels, so there a pass of its own follows.
void Forward::gate_up(const CpuLayer& layer, int32_t m) {
    const int32_t ffn = model_.config.ffn_dim;
    const size_t stride = activation_stride(model_.type, ffn);
    if (model_.type != WeightType::kInt8) {
        const bool bf16 = model_.type == WeightType::kBf16;
        matmul(layer.gate_up, bf16 ? Epilogue::kSwigluBf16 : Epilogue::kSwiglu, next_activations_, stride, m);
        std::swap(activations_, next_activations_);
        activation_stride_ = stride;
        return;
    }
    const size_t columns = static_cast<size_t>(layer.gate_up.packed.n_panels) * kPanel / 2;
    matmul(layer.gate_up, Epilogue::kSwiglu, ffn_, columns * sizeof(float), m);
    activation_stride_ = stride;
    const int32_t k_padded = padded_inputs(model_.type, ffn);
    for_rows(m, ffn, [&](size_t row, float*) {
        kernels_.prepare(model_.type, ffn_ + row * columns, ffn, k_padded, activations_ + row * stride);
    });
}

void Forward::matmul(const Matrix& matrix, Epilogue epilogue, void* y, size_t y_stride, int32_t m) {
    const PackedMatrix& w = matrix.packed;
    const auto panels =
        static_cast<int32_t>(m <= kFewRows ? (kTaskBytesFewRows + w.panel_bytes - 1) / w.panel_bytes
                                           : std::max(kTaskBytes / w.panel_bytes, size_t{1}));
    const int32_t columns = (w.n_panels + panels - 1) / panels;
    const int32_t blocks = (m + kRowBlock - 1) / kRowBlock;
    // Neighbouring tasks share weights, which then come from memory once.
    pool_.run(columns * blocks, [&](int32_t task, int32_t) {
        const int32_t row = task % blocks * kRowBlock;
        MatmulArgs args;
        args.w = &w;
        args.x = {activations_ + static_cast<size_t>(row) * activation_stride_, activation_stride_};
        args.y = static_cast<std::byte*>(y) + static_cast<size_t>(row) * y_stride;
        args.y_stride = y_stride;
        args.m = std::min(kRowBlock, m - row);
        args.panel_begin = task / blocks * panels;
        args.panel_end = std::min(w.n_panels, args.panel_begin + panels);
        args.epilogue = epilogue;
        kernels_.matmul(args);
    });
}

void Forward::last_hidden(const Step& step, float* out) {
    const auto dim = static_cast<size_t>(model_.config.dim);
    for_rows(step.n_hidden, model_.config.dim, [&](size_t row, float*) {
        kernels_.rms_norm(hidden_ + static_cast<size_t>(step.hidden_row[row]) * dim_stride_,
                          model_.norm.data(), static_cast<float>(model_.config.norm_eps), model_.config.dim,
                          out + row * dim);
    });
}

const float* Forward::run(const Step& step, Profile& profile) {
    const int32_t m = step.n_tok;
    const size_t hidden_bytes = dim_stride_ * sizeof(float);
    size_t context = 0;
    for (int32_t i = 0; i < step.n_seq; i++) {
        context += static_cast<size_t>(step.ctx_len[i]);
    }
    const size_t context_bytes = context * kv_bytes_per_token(model_.config, model_.type) /
                                 static_cast<size_t>(model_.config.n_layers);
    {
        const OpTimer timer(profile, Op::kEmbed, 0);
        embed(step);
        plan_attention(step);
    }
    for (size_t i = 0; i < model_.layers.size(); i++) {
        const CpuLayer& layer = model_.layers[i];
        {
            const OpTimer timer(profile, Op::kNorm, 0);
            prepare_normed(hidden_, dim_stride_, layer.attn_norm, m);
        }
        {
            const OpTimer timer(profile, Op::kQkv, layer.qkv.bytes());
            matmul(layer.qkv, Epilogue::kStore, qkv_,
                   static_cast<size_t>(layer.qkv.packed.n_panels) * kPanel * sizeof(float), m);
        }
        {
            const OpTimer timer(profile, Op::kRope, 0);
            rotate_and_store(step, layer, i);
        }
        {
            const OpTimer timer(profile, Op::kAttention, context_bytes);
            attend(step, i);
        }
        {
            const OpTimer timer(profile, Op::kOut, layer.o.bytes());
            prepare_attended(m);
            matmul(layer.o, Epilogue::kAdd, hidden_, hidden_bytes, m);
        }
        {
            const OpTimer timer(profile, Op::kNorm, 0);
            prepare_normed(hidden_, dim_stride_, layer.mlp_norm, m);
        }
        {
            const OpTimer timer(profile, Op::kGateUp, layer.gate_up.bytes());
            gate_up(layer, m);
        }
        {
            const OpTimer timer(profile, Op::kDown, layer.down.bytes());
            matmul(layer.down, Epilogue::kAdd, hidden_, hidden_bytes, m);
        }
    }
    if (step.n_logit == 0) {
        return nullptr;
    }
    const OpTimer timer(profile, Op::kHead, model_.lm_head.bytes());
    const size_t needed = logits_stride() * static_cast<size_t>(step.n_logit) * sizeof(float);
    if (logits_.size() < needed) {
        logits_ = Region(needed);
    }
    gathered_.resize(static_cast<size_t>(step.n_logit) * dim_stride_);
    for (size_t i = 0; i < static_cast<size_t>(step.n_logit); i++) {
        std::copy_n(hidden_ + static_cast<size_t>(step.logit_row[i]) * dim_stride_, dim_stride_,
                    gathered_.data() + i * dim_stride_);
    }
    auto* logits = reinterpret_cast<float*>(logits_.data());
    prepare_normed(gathered_.data(), dim_stride_, model_.norm, step.n_logit);
    matmul(model_.lm_head, Epilogue::kStore, logits, logits_stride() * sizeof(float), step.n_logit);
    return logits;
}

}  // namespace llm::engine
