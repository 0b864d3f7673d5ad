// What a step costs: milliseconds = a + b·decodes + c·context tokens + d·prefill tokens, learnt while
// running.
//
// Recursive least squares would need care when a feature stands still for a long time (no prefill for
// minutes); so the four sums of ordinary least squares are kept, each step a little less than the one before,
// and a small ridge keeps the solution defined. Solving 4 equations takes well under a microsecond.
#pragma once

#include <array>
#include <cstdint>

namespace llm::engine {

class StepCost {
  public:
    struct Load {
        int32_t decodes = 0;         // sequences that get one token
        int64_t context_tokens = 0;  // KV tokens that attention reads
        int32_t prefill_tokens = 0;
    };

    // Learns from one step that took `ms`.
    void observe(const Load& load, double ms);

    // Milliseconds that a step of this load will take; 0 before anything was observed. Never negative.
    double predict(const Load& load) const;

    // Prefill tokens that fit into `ms` beside `load` (whose own prefill_tokens are ignored), not negative;
    // `unknown` as long as no prefill was seen.
    int32_t prefill_room(const Load& load, double ms, int32_t unknown) const;

  private:
    static constexpr int kTerms = 4;
    static std::array<double, kTerms> features(const Load& load);
    void solve();

    std::array<std::array<double, kTerms>, kTerms> sums_{};
    std::array<double, kTerms> target_{};
    std::array<double, kTerms> coefficient_{};
    bool saw_prefill_ = false;
};

}  // namespace llm::engine
