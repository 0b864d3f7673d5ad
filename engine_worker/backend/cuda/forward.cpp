#include "engine_worker/backend/cuda/forward.hpp"

#include <algorithm>
#include <cmath>

#include "engine_worker/backend/cuda/algorithm_cache.hpp"
#include "engine_worker/backend/cuda/plan.hpp"

namespace llm::engine::cuda {
namespace {

constexpr int kSampleThreads = 1024;  // as many as a multiprocessor has registers for
constexpr int kFirstTunedRows = 4096;  // above it cuBLASLt's own choice is good

}  // namespace

// Places every buffer behind `base`; with `out` the addresses are kept. Returns the bytes.
size_t Forward::lay_out(const GpuModel& model, const ForwardLimits& limits, std::byte* base, Forward* out) {
    size_t used = 0;
    const auto place = [&](auto*& pointer, size_t count) {
        using T = std::remove_reference_t<decltype(*pointer)>;
        pointer = reinterpret_cast<T*>(reinterpret_cast<uintptr_t>(base) + used);
        used += (count * sizeof(T) + 255) / 256 * 256;
    };
    const ModelConfig& config = model.config;
    const auto tokens = static_cast<size_t>(limits.max_tokens);
    const auto sequences = static_cast<size_t>(limits.max_sequences);
    const auto size = [](int n) { return static_cast<size_t>(n); };
    const int padded = padded_head_dim(config);

    size_t partial = 0;
    size_t tickets = 0;
    size_t expanded = 0;
    const auto consider = [&](const GpuMatrix& m) {
        const int bytes = m.bytes_per_weight();
        const GemvShape shape = plan_gemv(m.n, m.k, bytes, limits.multiprocessors);
        partial = std::max({partial, gemv_partial_floats(m.n, bytes, shape),
                            gemm_partial_floats(m.n, m.k, bytes, limits.multiprocessors)});
        tickets = std::max({tickets, size(m.n) / 16, size(gemm_blocks(m.n, kGemmMaxRows, bytes))});
        expanded = std::max(expanded, m.scale != nullptr ? size(m.n) * size(m.k) : 0);
    };
    for (const GpuLayer& layer : model.layers) {
        for (const GpuMatrix* m : {&layer.qkv, &layer.o, &layer.gate_up, &layer.down}) {
            consider(*m);
        }
    }
    consider(model.lm_head);
    size_t parts = 0;
    for (int n = 1; n <= limits.max_sequences; n++) {
        const int splits = plan_splits(n, config.n_heads, config.n_kv_heads, 1 << 30, limits.multiprocessors);
        parts = std::max(parts, splits > 1 ? size(n) * size(splits) : 0);
    }

    const int prompt_parts = prefill_parts(limits.multiprocessors);
    const size_t prompt_rows = size(prompt_parts) * kQueryTile;
    const auto put = [&](auto Forward::*member, size_t count) {
        std::remove_reference_t<decltype(out->*member)> pointer = nullptr;
        place(pointer, count);
        if (out != nullptr) {
            out->*member = pointer;
        }
    };
    const GpuLayer& layer = model.layers.front();
    put(&Forward::hidden_, tokens * size(model.hidden_stride));
    put(&Forward::normed_, tokens * size(model.hidden_stride));
    put(&Forward::squares_, size(kGemvMaxRows) * size(model.hidden_stride) / 16);
    put(&Forward::qkv_, tokens * size(layer.qkv.n));
    put(&Forward::rotation_, tokens * size(config.head_dim));
    put(&Forward::query_, tokens * size(config.n_heads) * size(padded));
    put(&Forward::attended_, tokens * size(model.attended_stride));
    put(&Forward::gate_up_, tokens * size(layer.gate_up.n));
    put(&Forward::ffn_, tokens * size(model.ffn_stride));
    put(&Forward::logits_, sequences * size(model.lm_head.n));
    put(&Forward::expanded_, expanded);
    put(&Forward::gemv_partial_, partial);
    put(&Forward::tickets_, tickets);
    // decodes and prompts take turns
    put(&Forward::split_partial_, std::max(parts * size(config.n_heads), prompt_rows) * size(padded));
    put(&Forward::split_ml_, std::max(parts * size(config.n_heads), prompt_rows) * 2);
    put(&Forward::split_tickets_, std::max(sequences * size(config.n_kv_heads * head_parts(config.n_heads / config.n_kv_heads)),
                                           size(prompt_parts)));
    put(&Forward::sample_out_, tokens);
    put(&Forward::sampled_, tokens);
    // one part per multiprocessor at most, so no more rows either
    const bool split = plan_sample_splits(1, config.vocab_size, limits.multiprocessors) > 1;
    const size_t sample_parts = split ? size(limits.multiprocessors) : 0;
    put(&Forward::sample_parts_, sample_parts);
    put(&Forward::sample_states_, sample_parts);
    put(&Forward::sample_tickets_, sample_parts);
    put(&Forward::gemm_workspace_, Gemm::kWorkspace);
    return used;
}

size_t Forward::workspace_bytes(const GpuModel& shape, const ForwardLimits& limits) {
    return lay_out(shape, limits, nullptr, nullptr);
}

Forward::Forward(const GpuModel& model, const ForwardLimits& limits, int64_t kv_slots, const Stream& stream,
                 const std::string& device_name, const std::string& algorithm_file)
    : model_(model),
      limits_(limits),
      kv_slots_(kv_slots),
      head_dim_padded_(padded_head_dim(model.config)),
      stream_(stream),
      workspace_(workspace_bytes(model, limits)),
      kv_(static_cast<size_t>(kv_slots) * kv_bytes_per_token(model.config)) {
    lay_out(model, limits, workspace_.data(), this);
    // Padding of rows is zero and stays so; keys that were never written must not be NaN.
    stream_.zero(workspace_.data(), workspace_.size());
    stream_.zero(kv_.data(), kv_.size());
    gemm_ = std::make_unique<Gemm>(stream_, gemm_workspace_, device_name, algorithm_file);
}

NextNorm Forward::next_norm(const float* weight) const {
    return {weight, normed_, squares_, model_.hidden_stride / 16};
}

AppliedNorm Forward::applied_norm(int first_row) const {
    const int parts = model_.hidden_stride / 16;
    return {squares_ + first_row * parts, parts, 1.0f / static_cast<float>(model_.config.dim),
            static_cast<float>(model_.config.norm_eps)};
}

const float* Forward::matmul(const Product& p, int rows, const std::vector<const uint16_t*>* tune) {
    const GpuMatrix& m = *p.matrix;
    const bool e4m3 = m.scale != nullptr;
    const bool swiglu = p.epilogue == GemvEpilogue::kSwiglu;
    GemmCall call;  // of cuBLASLt
    call.w = e4m3 ? expanded_ : static_cast<const uint16_t*>(m.w);
    call.x = p.x;
    call.y = swiglu ? gate_up_ : p.y;
    call.n = m.n;
    call.k = m.k;
    call.rows = rows;
    call.y_stride = swiglu ? m.n : p.y_stride;
    call.bf16_out = swiglu;
    // The bias is there before, or comes later: not every combination of types has an epilogue for it.
    const bool add = p.epilogue == GemvEpilogue::kAdd;
    const bool bias_first = m.bias != nullptr && !p.bias_later;
    call.add = add || bias_first;
    const auto put_bias = [&] {
        if (bias_first) {
            launch_bias_rows(m.bias, static_cast<float*>(p.y), m.n, p.y_stride, rows, add, stream_.get());
        }
    };
    const auto activate = [&] {
        if (swiglu) {
            launch_silu_multiply(gate_up_, m.n, static_cast<uint16_t*>(p.y), p.y_stride, rows, stream_.get());
        }
    };
    const bool gemv = rows <= (e4m3 ? kGemvMaxRows8 : kGemvMaxRows);
    const int bytes = m.bytes_per_weight();
    const int multiprocessors = limits_.multiprocessors;
    const auto multiply = [&](const void* w, int choice) {  // with the kernels for few rows
        const GemvArgs args{w,   m.scale, m.bias, p.x,        p.y,        gemv_partial_, tickets_,
                            m.n, m.k,     rows,   p.y_stride, p.epilogue, p.norm,        p.next};
        if (gemv) {
            launch_gemv(args, plan_gemv(m.n, m.k, bytes, multiprocessors), stream_.get());
        } else {
            launch_gemm(args, plan_gemm(m.n, m.k, rows, bytes, multiprocessors, choice), stream_.get());
        }
    };
    const bool few = rows <= kGemmMaxRows;
    const bool only_few = gemv || (few && e4m3);  // cuBLASLt is never better
    if (tune != nullptr) {
        if (!only_few) {
            const OwnProduct own{multiply, few ? gemm_choices(m.n, m.k, rows, bytes, multiprocessors) : 0};
            gemm_->tune(call, e4m3 ? std::vector<const uint16_t*>() : *tune, own, [&] {
                put_bias();
                activate();
            });
        }
        return nullptr;
    }
    const int choice = only_few ? 0 : few ? gemm_->own_choice(call) : kLibrary;
    if (choice != kLibrary) {
        multiply(m.w, choice);
        return nullptr;
    }
    if (e4m3) {
        launch_expand_e4m3(static_cast<const uint8_t*>(m.w), m.scale, m.n, m.k, expanded_, stream_.get());
    }
    put_bias();
    gemm_->run(call);
    activate();
    return p.bias_later ? m.bias : nullptr;
}

void Forward::attention(const StepView& step, int layer, const float* bias) {
    const ModelConfig& config = model_.config;
    const size_t part = static_cast<size_t>(config.n_kv_heads) * static_cast<size_t>(kv_slots_) *
                        static_cast<size_t>(head_dim_padded_);
    auto* keys = reinterpret_cast<uint16_t*>(kv_.data()) + static_cast<size_t>(layer) * 2 * part;
    uint16_t* values = keys + part;
    const GpuLayer& weights = model_.layers[static_cast<size_t>(layer)];

    QkvArgs token{};
    token.qkv = qkv_;
    token.bias = bias;
    token.rotation = rotation_;
    token.q_norm = weights.q_norm;
    token.k_norm = weights.k_norm;
    token.slots = step.slots;
    token.keys = keys;
    token.values = values;
    token.qkv_stride = weights.qkv.n;
    token.n_heads = config.n_heads;
    token.n_kv_heads = config.n_kv_heads;
    token.head_dim = config.head_dim;
    token.head_dim_padded = head_dim_padded_;
    token.kv_slots = static_cast<int>(kv_slots_);
    token.eps = static_cast<float>(config.norm_eps);

    AttentionArgs args{};
    args.query = query_;
    args.keys = keys;
    args.values = values;
    args.out = attended_;
    args.positions = step.positions;
    args.table = step.table;
    args.table_stride = step.table_stride;
    args.n_heads = config.n_heads;
    args.n_kv_heads = config.n_kv_heads;
    args.head_dim = config.head_dim;
    args.head_dim_padded = head_dim_padded_;
    args.out_stride = model_.attended_stride;
    args.kv_slots = static_cast<int>(kv_slots_);
    args.window = config.window[static_cast<size_t>(layer)];
    args.scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
    // The tokens of a step do not read each other's keys but within a prompt: sequences share what steps before wrote.
    if (step.n_decode > 0) {
        launch_decode_attention({args, token, split_partial_, split_ml_, split_tickets_, step.splits}, step.n_decode,
                                stream_.get());
    }
    if (step.n_tiles > 0) {
        launch_rotate_and_store(token, query_, step.n_decode, step.rows - step.n_decode, stream_.get());
        launch_prefill_attention({args, step.tiles, split_partial_, split_ml_, split_tickets_, step.prefill_splits},
                                 step.n_tiles, stream_.get());
    }
}

void Forward::layers(const StepView& step) {
    const ModelConfig& config = model_.config;
    const auto eps = static_cast<float>(config.norm_eps);
    const int hidden = model_.hidden_stride;
    const bool fused = norms_are_fused(step.rows);
    const auto next = [&](const float* weight) { return fused ? next_norm(weight) : NextNorm{}; };
    const AppliedNorm applied = fused ? applied_norm(0) : AppliedNorm{};
    const auto norm = [&](const float* weight) {
        if (!fused) {
            launch_rms_norm({hidden_, nullptr, weight, normed_, hidden, config.dim, eps}, step.rows, stream_.get());
            done("norms");
        }
    };
    done("begin");
    launch_embed({model_.embedding, step.tokens, sampled_, step.positions, model_.frequencies, hidden_, rotation_, hidden,
                  config.head_dim, next(model_.layers.front().attn_norm)},
                 step.rows, stream_.get());
    done("embed");
    for (size_t i = 0; i < model_.layers.size(); i++) {
        const GpuLayer& layer = model_.layers[i];
        const float* norm_after = i + 1 < model_.layers.size() ? model_.layers[i + 1].attn_norm : model_.norm;
        norm(layer.attn_norm);
        const float* bias_left = matmul(
            {normed_, &layer.qkv, qkv_, layer.qkv.n, GemvEpilogue::kStore, applied, {}, true}, step.rows);
        done("qkv");
        attention(step, static_cast<int>(i), bias_left);
        done("attention");
        matmul({attended_, &layer.o, hidden_, hidden, GemvEpilogue::kAdd, {}, next(layer.mlp_norm)}, step.rows);
        done("o");
        norm(layer.mlp_norm);
        matmul({normed_, &layer.gate_up, ffn_, model_.ffn_stride, GemvEpilogue::kSwiglu, applied, {}}, step.rows);
        done("gate_up");
        matmul({ffn_, &layer.down, hidden_, hidden, GemvEpilogue::kAdd, {}, next(norm_after)}, step.rows);
        done("down");
    }
}

void Forward::head(const StepView& step, int first, int count) {
    const ModelConfig& config = model_.config;
    Product product{normed_, &model_.lm_head, logits_, model_.lm_head.n, GemvEpilogue::kStore, {}, {}};
    if (step.in_order && norms_are_fused(step.rows)) {
        product.x = normed_ + static_cast<size_t>(first) * static_cast<size_t>(model_.hidden_stride);
        product.norm = applied_norm(first);
    } else {
        launch_rms_norm({hidden_, step.logit_rows + first, model_.norm, normed_, model_.hidden_stride, config.dim,
                         static_cast<float>(config.norm_eps)},
                        count, stream_.get());
    }
    matmul(product, count);
    done("lm_head");
}

void Forward::sample(const StepView& step, int first, int count) {
    // More rows than multiprocessors: two at a time, so that one computes while the other waits.
    launch_sample({logits_, model_.lm_head.n, model_.config.vocab_size, step.sampling + first, sample_out_ + first, sampled_ + first,
                   plan_sample_splits(count, model_.config.vocab_size, limits_.multiprocessors), sample_parts_, sample_states_,
                   sample_tickets_},
                  count, count > limits_.multiprocessors ? kSampleThreads / 2 : kSampleThreads, stream_.get());
    done("sample");
}

void Forward::tune(const std::vector<int>& rows) {
    const auto of_layers = [&](GpuMatrix GpuLayer::*kind) {
        std::vector<const uint16_t*> out;
        for (const GpuLayer& layer : model_.layers) {
            out.push_back(static_cast<const uint16_t*>((layer.*kind).w));
        }
        return out;
    };
    const std::vector<const uint16_t*> qkv = of_layers(&GpuLayer::qkv), o = of_layers(&GpuLayer::o),
                                       gate_up = of_layers(&GpuLayer::gate_up), down = of_layers(&GpuLayer::down);
    const GpuLayer& layer = model_.layers.front();
    for (const int n : rows) {
        if (n > std::min(kFirstTunedRows, limits_.max_tokens)) {
            continue;
        }
        matmul({normed_, &layer.qkv, qkv_, layer.qkv.n, GemvEpilogue::kStore, {}, {}, true}, n, &qkv);
        matmul({attended_, &layer.o, hidden_, model_.hidden_stride, GemvEpilogue::kAdd, {}, {}}, n, &o);
        matmul({normed_, &layer.gate_up, ffn_, model_.ffn_stride, GemvEpilogue::kSwiglu, {}, {}}, n, &gate_up);
        matmul({ffn_, &layer.down, hidden_, model_.hidden_stride, GemvEpilogue::kAdd, {}, {}}, n, &down);
        if (n <= limits_.max_sequences) {
            const std::vector<const uint16_t*> head{static_cast<const uint16_t*>(model_.lm_head.w)};
            matmul({normed_, &model_.lm_head, logits_, model_.lm_head.n, GemvEpilogue::kStore, {}, {}}, n, &head);
        }
    }
    stream_.synchronize();
    gemm_->save();
}

}  // namespace llm::engine::cuda
