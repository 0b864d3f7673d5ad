#include "engine_worker/backend/cuda/plan.hpp"

#include <algorithm>
#include <bit>
#include <cstdio>
#include <stdexcept>

namespace llm::engine::cuda {
namespace {

constexpr int64_t kMaxSlots = int64_t{1} << 28;
constexpr int kWarpsPerMultiprocessor = 16;  // enough loads under way to keep memory busy
constexpr int kGemvGroup = 256;              // bytes of a row that a warp reads at a time
constexpr int kSampleBlockLogits = 1024 * 16;  // what a block of sampling has under way at once
constexpr int kPrefillBlocksPerMultiprocessor = 2;  // at once, by registers, with heads of 128
constexpr int kDecodeBlocksPerMultiprocessor = 3;  // at once, by registers, with heads of 128; more would be a second round

std::string number(int64_t value) {
    return std::to_string(value);
}

}  // namespace

std::string memory_text(size_t bytes) {
    char text[32];
    const double gib = static_cast<double>(bytes) / (1 << 30);
    if (gib >= 1) {
        std::snprintf(text, sizeof text, "%.1f GiB", gib);
    } else {
        std::snprintf(text, sizeof text, "%.1f MiB", gib * 1024);
    }
    return text;
}

bool capability_is_built(const std::string& built, int major, int minor) {
    int last = 0;
    for (size_t at = 0; at < built.size();) {
        const size_t comma = std::min(built.find(',', at), built.size());
        int one_major = 0;
        int one_minor = 0;
        if (std::sscanf(built.c_str() + at, " %d.%d", &one_major, &one_minor) != 2) {
            return false;
        }
        if (one_major == major && one_minor <= minor) {
            return true;
        }
        last = one_major * 10 + one_minor;
        at = comma + 1;
    }
    return last > 0 && last <= major * 10 + minor;
}

int padded_head_dim(const ModelConfig& config) {
    if (config.head_dim > kMaxHeadDim || config.head_dim % 2 != 0) {
        throw std::runtime_error("head_dim is " + number(config.head_dim) +
                                 "; the CUDA backend supports even ones up to " + number(kMaxHeadDim));
    }
    return config.head_dim <= 64 ? 64 : config.head_dim <= 128 ? 128 : 256;
}

size_t kv_bytes_per_token(const ModelConfig& config) {
    return size_t{2} * static_cast<size_t>(config.n_layers) * static_cast<size_t>(config.n_kv_heads) *
           static_cast<size_t>(padded_head_dim(config)) * sizeof(uint16_t);
}

int64_t plan_kv_tokens(const MemoryRequest& r) {
    const auto limit = static_cast<size_t>(static_cast<double>(r.total) * std::clamp(r.fraction, 0.0, 1.0));
    const size_t others = r.total - std::min(r.total, r.free);
    const size_t available = limit > others ? limit - others : 0;
    const size_t fixed = r.weights + r.workspace;
    const int64_t least = r.kv_tokens > 0 ? r.kv_tokens : r.min_kv_tokens;
    const size_t needed = fixed + static_cast<size_t>(least) * r.per_token;
    if (needed > available) {
        throw std::runtime_error(
            "the model does not fit: it needs " + memory_text(needed) + " of GPU memory (" +
            memory_text(r.weights) + " weights, " + memory_text(r.workspace) + " work space, " +
            memory_text(needed - fixed) + " for " + number(least) + " tokens of context) and may use " +
            memory_text(available) + " (--gpu-memory times " + memory_text(r.total) + ", less " +
            memory_text(others) + " in use by others)");
    }
    if (r.kv_tokens > 0) {
        if (r.kv_tokens > kMaxSlots) {
            throw std::runtime_error("kv_tokens is " + number(r.kv_tokens) + ", above " + number(kMaxSlots));
        }
        return r.kv_tokens;
    }
    const auto fitting = static_cast<int64_t>((available - fixed) / r.per_token);
    return std::min({fitting, std::max(r.max_kv_tokens, least), kMaxSlots});
}

std::vector<int> decode_buckets(int max_sequences) {
    std::vector<int> buckets;
    for (int size = 1; size < max_sequences;
         size += size < 2 ? 1 : size < 4 ? 2 : size < 8 ? 4 : size < 64 ? 8 : size < 256 ? 16 : 64) {
        buckets.push_back(size);
    }
    buckets.push_back(max_sequences);
    return buckets;
}

int bucket_for(const std::vector<int>& buckets, int n) {
    const auto found = std::lower_bound(buckets.begin(), buckets.end(), n);
    return found == buckets.end() ? 0 : *found;
}

int plan_splits(int sequences, int n_heads, int n_kv_heads, int longest_context, int multiprocessors) {
    const int group = n_heads / n_kv_heads;
    const int blocks = sequences * n_kv_heads * ((group + kMaxGroup - 1) / kMaxGroup);
    const int wanted = kDecodeBlocksPerMultiprocessor * multiprocessors / std::max(1, blocks);
    const int useful = std::max(1, longest_context / 64);
    const int splits = std::clamp(std::min(wanted, useful), 1, kMaxSplits);
    return static_cast<int>(std::bit_floor(static_cast<unsigned>(splits)));
}

int prefill_parts(int multiprocessors) {
    return kPrefillBlocksPerMultiprocessor * multiprocessors;
}

int plan_prefill_splits(int n_tiles, int n_kv_heads, int longest_context, int multiprocessors) {
    return std::clamp(std::min(prefill_parts(multiprocessors) / (n_tiles * n_kv_heads), longest_context / 256), 1, kMaxSplits);
}

int plan_sample_splits(int rows, int vocab, int multiprocessors) {
    const int useful = (vocab + kSampleBlockLogits - 1) / kSampleBlockLogits;
    return std::clamp(std::min(multiprocessors / std::max(1, rows), useful), 1, kMaxSampleSplits);
}

GemvShape plan_gemv(int n, int k, int bytes_per_weight, int multiprocessors) {
    const int tiles = n / 16;
    const int groups = std::max<int>(1, k * bytes_per_weight / kGemvGroup);
    const int wanted = multiprocessors * kWarpsPerMultiprocessor;
    const int per_tile = (wanted + tiles - 1) / tiles;
    GemvShape shape;
    // powers of two, so that all warps of usual shapes read equally often
    shape.warps = static_cast<int>(std::min({static_cast<unsigned>(kGemvMaxWarps),
                                             std::max(4u, std::bit_ceil(static_cast<unsigned>(per_tile))),
                                             std::bit_ceil(static_cast<unsigned>(groups))}));
    if (tiles < multiprocessors) {
        shape.splits = std::clamp(std::min((multiprocessors + tiles - 1) / tiles, groups / shape.warps), 1, 8);
    }
    return shape;
}

size_t gemv_partial_floats(int n, int bytes_per_weight, const GemvShape& shape) {
    const size_t rows = bytes_per_weight == 1 ? kGemvMaxRows8 : kGemvMaxRows;
    return shape.splits > 1 ? static_cast<size_t>(shape.splits) * static_cast<size_t>(n) * rows : 0;
}

namespace {

struct GemmSplits {
    int steps;        // of k
    int least, most;  // splits
    int kernels;      // that can make it
};

GemmSplits gemm_splits(int n, int k, int rows, int bytes_per_weight, int multiprocessors) {
    const int steps = (k * bytes_per_weight + kGemmStepBytes - 1) / kGemmStepBytes;
    const int blocks = gemm_blocks(n, rows, bytes_per_weight);
    const auto for_blocks = [&](int wanted) { return std::clamp(std::min(wanted / blocks, steps / 2), 1, 8); };
    return {steps, for_blocks(bytes_per_weight == 1 ? 2 * multiprocessors : multiprocessors), for_blocks(2 * multiprocessors),
            bytes_per_weight == 2 && gemm_block_rows(rows, 2) == kGemmMostBlockRows ? 2 : 1};
}

}  // namespace

int gemm_choices(int n, int k, int rows, int bytes_per_weight, int multiprocessors) {
    const GemmSplits splits = gemm_splits(n, k, rows, bytes_per_weight, multiprocessors);
    return (splits.most - splits.least + 1) * splits.kernels;
}

GemmCut plan_gemm(int n, int k, int rows, int bytes_per_weight, int multiprocessors, int choice) {
    const GemmSplits splits = gemm_splits(n, k, rows, bytes_per_weight, multiprocessors);
    const int wanted = std::clamp(splits.least + choice / splits.kernels, 1, splits.most);
    const int part = (splits.steps + wanted - 1) / wanted;  // as gemm_kernel divides
    return {(splits.steps + part - 1) / part, choice % splits.kernels == 1};
}

size_t gemm_partial_floats(int n, int k, int bytes_per_weight, int multiprocessors) {
    size_t most = 0;
    for (int rows = 32; rows <= kGemmMaxRows; rows += 32) {
        const int splits = gemm_splits(n, k, rows, bytes_per_weight, multiprocessors).most;
        const int floats = gemm_blocks(n, rows, bytes_per_weight) * kGemmOutputs * gemm_block_rows(rows, bytes_per_weight);
        most = std::max(most, splits > 1 ? static_cast<size_t>(splits) * static_cast<size_t>(floats) : 0);
    }
    return most;
}

void plan_prefill(const Step& step, int n_heads, int n_kv_heads, std::vector<PrefillTile>& out) {
    const int group = n_heads / n_kv_heads;
    out.clear();
    for (int32_t s = step.n_decode; s < step.n_seq; s++) {
        const int rows = (step.q_start[s + 1] - step.q_start[s]) * group;
        for (int first = 0; first < rows; first += kQueryTile) {
            out.push_back({s, step.q_start[s], first, std::min(kQueryTile, rows - first)});
        }
    }
    const auto last = [&](const PrefillTile& tile) {
        return step.pos[tile.first_token + (tile.first_row + tile.rows - 1) / group];
    };
    std::stable_sort(out.begin(), out.end(),
                     [&](const PrefillTile& a, const PrefillTile& b) { return last(a) > last(b); });
}

size_t max_prefill_tiles(int max_tokens, int max_sequences, int n_heads, int n_kv_heads) {
    const int64_t rows = int64_t{max_tokens} * (n_heads / n_kv_heads);
    return static_cast<size_t>(rows / kQueryTile + max_sequences + 1);
}

void check_step(const Step& step, const BackendInfo& info, int32_t sampled_before) {
    if (step.n_tok < 0 || step.n_tok > info.max_step_tokens || step.n_seq < 0 || step.n_seq > info.max_step_seqs ||
        step.n_logit < 0 || step.n_logit > step.n_tok) {
        throw std::invalid_argument("step exceeds max_step_tokens or max_step_seqs");
    }
    for (int32_t i = 0; i < step.n_tok; i++) {
        if (step.tok[i] < -sampled_before) {
            throw std::invalid_argument("step has the token of a row that the step before did not sample");
        }
        if (step.tok[i] >= info.vocab_size) {
            throw std::invalid_argument("step has token " + number(step.tok[i]) + ", outside the vocabulary");
        }
        if (step.slot[i] < 0 || step.slot[i] >= info.kv_slots) {
            throw std::invalid_argument("step has slot " + number(step.slot[i]) + ", outside the cache");
        }
    }
    for (int32_t s = 0; s < step.n_seq; s++) {
        if (step.ctx_len[s] > info.max_context || step.ctx_len[s] > step.table_ld) {
            throw std::invalid_argument("step has a context above max_context or table_ld");
        }
        const int32_t count = step.q_start[s + 1] - step.q_start[s];
        if (count < 1 || (s < step.n_decode && count != 1)) {
            throw std::invalid_argument("step has a sequence with the wrong number of tokens");
        }
        for (int32_t t = step.q_start[s]; t < step.q_start[s + 1]; t++) {
            if (step.pos[t] < 0 || step.pos[t] >= step.ctx_len[s]) {
                throw std::invalid_argument("step has a position outside its context");
            }
        }
    }
}

}  // namespace llm::engine::cuda
