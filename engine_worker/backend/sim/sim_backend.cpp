#include "engine_worker/backend/sim/sim_backend.hpp"

#include <chrono>
#include <cmath>
#include <thread>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"

namespace llm::engine {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int32_t kDefaultContext = 8192;
constexpr int64_t kDefaultKvTokens = 1 << 19;
constexpr int32_t kEndOfText = 256;
constexpr int32_t kHiddenSize = 32;

bool allowed(const SampleParams& params, int32_t token) {
    if (params.mask != nullptr && ((params.mask[token / 32] >> (token % 32)) & 1U) == 0) {
        return false;
    }
    for (int32_t i = 0; i < params.n_logit_bias; ++i) {
        if (params.logit_bias[i].first == token) {
            return params.logit_bias[i].second > -100.0f;
        }
    }
    return true;
}

class SimBackend : public Backend {
  public:
    SimBackend(const BackendOptions& options, SimOptions sim) : sim_(std::move(sim)) {
        info_.name = "sim";
        info_.asynchronous = true;
        info_.vocab_size = kByteVocabulary;
        info_.max_context = options.max_context > 0 ? options.max_context : kDefaultContext;
        info_.kv_slots = options.kv_tokens > 0 ? options.kv_tokens : kDefaultKvTokens;
        info_.max_step_tokens = options.max_step_tokens;
        info_.max_step_seqs = options.max_step_seqs;
        info_.hidden_size = kHiddenSize;
    }

    const BackendInfo& info() const override { return info_; }

    void launch(const Step& step) override {
        step_ = &step;
        int64_t context = 0;
        for (int32_t i = 0; i < step.n_seq; ++i) {
            context += step.ctx_len[i];
        }
        const double ms = sim_.base_ms + sim_.per_sequence_ms * step.n_decode +
                          sim_.per_context_ms * static_cast<double>(context) +
                          sim_.per_prefill_ms * (step.n_tok - step.n_decode);
        done_at_ = SteadyClock::now() + std::chrono::nanoseconds(std::llround(ms * 1e6));
    }

    void wait(StepResult& result) override {
        const auto n = static_cast<size_t>(step_->n_logit);
        result.token.resize(n);
        result.logprob.assign(n, 0.0f);
        result.top.resize(n);
        result.logits.clear();
        for (size_t i = 0; i < n; ++i) {
            const SampleParams& params = step_->sampling[i];
            result.token[i] = next(params);
            result.top[i].clear();
            if (params.n_logprobs > 0) {
                result.top[i].push_back({result.token[i], 0.0f});
            }
        }
        result.hidden.clear();
        for (int32_t i = 0; i < step_->n_hidden; ++i) {
            const int32_t row = step_->hidden_row[i];
            add_hidden(step_->tok[row], step_->pos[row], result.hidden);
        }
        std::this_thread::sleep_until(done_at_);
    }

  private:
    // Numbers that depend on the token and its place, and on nothing else.
    static void add_hidden(int32_t token, int32_t position, std::vector<float>& out) {
        for (int32_t i = 0; i < kHiddenSize; ++i) {
            out.push_back(
                std::sin(static_cast<float>((token + 1) * (i + 1)) + 0.1f * static_cast<float>(position)));
        }
    }

    int32_t next(const SampleParams& params) const {
        for (int32_t i = 0; i < params.n_logit_bias; ++i) {
            if (params.logit_bias[i].second >= 100.0f) {
                return params.logit_bias[i].first;  // outweighs everything
            }
        }
        const int32_t at = static_cast<int32_t>(params.position) - params.n_prompt;
        if (sim_.reply_tokens > 0 && at >= sim_.reply_tokens && allowed(params, kEndOfText)) {
            return kEndOfText;
        }
        const size_t length = sim_.text.size();
        for (size_t skip = 0; skip < length; ++skip) {
            const auto token = static_cast<int32_t>(
                static_cast<unsigned char>(sim_.text[(static_cast<size_t>(at) + skip) % length]));
            if (allowed(params, token)) {
                return token;
            }
        }
        for (int32_t token = 0; token < kByteVocabulary; ++token) {
            if (allowed(params, token)) {
                return token;
            }
        }
        return kEndOfText;
    }

    SimOptions sim_;
    BackendInfo info_;
    const Step* step_ = nullptr;
    SteadyClock::time_point done_at_;
};

}  // namespace

std::unique_ptr<Backend> make_sim_backend(const BackendOptions& options, const SimOptions& sim) {
    return std::make_unique<SimBackend>(options, sim);
}

std::unique_ptr<Backend> make_sim_backend(const BackendOptions& options) {
    return make_sim_backend(options, SimOptions());
}

}  // namespace llm::engine
