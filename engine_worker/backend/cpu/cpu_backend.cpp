#include "engine_worker/backend/cpu/cpu_backend.hpp"

#include <algorithm>
#include <stdexcept>

namespace llm::engine {
namespace {

// Half of what is free now: the rest is for buffers, the page cache and the neighbours.
constexpr size_t kKvShareOfMemory = 2;
constexpr int64_t kMaxSlots = int64_t{1} << 30;

int64_t pick_kv_slots(const BackendOptions& options, const CpuModel& model, int32_t max_context) {
    if (options.kv_tokens > 0) {
        if (options.kv_tokens > kMaxSlots) {
            throw std::runtime_error("kv_tokens is " + std::to_string(options.kv_tokens) + ", above " +
                                     std::to_string(kMaxSlots));
        }
        return options.kv_tokens;
    }
    const size_t per_token = kv_bytes_per_token(model.config, model.type);
    const auto fitting = static_cast<int64_t>(available_memory() / kKvShareOfMemory / per_token);
    const int64_t wanted = std::min(kMaxSlots, int64_t{max_context} * std::max(1, options.max_step_seqs));
    return std::max<int64_t>(std::min(wanted, fitting), 1024);
}

}  // namespace

CpuBackend::CpuBackend(const BackendOptions& options, const char* kernels)
    : kernels_(choose_kernels(kernels)),
      pool_(options.threads),
      model_(load_cpu_model(load_model_config(options.model_dir), options.dtype, pool_)) {
    if (options.max_step_tokens < 1 || options.max_step_seqs < 1) {
        throw std::runtime_error("max_step_tokens and max_step_seqs must be at least 1");
    }
    const ModelConfig& config = model_.config;
    if (options.max_context > config.max_context) {
        throw std::runtime_error("max_context " + std::to_string(options.max_context) + " is above the " +
                                 std::to_string(config.max_context) + " of max_position_embeddings in " +
                                 options.model_dir + "/config.json");
    }
    const int32_t max_context = options.max_context > 0 ? options.max_context : config.max_context;
    info_.name = "cpu";
    info_.vocab_size = config.vocab_size;
    info_.hidden_size = config.dim;
    info_.kv_slots = pick_kv_slots(options, model_, max_context);
    info_.max_context = static_cast<int32_t>(std::min<int64_t>(max_context, info_.kv_slots));
    info_.max_step_tokens = options.max_step_tokens;
    info_.max_step_seqs = options.max_step_seqs;
    forward_ = std::make_unique<Forward>(model_, kernels_, pool_, info_.kv_slots, info_.max_step_tokens);
    samplers_.assign(static_cast<size_t>(pool_.size()), Sampler(kernels_, info_.vocab_size));
}

void CpuBackend::check(const Step& step) const {
    if (step.n_tok < 0 || step.n_tok > info_.max_step_tokens || step.n_seq < 0 ||
        step.n_seq > info_.max_step_seqs) {
        throw std::invalid_argument("step exceeds max_step_tokens or max_step_seqs");
    }
    for (int32_t i = 0; i < step.n_tok; i++) {
        if (step.tok[i] < 0 || step.tok[i] >= info_.vocab_size) {
            throw std::invalid_argument("step has token " + std::to_string(step.tok[i]) +
                                        ", outside the vocabulary");
        }
        if (step.slot[i] < 0 || step.slot[i] >= info_.kv_slots) {
            throw std::invalid_argument("step has slot " + std::to_string(step.slot[i]) +
                                        ", outside the cache");
        }
    }
    for (int32_t i = 0; i < step.n_seq; i++) {
        if (step.ctx_len[i] > info_.max_context || step.ctx_len[i] > step.table_ld) {
            throw std::invalid_argument("step has a context above max_context or table_ld");
        }
        for (int32_t t = step.q_start[i]; t < step.q_start[i + 1]; t++) {
            if (step.pos[t] < 0 || step.pos[t] >= step.ctx_len[i]) {
                throw std::invalid_argument("step has a position outside its context");
            }
        }
    }
}

void CpuBackend::launch(const Step& step) {
    check(step);
    result_ = {};
    const float* logits = forward_->run(step, profile_);
    const auto rows = static_cast<size_t>(step.n_logit);
    const auto vocab = static_cast<size_t>(info_.vocab_size);
    const size_t stride = forward_->logits_stride();
    result_.token.resize(rows);
    result_.logprob.resize(rows);
    result_.top.resize(rows);
    {
        const OpTimer timer(profile_, Op::kSample, 0);
        pool_.run(step.n_logit, [&](int32_t row, int32_t worker) {
            const auto i = static_cast<size_t>(row);
            Sampled sampled =
                samplers_[static_cast<size_t>(worker)].sample(logits + i * stride, step.sampling[i]);
            result_.token[i] = sampled.token;
            result_.logprob[i] = sampled.logprob;
            result_.top[i] = std::move(sampled.top);
        });
    }
    if (step.n_hidden > 0) {
        result_.hidden.resize(static_cast<size_t>(step.n_hidden) * static_cast<size_t>(info_.hidden_size));
        forward_->last_hidden(step, result_.hidden.data());
    }
    if (step.want_logits) {
        result_.logits.resize(rows * vocab);
        for (size_t i = 0; i < rows; i++) {
            std::copy_n(logits + i * stride, vocab, result_.logits.data() + i * vocab);
        }
    }
}

void CpuBackend::wait(StepResult& result) {
    std::swap(result, result_);
}

std::unique_ptr<Backend> make_cpu_backend(const BackendOptions& options) {
    return std::make_unique<CpuBackend>(options);
}

}  // namespace llm::engine
