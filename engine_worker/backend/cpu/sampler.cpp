#include "engine_worker/backend/cpu/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "engine_worker/backend/cpu/philox.hpp"

namespace llm::engine {
namespace {

constexpr float kImpossible = -std::numeric_limits<float>::infinity();
constexpr int32_t kBlock = 128;  // logits that one maximum or sum lets skip

bool is_changed(const SampleParams& params) {
    return params.n_logit_bias > 0 || params.mask != nullptr ||
           (params.n_tokens > 0 && (params.repetition_penalty != 1 || params.presence_penalty != 0 ||
                                    params.frequency_penalty != 0));
}

}  // namespace

Sampled Sampler::sample(const float* logits, const SampleParams& params) {
    Sampled result;
    const float* row = adjust(logits, params);
    float maximum = kernels_->max(row, vocab_);
    if (maximum == kImpossible && row != logits) {
        row = logits;
        maximum = kernels_->max(row, vocab_);
    }
    const bool greedy = params.temperature <= 0 || params.top_k == 1 || !std::isfinite(maximum);
    result.token = greedy ? largest(row) : draw(row, maximum, params);

    if (params.n_logprobs >= 0) {
        const float raw_maximum = kernels_->max(logits, vocab_);
        const double log_sum = std::log(kernels_->sum_exp(logits, vocab_, raw_maximum, 1.0f));
        const auto logprob = [&](float logit) {
            return static_cast<float>(static_cast<double>(logit) - static_cast<double>(raw_maximum) -
                                      log_sum);
        };
        result.logprob = logprob(logits[result.token]);
        if (params.n_logprobs > 0) {
            collect_best(logits, std::min(params.n_logprobs, vocab_));
            for (const Candidate& candidate : candidates_) {
                result.top.push_back({candidate.token, logprob(candidate.logit)});
            }
        }
    }
    return result;
}

const float* Sampler::adjust(const float* logits, const SampleParams& params) {
    if (!is_changed(params)) {
        return logits;
    }
    adjusted_.assign(logits, logits + vocab_);
    for (int32_t i = 0; i < params.n_logit_bias; i++) {
        const auto& [token, bias] = params.logit_bias[i];
        if (token >= 0 && token < vocab_) {
            adjusted_[static_cast<size_t>(token)] += bias;
        }
    }
    if (params.n_tokens > 0) {
        apply_penalties(params);
    }
    if (params.mask != nullptr) {
        for (int32_t begin = 0; begin < vocab_; begin += 32) {
            const uint32_t word = params.mask[begin / 32];
            float* const part = adjusted_.data() + begin;
            const int32_t count = std::min(32, vocab_ - begin);
            if (word == 0) {
                std::fill_n(part, count, kImpossible);
            } else if (word != ~0u) {
                for (int32_t i = 0; i < count; i++) {
                    part[i] = (word >> i & 1u) != 0 ? part[i] : kImpossible;
                }
            }
        }
    }
    return adjusted_.data();
}

void Sampler::apply_penalties(const SampleParams& params) {
    counts_.resize(static_cast<size_t>(vocab_));
    const auto valid = [&](int32_t token) { return token >= 0 && token < vocab_; };
    if (params.repetition_penalty != 1) {
        for (int32_t i = 0; i < params.n_tokens; i++) {
            const int32_t token = params.tokens[i];
            if (!valid(token) || counts_[static_cast<size_t>(token)] != 0) {
                continue;
            }
            counts_[static_cast<size_t>(token)] = 1;  // once per token, however often it occurs
            float& logit = adjusted_[static_cast<size_t>(token)];
            logit = logit > 0 ? logit / params.repetition_penalty : logit * params.repetition_penalty;
        }
        for (int32_t i = 0; i < params.n_tokens; i++) {
            if (valid(params.tokens[i])) {
                counts_[static_cast<size_t>(params.tokens[i])] = 0;
            }
        }
    }
    for (int32_t i = params.n_prompt; i < params.n_tokens; i++) {
        if (valid(params.tokens[i])) {
            counts_[static_cast<size_t>(params.tokens[i])]++;
        }
    }
    for (int32_t i = params.n_prompt; i < params.n_tokens; i++) {
        if (!valid(params.tokens[i])) {
            continue;
        }
        int32_t& count = counts_[static_cast<size_t>(params.tokens[i])];
        if (count > 0) {
            adjusted_[static_cast<size_t>(params.tokens[i])] -=
                params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
            count = 0;
        }
    }
}

int32_t Sampler::largest(const float* logits) const {
    const float maximum = kernels_->max(logits, vocab_);
    for (int32_t begin = 0; begin < vocab_; begin += kBlock) {
        const int32_t count = std::min(kBlock, vocab_ - begin);
        if (kernels_->max(logits + begin, count) < maximum) {
            continue;
        }
        for (int32_t i = begin; i < begin + count; i++) {
            if (logits[i] == maximum) {
                return i;
            }
        }
    }
    return 0;  // nothing but NaN
}

int32_t Sampler::draw(const float* logits, float maximum, const SampleParams& params) {
    const float scale = 1.0f / params.temperature;
    if (!std::isfinite(scale)) {
        return largest(logits);
    }
    const double uniform = uniform_draw(params.seed, params.position);
    const bool cut_k = params.top_k > 0 && params.top_k < vocab_;
    const bool cut_p = params.top_p < 1;
    if (!cut_k && !cut_p && params.min_p <= 0) {
        return draw_uncut(logits, maximum, scale, uniform);
    }
    const auto weight = [&](const Candidate& candidate) {
        return std::exp(static_cast<double>((candidate.logit - maximum) * scale));
    };
    // Candidates by falling probability; each of the three filters keeps a prefix of that order.
    if (cut_k) {
        collect_best(logits, params.top_k);
    } else if (cut_p) {
        collect_mass(logits, maximum, scale, params.top_p);
    } else {
        collect(logits, maximum + std::log(params.min_p) * params.temperature);
    }
    size_t kept = candidates_.size();
    if (cut_p) {
        double total = 0;
        if (cut_k) {
            for (const Candidate& candidate : candidates_) {
                total += weight(candidate);
            }
        } else {
            total = kernels_->sum_exp(logits, vocab_, maximum, scale);
        }
        double mass = 0;
        for (size_t i = 0; i < kept; i++) {
            mass += weight(candidates_[i]);
            if (mass >= static_cast<double>(params.top_p) * total) {
                kept = i + 1;
                break;
            }
        }
    }
    double total = 0;
    for (size_t i = 0; i < kept; i++) {
        const double w = weight(candidates_[i]);
        if (i > 0 && w < static_cast<double>(params.min_p)) {
            kept = i;
            break;
        }
        total += w;
    }
    const double target = uniform * total;
    double mass = 0;
    for (size_t i = 0; i < kept; i++) {
        mass += weight(candidates_[i]);
        if (target < mass) {
            return candidates_[i].token;
        }
    }
    return candidates_[kept - 1].token;
}

int32_t Sampler::draw_uncut(const float* logits, float maximum, float scale, double uniform) {
    const auto count = [&](size_t block) {
        return std::min(kBlock, vocab_ - static_cast<int32_t>(block) * kBlock);
    };
    block_sums_.clear();
    double total = 0;
    for (int32_t begin = 0; begin < vocab_; begin += kBlock) {
        block_sums_.push_back(kernels_->sum_exp(logits + begin, count(block_sums_.size()), maximum, scale));
        total += block_sums_.back();
    }
    const double target = uniform * total;
    double mass = 0;
    int32_t last = 0;
    for (size_t block = 0; block < block_sums_.size(); block++) {
        // Rounding may leave the target past the last token with any weight: then that one it is.
        if (mass + block_sums_[block] <= target && block + 1 < block_sums_.size()) {
            mass += block_sums_[block];
            continue;
        }
        float weights[kBlock];
        const int32_t begin = static_cast<int32_t>(block) * kBlock;
        kernels_->exp_all(logits + begin, count(block), maximum, scale, weights);
        for (int32_t i = 0; i < count(block); i++) {
            if (weights[i] > 0) {
                mass += static_cast<double>(weights[i]);
                last = begin + i;
                if (target < mass) {
                    return last;
                }
            }
        }
    }
    return last > 0 ? last : largest(logits);
}

// Every token whose logit is at least `threshold`, best first.
void Sampler::collect(const float* logits, float threshold) {
    candidates_.clear();
    for (int32_t begin = 0; begin < vocab_; begin += kBlock) {
        const int32_t count = std::min(kBlock, vocab_ - begin);
        if (kernels_->max(logits + begin, count) < threshold) {
            continue;
        }
        for (int32_t i = begin; i < begin + count; i++) {
            if (logits[i] >= threshold && logits[i] > kImpossible) {
                candidates_.push_back({logits[i], i});
            }
        }
    }
    std::sort(candidates_.begin(), candidates_.end(), [](const Candidate& a, const Candidate& b) {
        return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
    });
}

// The `count` best. The count-th largest of the block maxima is a threshold that at least `count` logits
// reach, and not many more do.
void Sampler::collect_best(const float* logits, int32_t count) {
    block_maxima_.clear();
    for (int32_t begin = 0; begin < vocab_; begin += kBlock) {
        block_maxima_.push_back(kernels_->max(logits + begin, std::min(kBlock, vocab_ - begin)));
    }
    float threshold = kImpossible;
    if (static_cast<size_t>(count) < block_maxima_.size()) {
        std::nth_element(block_maxima_.begin(), block_maxima_.begin() + (count - 1), block_maxima_.end(),
                         std::greater<>());
        threshold = block_maxima_[static_cast<size_t>(count) - 1];
    }
    collect(logits, threshold);
    if (candidates_.size() > static_cast<size_t>(count)) {
        candidates_.resize(static_cast<size_t>(count));
    }
}

// At least the best tokens that together have `mass` (of 1) of the probability.
void Sampler::collect_mass(const float* logits, float maximum, float scale, double mass) {
    const double total = kernels_->sum_exp(logits, vocab_, maximum, scale);
    for (float depth = 4; depth < 80; depth *= 2) {
        collect(logits, maximum - depth / scale);
        double sum = 0;
        for (const Candidate& candidate : candidates_) {
            sum += std::exp(static_cast<double>((candidate.logit - maximum) * scale));
        }
        // A hair more than asked: `total` was summed in another order.
        if (sum >= mass * total * (1 + 1e-5)) {
            return;
        }
    }
    collect(logits, kImpossible);
}

}  // namespace llm::engine
