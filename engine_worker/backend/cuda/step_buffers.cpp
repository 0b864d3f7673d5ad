#include "engine_worker/backend/cuda/step_buffers.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

#include "engine_worker/backend/cpu/philox.hpp"

namespace llm::engine::cuda {
namespace {

constexpr size_t kLeastExtra = size_t{4} << 20;
constexpr int kTableValues = 1 << 18;

size_t align(size_t bytes) {
    return (bytes + 63) / 64 * 64;
}

// Index of the first difference of two arrays, n if there is none.
int first_difference(const int32_t* a, const int32_t* b, int n) {
    constexpr int kRun = 256;
    int i = 0;
    while (i + kRun <= n && std::memcmp(a + i, b + i, kRun * sizeof *a) == 0) {
        i += kRun;
    }
    while (i < n && a[i] == b[i]) {
        i++;
    }
    return i;
}

bool penalizes(const SampleParams& p) {
    return p.n_tokens > 0 && (p.repetition_penalty != 1 || p.presence_penalty != 0 || p.frequency_penalty != 0);
}

}  // namespace

StepLayout::StepLayout(const StepLimits& limits) {
    const auto count = [](int n, size_t size) { return align(static_cast<size_t>(n) * size); };
    size_t at = 0;
    const auto take = [&](size_t bytes) {
        const size_t begin = at;
        at += bytes;
        return begin;
    };
    tokens = take(count(limits.max_tokens, sizeof(int)));
    positions = take(count(limits.max_tokens, sizeof(int)));
    slots = take(count(limits.max_tokens, sizeof(int)));
    logit_rows = take(count(limits.max_tokens, sizeof(int)));
    tiles = take(count(limits.max_tiles, sizeof(PrefillTile)));
    head_end = at;
    sample_rows = take(count(limits.max_tokens, sizeof(SampleRow)));
    // At least one row with an edit for every token, and a mask, fits.
    const auto vocab = static_cast<size_t>(limits.vocab);
    extra_bytes = std::max(kLeastExtra, align(vocab * sizeof(SampleEdit)) + align((vocab + 31) / 32 * 4));
    extra = take(extra_bytes);
    ranges = take(count(limits.max_sequences, sizeof(TableRange)));
    max_values = std::max(kTableValues, limits.max_context);
    values = take(count(max_values, sizeof(int)));
    total = at;
}

StepBuffers::StepBuffers(const StepLimits& limits, std::byte* host, std::byte* device, int spare_slot)
    : limits_(limits),
      layout_(limits),
      host_(host),
      device_(device),
      spare_slot_(spare_slot),
      known_(static_cast<int32_t*>(std::calloc(
                 static_cast<size_t>(limits.max_sequences) * static_cast<size_t>(limits.max_context), sizeof(int32_t))),
             &std::free),
      edit_index_(static_cast<size_t>(limits.vocab), -1) {
    if (known_ == nullptr) {
        throw std::bad_alloc();
    }
}

void StepBuffers::fill(const Step& step, int rows, const std::vector<PrefillTile>& tiles) {
    int* tokens = host<int>(layout_.tokens);
    int* positions = host<int>(layout_.positions);
    int* slots = host<int>(layout_.slots);
    int* logit_rows = host<int>(layout_.logit_rows);
    std::copy_n(step.tok, step.n_tok, tokens);
    std::copy_n(step.pos, step.n_tok, positions);
    std::copy_n(step.slot, step.n_tok, slots);
    std::copy_n(step.logit_row, step.n_logit, logit_rows);
    for (int i = step.n_tok; i < rows; i++) {
        tokens[i] = 0;
        positions[i] = 0;
        slots[i] = spare_slot_;
        logit_rows[i] = i;
    }
    std::copy(tiles.begin(), tiles.end(), host<PrefillTile>(layout_.tiles));
    next_sequence_ = 0;
}

int StepBuffers::next_table_ranges(const Step& step, int64_t kv_slots) {
    auto* ranges = host<TableRange>(layout_.ranges);
    int* values = host<int>(layout_.values);
    int n = 0;
    int used = 0;
    for (; next_sequence_ < step.n_seq; next_sequence_++) {
        const auto row = static_cast<size_t>(next_sequence_);
        const int32_t* wanted = step.table + row * static_cast<size_t>(step.table_ld);
        int32_t* known = known_.get() + row * static_cast<size_t>(limits_.max_context);
        const int length = step.ctx_len[next_sequence_];
        const int from = first_difference(known, wanted, length);
        if (from == length) {
            continue;
        }
        if (used + length - from > layout_.max_values) {
            break;
        }
        for (int p = from; p < length; p++) {
            if (wanted[p] < 0 || wanted[p] >= kv_slots) {
                throw std::invalid_argument("step has a context slot outside the cache");
            }
            values[used + p - from] = known[p] = wanted[p];
        }
        ranges[n++] = {int64_t{next_sequence_} * limits_.max_context + from, used, length - from};
        used += length - from;
    }
    values_used_ = static_cast<size_t>(used) * sizeof(int);
    return n;
}

int StepBuffers::edit_of(int token, SampleEdit* out, int& n, int capacity) {
    if (token < 0 || token >= limits_.vocab) {
        return -1;
    }
    int& index = edit_index_[static_cast<size_t>(token)];
    if (index < 0) {
        if (n == capacity) {
            return -2;
        }
        index = n++;
        out[index] = {token, 0.0f, 0, 0, 0.0f};
    }
    return index;
}

// The list of changed logits, one entry per token; -1 if it is longer than `capacity`.
int StepBuffers::fill_edits(const SampleParams& params, SampleEdit* out, int capacity) {
    int n = 0;
    bool full = false;
    const auto each = [&](int token, auto&& change) {
        const int index = edit_of(token, out, n, capacity);
        full = full || index == -2;
        if (index >= 0) {
            change(out[index]);
        }
    };
    for (int i = 0; i < params.n_logit_bias && !full; i++) {
        each(params.logit_bias[i].first, [&](SampleEdit& edit) { edit.bias += params.logit_bias[i].second; });
    }
    if (penalizes(params)) {
        const bool repetition = params.repetition_penalty != 1;
        for (int i = repetition ? 0 : params.n_prompt; i < params.n_tokens && !full; i++) {
            each(params.tokens[i], [&](SampleEdit& edit) {
                edit.seen = repetition ? 1 : 0;
                edit.count += i >= params.n_prompt ? 1 : 0;
            });
        }
    }
    for (int i = 0; i < n; i++) {
        edit_index_[static_cast<size_t>(out[i].token)] = -1;
    }
    return full ? -1 : n;
}

int StepBuffers::fill_sampling(const Step& step, int first) {
    auto* rows = host<SampleRow>(layout_.sample_rows);
    extra_used_ = 0;
    int row = first;
    for (; row < step.n_logit; row++) {
        const SampleParams& p = step.sampling[row];
        SampleRow out = {};
        size_t used = extra_used_;
        const auto capacity = static_cast<int>(
            std::min<size_t>((layout_.extra_bytes - used) / sizeof(SampleEdit), static_cast<size_t>(limits_.vocab)));
        out.n_edits = fill_edits(p, host<SampleEdit>(layout_.extra + used), capacity);
        const size_t mask_bytes = p.mask != nullptr ? static_cast<size_t>(limits_.vocab + 31) / 32 * 4 : 0;
        if (out.n_edits >= 0) {
            out.edits = device<SampleEdit>(layout_.extra + used);
            used += align(static_cast<size_t>(out.n_edits) * sizeof(SampleEdit));
        }
        if (out.n_edits < 0 || used + mask_bytes > layout_.extra_bytes) {
            break;  // the rest in another round
        }
        if (p.mask != nullptr) {
            std::memcpy(host<std::byte>(layout_.extra + used), p.mask, mask_bytes);
            out.mask = device<uint32_t>(layout_.extra + used);
            used += align(mask_bytes);
        }
        extra_used_ = std::min(used, layout_.extra_bytes);
        out.temperature = p.temperature;
        out.top_p = p.top_p;
        out.top_k = p.top_k;
        out.min_p = p.min_p;
        out.repetition = p.repetition_penalty;
        out.presence = p.presence_penalty;
        out.frequency = p.frequency_penalty;
        out.uniform = uniform_draw(p.seed, p.position);
        out.n_logprobs = p.n_logprobs;
        out.active = 1;
        rows[row] = out;
    }
    return row;
}

void StepBuffers::pad_sampling(int from, int to) {
    auto* rows = host<SampleRow>(layout_.sample_rows);
    for (int i = from; i < to; i++) {
        rows[i] = {};
    }
}

}  // namespace llm::engine::cuda
