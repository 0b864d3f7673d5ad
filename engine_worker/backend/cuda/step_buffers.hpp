// A step's metadata as the kernels read it: one block of memory at fixed places, filled on the host and copied as a
// whole, so that graphs can be replayed on whatever is in it.
//
// Nothing here calls CUDA: `host` and `device` are any two addresses, the second never dereferenced.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

struct StepLimits {
    int max_tokens = 0;     // of a step, and at least max_sequences
    int max_sequences = 0;
    int max_context = 0;
    int max_tiles = 0;
    int vocab = 0;
};

// Byte offsets of the parts. Each begins on 64 bytes.
struct StepLayout {
    explicit StepLayout(const StepLimits& limits);
    size_t tokens = 0, positions = 0, slots = 0, logit_rows = 0, tiles = 0;
    size_t head_end = 0;                       // what a forward pass reads lies before
    size_t sample_rows = 0, extra = 0;         // sampling: rows [max_tokens], at head_end; then edits and masks
    size_t extra_bytes = 0;
    size_t ranges = 0, values = 0;             // updates of the slot table, one after the other
    int max_values = 0;
    size_t total = 0;
};

class StepBuffers {
  public:
    // Both blocks have layout().total bytes. `spare_slot` is where rows that only pad a batch write. While the GPU may
    // still read a host block, another is to be used.
    StepBuffers(const StepLimits& limits, std::byte* host, std::byte* device, int spare_slot);

    void use(std::byte* host) { host_ = host; }

    const StepLayout& layout() const { return layout_; }

    // Tokens, positions, slots, rows of logits and tiles; decode rows from step.n_tok up to `rows` are filled as
    // padding.
    void fill(const Step& step, int rows, const std::vector<PrefillTile>& tiles);

    bool table_complete(const Step& step) const { return next_sequence_ >= step.n_seq; }

    // Writes the next changes of the slot table, as many as there is room for, and says how many ranges these are;
    // call until 0. Sequence `s` of the step is row s of the device's table, whose rows are max_context long. Throws
    // std::invalid_argument for a slot outside [0, kv_slots).
    int next_table_ranges(const Step& step, int64_t kv_slots);

    // Writes sampling rows from `first` on, as many as there is room for; at least one. Returns the row after the
    // last.
    int fill_sampling(const Step& step, int first);
    // Inactive rows [from, to), which pad a batch.
    void pad_sampling(int from, int to);
    size_t extra_used() const { return extra_used_; }
    size_t values_used() const { return values_used_; }

    template <typename T>
    T* host(size_t offset) const {
        return reinterpret_cast<T*>(host_ + offset);
    }
    template <typename T>
    T* device(size_t offset) const {
        return reinterpret_cast<T*>(device_ + offset);
    }

  private:
    int fill_edits(const SampleParams& params, SampleEdit* out, int capacity);
    int edit_of(int token, SampleEdit* out, int& n, int capacity);

    StepLimits limits_;
    StepLayout layout_;
    std::byte* host_;
    std::byte* device_;
    int spare_slot_;
    size_t extra_used_ = 0;
    size_t values_used_ = 0;
    // What the device's table holds; zeroed pages that are only touched when used.
    std::unique_ptr<int32_t, decltype(&std::free)> known_;
    int next_sequence_ = 0;   // of next_table_ranges()
    std::vector<int> edit_index_;  // [vocab] position in the list being made, -1 = none
};

}  // namespace llm::engine::cuda
