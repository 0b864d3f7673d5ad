// The kernels' arguments and the functions that launch them. No CUDA syntax: included by host code, too.
//
// Shapes are [outer][inner]; strides count elements. All pointers are device memory, 16-byte aligned. Launches are
// asynchronous on `stream` and may be captured into a graph. A launch that fails throws std::runtime_error.
#pragma once

#include <cstddef>
#include <cstdint>

// As CUDA's own headers have it. What only plans is built on machines without them.
struct CUstream_st;
using cudaStream_t = CUstream_st*;

#if defined(__CUDACC__)
#define LLM_HOST_DEVICE __host__ __device__
#else
#define LLM_HOST_DEVICE
#endif

namespace llm::engine::cuda {

inline constexpr int kMaxHeadDim = 256;
inline constexpr int kRowPad = 64;       // elements that rows of activations and weights are padded to
inline constexpr int kGemvMaxRows = 16;  // rows of bf16 that one pass over the weights serves
inline constexpr int kGemvMaxRows8 = 32; // the same for one-byte weights
inline constexpr int kGemvMaxNorm = 16384;  // elements of a row that a product of few rows norms
inline constexpr int kQueryTile = 64;    // query rows of a prefill attention block
inline constexpr int kMaxGroup = 8;      // query heads that share a load of keys in decode attention
inline constexpr int kMaxSplits = 32;    // parts of a context in decode attention
inline constexpr int kMaxTop = 20;       // logprobs besides the sampled token's

// An rms_norm without a kernel of its own, for products of few rows. Who writes a row of the residual stream also writes
// the row times the norm's weights, and sums of its squares; the product that follows divides its results.
struct NextNorm {         // of who writes
    const float* weight;  // [dim, padded]
    uint16_t* x;          // bf16, as far apart as the rows that are written; nullptr = there is none
    float* squares;       // [rows][parts]: each 16 elements' sum of squares
    int parts;            // a multiple of 4; those beyond the row are zero
};
struct AppliedNorm {       // of the product
    const float* squares;  // nullptr = x is what to multiply with
    int parts;
    float inverse_dim;     // 1 / dim
    float eps;
};

struct EmbedArgs {
    const uint16_t* table;      // bf16 [vocab][stride]
    const int* tokens;          // [rows]; -1 - i = what row i of the step before sampled
    const int* sampled;         // [rows of the step before]
    const int* positions;       // [rows]
    const double* frequencies;  // [head_dim / 2] angle per position
    float* hidden;              // [rows][stride]
    float* rotation;            // [rows][head_dim]
    int stride;
    int head_dim;
    NextNorm next;
};
void launch_embed(const EmbedArgs& args, int rows, cudaStream_t stream);

struct NormArgs {
    const float* x;       // [..][stride]
    const int* rows;      // which rows of x, or nullptr = in order
    const float* weight;  // [stride], zero beyond dim
    uint16_t* out;        // bf16 [rows][stride]
    int stride;
    int dim;
    float eps;
};
void launch_rms_norm(const NormArgs& args, int rows, cudaStream_t stream);

// What attention needs of a token, before its rotation.
struct QkvArgs {
    const float* qkv;       // [tokens][qkv_stride]: heads of q, of k, of v
    const float* bias;      // [heads of q, of k, of v][head_dim], to be added to qkv first; or nullptr
    const float* rotation;  // [tokens][head_dim]
    const float* q_norm;    // [head_dim] or nullptr
    const float* k_norm;
    const int* slots;       // [tokens]
    uint16_t* keys;         // bf16 [n_kv_heads][kv_slots][head_dim_padded], of this layer
    uint16_t* values;       // same
    int qkv_stride;
    int n_heads;
    int n_kv_heads;
    int head_dim;
    int head_dim_padded;    // 64, 128 or 256
    int kv_slots;
    float eps;
};
// For the tokens that prefill attention serves: [first, first + tokens). `query`: bf16 [.. tokens][n_heads][head_dim_padded].
void launch_rotate_and_store(const QkvArgs& args, uint16_t* query, int first, int tokens, cudaStream_t stream);

void launch_silu_multiply(const uint16_t* in, int in_stride, uint16_t* out, int out_stride, int rows,
                          cudaStream_t stream);
// y[row][j] = bias[j], with `add` plus what was there. n and y_stride are multiples of 4.
void launch_bias_rows(const float* bias, float* y, int n, int y_stride, int rows, bool add, cudaStream_t stream);
void launch_expand_e4m3(const uint8_t* in, const float* scale, int n, int k, uint16_t* out, cudaStream_t stream);

struct TableRange {
    int64_t target;  // in the table
    int source, count;
};
void launch_update_table(int* table, const TableRange* ranges, const int* values, int n_ranges, cudaStream_t stream);

// What becomes of the sums of a product. kSwiglu needs weights whose rows alternate 8 of the gate, 8 of `up`.
enum class GemvEpilogue : int { kStore, kAdd, kSwiglu };

// y[row][j] = sum over k of x[row][k] * w[j][k] (* scale[j]), + bias[j]. n is a multiple of 16, k of kRowPad.
struct GemvArgs {
    const void* w;       // bf16 or e4m3 [n][k]
    const float* scale;  // [n] for e4m3, else nullptr
    const float* bias;   // [n] or nullptr
    const uint16_t* x;   // bf16 [rows][k]
    void* y;             // f32 [rows][y_stride]; kSwiglu: bf16 [rows][y_stride], n / 2 columns
    float* partial;      // splits > 1: [splits][n / 16][rows <= 32][16]
    unsigned* tickets;   // splits > 1: [n / 16], zero; zero again afterwards
    int n;
    int k;
    int rows;            // 1..kGemvMaxRows (e4m3: kGemvMaxRows8; launch_gemm: any number)
    int y_stride;
    GemvEpilogue epilogue;
    AppliedNorm norm;    // of kGemvMaxRows rows and kGemvMaxNorm elements at most
    NextNorm next;       // kStore and kAdd
};
// How a product is cut: blocks = n / 16 * splits, each of `warps` warps (kGemvMaxWarps at most) that share its k.
inline constexpr int kGemvMaxWarps = 8;
struct GemvShape {
    int warps = 4;
    int splits = 1;
};
void launch_gemv(const GemvArgs& args, const GemvShape& shape, cudaStream_t stream);

// The same for more rows, without norms. Blocks of kGemmOutputs matrix rows and gemm_block_rows() activation rows; `splits` of
// them share k, in steps of kGemmStepBytes of a matrix row. splits > 1: partial has splits * gemm_blocks() * kGemmOutputs *
// gemm_block_rows() floats, tickets gemm_blocks().
inline constexpr int kGemmColumnWarps = 4;
inline constexpr int kGemmOutputs = 32 * kGemmColumnWarps;
inline constexpr int kGemmMostBlockRows = 64;
inline constexpr int kGemmStepBytes = 128;
constexpr int gemm_block_rows(int rows, int bytes_per_weight) {
    return bytes_per_weight == 2 && rows <= 32 ? 32 : kGemmMostBlockRows;
}
constexpr int gemm_blocks(int n, int rows, int bytes_per_weight) {
    const int block_rows = gemm_block_rows(rows, bytes_per_weight);
    return (n + kGemmOutputs - 1) / kGemmOutputs * ((rows + block_rows - 1) / block_rows);
}
struct GemmCut {
    int splits = 1;
    bool few_warps = false;  // of two-byte weights and 33 rows or more: 4 warps with 64 rows each, not 8 with 32
};
void launch_gemm(const GemvArgs& args, const GemmCut& cut, cudaStream_t stream);

struct AttentionArgs {
    const uint16_t* query;   // bf16 [tokens][n_heads][head_dim_padded]
    const uint16_t* keys;    // bf16 [n_kv_heads][kv_slots][head_dim_padded]
    const uint16_t* values;
    uint16_t* out;           // bf16 [tokens][out_stride]: heads one after the other, head_dim each
    const int* positions;    // [tokens]
    const int* table;        // [sequences][table_stride] slot of every context position
    int table_stride;
    int n_heads;
    int n_kv_heads;
    int head_dim;
    int head_dim_padded;     // 64, 128 or 256
    int out_stride;
    int kv_slots;
    int window;              // 0 = all
    float scale;             // of the scores
};

// Positions that split `split` of `splits` reads of [begin, end): equal parts, rounded up to whole blocks of 16.
LLM_HOST_DEVICE inline void split_range(int begin, int end, int split, int splits, int& low, int& high) {
    const int part = ((end - begin + splits - 1) / splits + 15) / 16 * 16;
    low = begin + split * part < end ? begin + split * part : end;
    high = low + part < end ? low + part : end;
}

// Sequences 0..n-1 with one token each, token i of sequence i. Rotates it and writes its keys and values, too.
struct DecodeArgs {
    AttentionArgs attention;  // without `query`
    QkvArgs token;
    float* partial;           // [n][n_heads][splits][head_dim_padded], for splits > 1
    float* partial_ml;        // [n][n_heads][splits][2]: maximum and sum
    unsigned* tickets;        // splits > 1: [n][n_kv_heads][head_parts()], zero; zero again afterwards
    int splits;               // 1..kMaxSplits
};
// Blocks that share the heads of one group.
LLM_HOST_DEVICE constexpr int head_parts(int group) { return (group + kMaxGroup - 1) / kMaxGroup; }
void launch_decode_attention(const DecodeArgs& args, int sequences, cudaStream_t stream);

// kQueryTile rows of one sequence: row r is token first_token + r / group, head r % group of the group.
struct PrefillTile {
    int sequence;
    int first_token;  // of the sequence's tokens in this step: index in the step
    int first_row;    // of the sequence's rows, counted from first_token
    int rows;
};
struct PrefillArgs {
    AttentionArgs attention;
    const PrefillTile* tiles;
    float* partial;     // splits > 1: [n_tiles][n_kv_heads][splits][kQueryTile][head_dim_padded]
    float* partial_ml;  // [n_tiles][n_kv_heads][splits][kQueryTile][2]: maximum and sum
    unsigned* tickets;  // [n_tiles][n_kv_heads], zero; zero again afterwards
    int splits;         // 1..kMaxSplits
};
void launch_prefill_attention(const PrefillArgs& args, int n_tiles, cudaStream_t stream);

// How one row of logits becomes a token; backend.hpp documents the order.
struct SampleEdit {
    int token;
    float bias;    // added first
    int seen;      // the repetition penalty applies
    int count;     // of generated tokens: presence and frequency penalty
    float raw;     // scratch: the logit as it was
};
struct SampleRow {
    float temperature, top_p, min_p;
    float repetition, presence, frequency;
    double uniform;         // [0, 1), drawn by seed and position
    const uint32_t* mask;   // device, or nullptr
    SampleEdit* edits;      // device
    int n_edits;
    int top_k;
    int n_logprobs;         // -1 none
    int active;             // 0 = a row that only fills up a graph's batch
};
struct SampleOut {
    int token;
    float logprob;
    int n_top;
    int top_token[kMaxTop];
    float top_logprob[kMaxTop];
};
inline constexpr int kGathered = 2048;      // the most tokens that are ordered
inline constexpr int kDepthBins = 256;      // of a histogram of distances from the largest logit
inline constexpr int kMaxSampleSplits = 32;
// What one of the blocks that share a row found in its part.
struct SamplePart {
    unsigned long long best;             // the largest rank: a logit and a token, in order
    unsigned long long sum;              // of the weights
    unsigned limit;                      // depth below which `rank` has all
    unsigned bins[kDepthBins + 1];       // the last: of all that is deeper
    unsigned long long rank[kGathered];  // 0 beyond the last
};
// What is known of a row before its token is drawn.
struct SampleState {
    unsigned long long best;
    double base;  // of logprobs
    int edited;   // its logits, or which of them are allowed
    int draws;    // 0 = its token is the best
};
struct SampleArgs {
    float* logits;     // [rows][stride]; changed
    int stride;
    int vocab;
    const SampleRow* rows;
    SampleOut* out;    // [rows]
    int* sampled;      // [rows] the tokens again, for the next step's embedding
    int splits;        // blocks that share a row, 1..kMaxSampleSplits
    SamplePart* parts;    // splits > 1: [rows][splits]
    SampleState* states;  // splits > 1: [rows]
    unsigned* tickets;    // splits > 1: [rows], zero; zero again afterwards
};
// `threads` per block, a multiple of 32 up to 1024. With more than one split these are two launches.
void launch_sample(const SampleArgs& args, int rows, int threads, cudaStream_t stream);

// The compute capabilities with machine code in this library, and the one whose PTX it carries: "8.0, 8.9, 9.0".
const char* built_capabilities();
// Raises the limits of shared memory that kernels need; once per process, after the device was chosen. `overlap`: launches
// may begin while the one before them ends (needs compute capability 9.0; left undone where kernels were built for less).
void prepare_kernels(bool overlap);
// Every launch from now on begins when the one before it has ended. False if that was so already.
bool stop_overlap();

}  // namespace llm::engine::cuda
