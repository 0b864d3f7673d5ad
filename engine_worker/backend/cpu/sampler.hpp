// One row of logits to one token, in the order that SampleParams documents. The reference for the CUDA
// sampler.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/cpu/kernels.hpp"

namespace llm::engine {

struct Sampled {
    int32_t token = 0;
    float logprob = 0;              // of the raw logits; 0 when n_logprobs < 0
    std::vector<TokenLogprob> top;  // best first, the lower id first on a tie
};

// Scratch memory of one thread; not to be shared by two at once.
//
// Details that SampleParams leaves open: a logit that is NaN counts as impossible; when nothing is possible
// (a mask that allows no token) the row is treated as if there were no mask, bias or penalty. The draw walks
// the candidates by falling probability, or in the order of ids when nothing cuts them. O(vocab), no full
// sort.
class Sampler {
  public:
    Sampler(const Kernels& kernels, int32_t vocab_size) : kernels_(&kernels), vocab_(vocab_size) {}

    // `logits` has vocab_size entries and stays as it is.
    Sampled sample(const float* logits, const SampleParams& params);

  private:
    struct Candidate {
        float logit;
        int32_t token;
    };
    const float* adjust(const float* logits, const SampleParams& params);
    void apply_penalties(const SampleParams& params);
    int32_t largest(const float* logits) const;
    int32_t draw(const float* logits, float maximum, const SampleParams& params);
    int32_t draw_uncut(const float* logits, float maximum, float scale, double uniform);
    void collect(const float* logits, float threshold);
    void collect_best(const float* logits, int32_t count);
    void collect_mass(const float* logits, float maximum, float scale, double mass);

    const Kernels* kernels_;
    int32_t vocab_;
    std::vector<float> adjusted_;
    std::vector<double> block_sums_;
    std::vector<float> block_maxima_;
    std::vector<int32_t> counts_;  // of generated tokens, all zero between calls
    std::vector<Candidate> candidates_;
};

}  // namespace llm::engine
