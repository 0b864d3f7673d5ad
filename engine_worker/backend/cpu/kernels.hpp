// The numeric kernels of the CPU backend: one table of functions per instruction set, chosen at run time.
//
// One promise shapes all of them: a row of a result depends only on its own inputs, never on how many rows
// are computed with it, on the tile it falls into or on the thread that computes it. Sums therefore run in
// one fixed order, vector lanes hold *different* results (16 outputs of a matrix, 16 queries of an attention
// tile) and never parts of one sum that a tile shape could regroup. That makes batching, chunked prefill,
// preemption and prefix hits change no bit.
//
// This header is included by files compiled for instruction sets that the running machine may lack: it must
// define no function, or the linker could pick their version for everybody.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llm::engine {

// How a matrix is held in memory. All are in panels: 32 output rows side by side, all of k after each other.
//   kF32   [panel][k][32] f32
//   kBf16  [panel][k/2][32][2] bf16, k padded to even
//   kInt8  [panel][k/128]{[128/4][32][4] u8 = value + 128, [32] f32 scale}, k padded to a multiple of 128;
//          in the order they are read: a scale in front would be skipped by the prefetchers and stall every group
enum class WeightType : uint8_t { kF32, kBf16, kInt8 };

inline constexpr int32_t kPanel = 32;       // output rows side by side
inline constexpr int32_t kGroup = 128;      // inputs that share a scale in kInt8
inline constexpr int32_t kQueryLanes = 32;  // queries of one attention tile
inline constexpr int32_t kKvBlock = 32;     // context positions of one round of online softmax

struct PackedMatrix {
    WeightType type = WeightType::kF32;
    int32_t n = 0;         // outputs
    int32_t k = 0;         // inputs
    int32_t k_padded = 0;  // as stored
    int32_t n_panels = 0;
    size_t panel_bytes = 0;
    const std::byte* data = nullptr;  // 64-byte aligned
    const float* bias = nullptr;      // [n_panels * kPanel], or nullptr
};

// Activations in the form that a WeightType multiplies with, row after row of `stride` bytes (a multiple of
// 64):
//   kF32   [k] f32
//   kBf16  [k_padded] bf16, rounded to nearest even
//   kInt8  [k_padded] i8, then [k_padded/128]{f32 scale, i32 -128 * sum of the group}
struct Activations {
    const std::byte* data = nullptr;
    size_t stride = 0;
};

// What becomes of a sum.
//   kStore       y[i][j] = sum
//   kAdd         y[i][j] += sum
//   kSwiglu      y[i][j] = silu(gate) * up, where the panels hold 16 outputs of the gate, then the 16 of
//                `up` that belong to them; y has half as many columns
//   kSwigluBf16  the same, y is bf16
enum class Epilogue : uint8_t { kStore, kAdd, kSwiglu, kSwigluBf16 };

// sum[i][j] = sum over k of x[i][k] * w[j][k], + bias[j]; for the rows [0, m) and the panels [panel_begin,
// panel_end). y needs room for whole panels.
struct MatmulArgs {
    const PackedMatrix* w = nullptr;
    Activations x;
    std::byte* y = nullptr;
    size_t y_stride = 0;  // bytes
    int32_t m = 0;
    int32_t panel_begin = 0;
    int32_t panel_end = 0;
    Epilogue epilogue = Epilogue::kStore;
};

// One tile of attention: up to kQueryLanes queries (of one sequence and one key/value head) against the
// context. Where keys and values are bf16, queries and probabilities are rounded to bf16 for the products;
// sums are f32.
struct AttentionArgs {
    int32_t n_queries = 0;
    const float* query[kQueryLanes];  // [head_dim_padded] each
    float* out[kQueryLanes];          // [head_dim_padded] each
    int32_t position[kQueryLanes];    // query i sees the positions max(0, position - window + 1) .. position
    int32_t window = 0;               // 0 = all
    int32_t head_dim_padded = 0;      // a multiple of 16; what lies past head_dim is zero everywhere
    float scale = 1;                  // of the scores
    const void* keys = nullptr;       // [slot][head_dim_padded], f32 or bf16
    const void* values = nullptr;     // same
    bool kv_bf16 = false;
    const int32_t* table = nullptr;  // slot of every context position
    // For transposed queries, outputs, a block of values, scores, three rows of running figures and a row of
    // zeros: floats head_dim_padded * (2 * kQueryLanes + kKvBlock + 1) + kKvBlock * kQueryLanes + 3 *
    // kQueryLanes.
    float* scratch = nullptr;
};

struct Kernels {
    const char* name;
    void (*matmul)(const MatmulArgs& args);
    // Writes one row of k floats, zero-padded to k_padded, in the form of `type`.
    void (*prepare)(WeightType type, const float* x, int32_t k, int32_t k_padded, std::byte* out);
    void (*attention)(const AttentionArgs& args);
    // out = x / rms(x) * weight, n elements. In place allowed.
    void (*rms_norm)(const float* x, const float* weight, float eps, int32_t n, float* out);
    // Turns the pairs (x[i], x[i + half]) by the angles with these cosines and sines, [half] each. Not in
    // place.
    void (*rotate)(const float* x, const float* cosines, const float* sines, int32_t half, float* out);
    void (*f32_to_bf16)(const float* x, int32_t n, uint16_t* out);  // n is a multiple of 16
    float (*max)(const float* x, int32_t n);
    // Sum of exp((x[i] - shift) * scale), in a fixed order.
    double (*sum_exp)(const float* x, int32_t n, float shift, float scale);
    // out[i] = exp((x[i] - shift) * scale). In place allowed.
    void (*exp_all)(const float* x, int32_t n, float shift, float scale, float* out);
};

extern const Kernels kKernelsGeneric;
#if defined(__x86_64__)
extern const Kernels kKernelsAvx2;        // AVX2, FMA
extern const Kernels kKernelsAvx512;      // AVX-512 F, BW, DQ, VL
extern const Kernels kKernelsAvx512Bf16;  // the same with BF16 and VNNI
#endif

// The best table that this machine can run. Throws std::runtime_error if `name` ("auto", "generic", "avx2",
// "avx512", "avx512_bf16") asks for one that it cannot.
const Kernels& choose_kernels(const char* name = "auto");

}  // namespace llm::engine
