// Decisions of the CUDA backend that need no GPU: what fits, how a step is cut into blocks, which graphs there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/model/config.hpp"

namespace llm::engine::cuda {

// "12.3 GiB", or MiB below one.
std::string memory_text(size_t bytes);

// Whether code built for `built` ("8.0, 8.9, 9.0": machine code for each, PTX for the last) runs on a GPU of
// this compute capability: machine code serves later minor versions of its major one, PTX whatever is newer.
bool capability_is_built(const std::string& built, int major, int minor);

constexpr int64_t round_up(int64_t value, int64_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

// 64, 128 or 256. Throws std::runtime_error for head dimensions above that.
int padded_head_dim(const ModelConfig& config);

// Bytes of keys and values of one token in all layers, bf16 and padded.
size_t kv_bytes_per_token(const ModelConfig& config);

struct MemoryRequest {
    size_t total = 0;          // bytes of the GPU
    size_t free = 0;           // before anything was loaded
    double fraction = 0.9;     // of `total` that may be used, by everybody
    size_t weights = 0;        // bytes
    size_t workspace = 0;      // bytes
    size_t per_token = 0;      // bytes of keys and values
    int64_t kv_tokens = 0;     // asked for; 0 = as many as fit, up to max_kv_tokens
    int64_t max_kv_tokens = 0;
    int64_t min_kv_tokens = 0; // fewer are useless
};
// Tokens of the KV cache. Throws std::runtime_error that says how much is needed and how much there is.
int64_t plan_kv_tokens(const MemoryRequest& request);

// Sizes of decode batches that graphs are made for, ascending; the last is `max_sequences`.
std::vector<int> decode_buckets(int max_sequences);
// The smallest bucket that holds n, or 0.
int bucket_for(const std::vector<int>& buckets, int n);

// Into how many parts the context of each sequence is split, a power of two up to kMaxSplits: as many blocks as run at
// once, but no part below 64 positions of the longest context.
int plan_splits(int sequences, int n_heads, int n_kv_heads, int longest_context, int multiprocessors);

// The same for prompts: into how many parts the contexts of `n_tiles` tiles are split, 1..kMaxSplits; as many blocks as run at once,
// but no part below 256 positions of the longest context. More than 1 only for so few tiles that tiles * n_kv_heads * splits is
// at most prefill_parts().
int plan_prefill_splits(int n_tiles, int n_kv_heads, int longest_context, int multiprocessors);
int prefill_parts(int multiprocessors);

// How many blocks share a row of logits, 1..kMaxSampleSplits: one per multiprocessor for all rows together, but none with less than
// 16 logits per thread. More than 1 only where rows * splits is at most `multiprocessors`.
int plan_sample_splits(int rows, int vocab, int multiprocessors);

// n is a multiple of 16; `bytes_per_weight` 2 or 1.
GemvShape plan_gemv(int n, int k, int bytes_per_weight, int multiprocessors);
// Floats of GemvArgs::partial for that shape with the most rows.
size_t gemv_partial_floats(int n, int bytes_per_weight, const GemvShape& shape);

// The most rows that launch_gemm() is meant for. Of two-byte weights: where its fused activation and early
// launch no longer make up for slower tensor cores than cuBLASLt's. Of one-byte weights: where a copy of the
// matrix in bf16 costs less.
inline constexpr int kGemmMaxRows = 256;
// Of two-byte weights, up to which rows it is taken where nothing was timed: arithmetic costs more than
// reading the weights above it.
inline constexpr int kGemmUntimedRows = 64;
// How such a product is cut. 1 to 8 blocks share k, none of them without work: so that each multiprocessor has one block, or two if
// they widen weights. `choice` in [0, gemm_choices()), to be timed: more of them, up to two per multiprocessor, and fewer warps.
GemmCut plan_gemm(int n, int k, int rows, int bytes_per_weight, int multiprocessors, int choice = 0);
int gemm_choices(int n, int k, int rows, int bytes_per_weight, int multiprocessors);
// Floats of GemvArgs::partial for the worst choice and number of rows up to kGemmMaxRows.
size_t gemm_partial_floats(int n, int k, int bytes_per_weight, int multiprocessors);

// Tiles of the sequences [step.n_decode, step.n_seq), those with the longest context first.
void plan_prefill(const Step& step, int n_heads, int n_kv_heads, std::vector<PrefillTile>& out);
size_t max_prefill_tiles(int max_tokens, int max_sequences, int n_heads, int n_kv_heads);

// Throws std::invalid_argument when the step breaks the limits of `info`: a fault of the caller. `sampled_before`: rows
// that the step before samples, whose tokens this one may name.
void check_step(const Step& step, const BackendInfo& info, int32_t sampled_before = 0);

}  // namespace llm::engine::cuda
