// When may one more sequence start? When the memory that everybody will hold at the worst moment fits.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace llm::engine {

// The memory one sequence holds now and will still add, in KV slots.
struct Footprint {
    int64_t used = 0;
    int64_t left = 0;
};

// The most slots that all sequences hold together at any later moment, if each takes one slot per step and
// frees everything when its `left` is used up. Sorted by `left`, largest first, the peak lies at the moment
// when one of them ends: max over i of left(i)·(i+1) + sum of used(0..i). (LightLLM's admission rule.) O(n
// log n). Sorts `all` in place.
int64_t peak_slots(std::vector<Footprint>& all);

// How long answers were lately: the guess for those that are still being written.
class OutputLengths {
  public:
    void record(int32_t n_tokens);

    // Tokens that a sequence which has produced `so_far` of at most `limit` will still produce: the 90th
    // percentile of recent outputs, less what it has. A sequence that is already longer is expected to go on
    // for kStep more, again and again. Before kEnough outputs were seen: up to kUsual in all, then as many again.
    int32_t remaining(int32_t so_far, int32_t limit) const;

  private:
    static constexpr int kEnough = 16;
    static constexpr int32_t kStep = 64;
    static constexpr int32_t kUsual = 1024;
    std::array<int32_t, 256> recent_{};
    uint32_t n_ = 0;
    int32_t p90_ = 0;
};

}  // namespace llm::engine
