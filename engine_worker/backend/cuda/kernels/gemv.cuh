// Products of few activation rows with a matrix: bound by reading the weights once, from memory.
//
// A block computes 16 rows of the matrix for all activation rows. Its warps share k: each takes runs of 4 chunks
// of 64 bytes of every row, so that 8 loads of 16 bytes per thread are under way, and multiplies with tensor
// cores (the matrix is A, the activations are B): the cost of arithmetic is that of 8 or 16 rows, whatever the
// number. The fragments want pairs of k at certain places, but any order of k gives the same sum, so both sides
// use the order in which 16 contiguous bytes per lane arrive: no shuffles, no shared memory for operands.
// Where n / 16 blocks would not fill the machine, `splits` blocks share a tile; the last to finish adds the parts
// up in a fixed order. A row's result does not depend on how many rows are computed with it.
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/elementwise.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

inline constexpr int kGemvTile = 16;   // rows of the matrix per block
inline constexpr int kGemvUnroll = 4;  // chunks of 64 bytes per row and warp at a time
// Of a block: sums of 32 rows by as many warps as there may be, squares of as many rows as have norms.
inline constexpr int kGemvMostShared = (kGemvMaxWarps * 4 * 4 * kWarpSize + kGemvMaxRows * (kGemvMaxNorm / 16)) * 4;

// Of the rows g and g + 8 of a tile, for lane 4g + t.
struct GemvOutputs {
    float scale[2];
    float bias[2];
    float weight[2];  // of the next norm
};

// The four sums that lane 4g + t holds of column block `block`: rows g and g + 8 of the tile, activation rows
// 8 * block + 2t and + 1. All lanes of the warp call.
__device__ __forceinline__ void gemv_finish(const GemvArgs& args, const GemvOutputs& outputs, int tile, int block, int lane,
                                            const float (&sum)[4], const float (&before)[4], const float* row_scale) {
    const int n0 = tile * kGemvTile + lane / 4;
    const int n1 = n0 + 8;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = block * 8 + lane % 4 * 2 + i;
        const bool live = row < args.rows;
        const float factor = live && args.norm.squares != nullptr ? row_scale[row] : 1.0f;
        float first = sum[i] * factor * outputs.scale[0] + outputs.bias[0];
        float second = sum[i + 2] * factor * outputs.scale[1] + outputs.bias[1];
        const int offset = row * args.y_stride;
        if (args.epilogue == GemvEpilogue::kSwiglu) {
            if (live) {
                static_cast<uint16_t*>(args.y)[offset + tile * 8 + lane / 4] = to_bf16(silu_times(first, second));
            }
            continue;
        }
        float* y = static_cast<float*>(args.y) + offset;
        first = before[i] + first;
        second = before[i + 2] + second;
        if (live) {
            y[n0] = first;
            y[n1] = second;
        }
        if (args.next.x != nullptr) {
            float squares = first * first + second * second;
            for (int distance = 4; distance < kWarpSize; distance *= 2) {  // the other outputs of this row
                squares += __shfl_xor_sync(kFullMask, squares, distance);
            }
            if (live) {
                uint16_t* x = args.next.x + offset;
                x[n0] = to_bf16(first * outputs.weight[0]);
                x[n1] = to_bf16(second * outputs.weight[1]);
                if (lane / 4 == 0) {
                    args.next.squares[row * args.next.parts + tile] = squares;
                }
            }
        }
    }
}

// What finishing the sums of a block's tile takes from memory, for kBlocks * 8 rows: on its way to shared memory while they are made.
template <int kBlocks>
struct GemvAsked {
    Vec16 before[kBlocks][kWarpSize];  // 4 outputs of one row each, so placed that lanes which read together find different banks
    Vec16 scale[4];
    Vec16 bias[4];
    Vec16 weight[4];

    // By the warp that will finish `block`; of all, warp 0 asks for the rest.
    __device__ __forceinline__ void ask(const GemvArgs& args, int tile, int block, int lane) {
        if (block == 0 && lane < 12) {
            const float* from = lane < 4 ? args.scale : lane < 8 ? args.bias : args.next.x != nullptr ? args.next.weight : nullptr;
            Vec16* to = lane < 4 ? scale : lane < 8 ? bias : weight;
            if (from != nullptr) {
                async_copy16(to + lane % 4, from + tile * kGemvTile + lane % 4 * 4, true);
            }
        }
        const int row = block * 8 + lane % 8 / 2 * 2 + lane / 8 % 2;
        if (args.epilogue == GemvEpilogue::kAdd && row < args.rows) {
            async_copy16(&before[block][lane],
                         static_cast<const float*>(args.y) + row * args.y_stride + tile * kGemvTile + lane / 16 * 8 + lane % 2 * 4, true);
        }
    }
    // This and take() when it has come, and a barrier was passed.
    __device__ __forceinline__ GemvOutputs outputs(const GemvArgs& args, int lane) const {
        GemvOutputs out;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int n = half * 8 + lane / 4;
            out.scale[half] = args.scale != nullptr ? reinterpret_cast<const float*>(scale)[n] : 1.0f;
            out.bias[half] = args.bias != nullptr ? reinterpret_cast<const float*>(bias)[n] : 0.0f;
            out.weight[half] = args.next.x != nullptr ? reinterpret_cast<const float*>(weight)[n] : 0.0f;
        }
        return out;
    }
    // What each of the four sums that gemv_finish() takes is added to.
    __device__ __forceinline__ void take(const GemvArgs& args, int block, int lane, float (&out)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const bool live = args.epilogue == GemvEpilogue::kAdd && block * 8 + lane % 4 * 2 + i % 2 < args.rows;
            const int at = i / 2 * 64 + i % 2 * 32 + lane % 4 * 8 + lane / 4;
            out[i] = live ? reinterpret_cast<const float*>(before[block])[at] : 0.0f;
        }
    }
};

// Where a warp keeps the parts of the sums of squares of its rows, [args.rows][norm.parts]. It asks for them before its products and
// adds them up afterwards, so that nobody waits for them; each lane reads what it copied itself.
__device__ __forceinline__ void gemv_ask_squares(const GemvArgs& args, int warp, int warps, int lane, float* shared) {
#pragma unroll 1
    for (int row = warp; row < args.rows; row += warps) {
        const int at = row * args.norm.parts;
#pragma unroll 2
        for (int i = lane * 4; i < args.norm.parts; i += kWarpSize * 4) {
            async_copy16(shared + at + i, args.norm.squares + at + i, true);
        }
    }
}

// For each row of x: what rms_norm divides by. The squares have come.
__device__ __forceinline__ void gemv_row_scales(const GemvArgs& args, int warp, int warps, int lane, const float* shared, float* out) {
#pragma unroll 1
    for (int row = warp; row < args.rows; row += warps) {
        float squares = 0;
#pragma unroll 2
        for (int i = lane * 4; i < args.norm.parts; i += kWarpSize * 4) {
            const Vec16 v = load16(shared + row * args.norm.parts + i);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                squares += __uint_as_float(v.word[j]);
            }
        }
        squares = warp_sum(squares);
        if (lane == 0) {
            out[row] = rsqrtf(squares * args.norm.inverse_dim + args.norm.eps);
        }
    }
}

// kBlocks * 8 activation rows at most.
template <int kBlocks, bool kE4m3>
__global__ void __launch_bounds__(kGemvMaxWarps* kWarpSize, kBlocks == 1 ? 3 : 2) gemv_kernel(GemvArgs args) {
    constexpr int kChunk = kE4m3 ? 64 : 32;  // of k: 64 bytes of a row
    constexpr int kLane = kChunk / 4;        // of k per lane: 16 bytes
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    const int tile = static_cast<int>(blockIdx.x);
    const int split = static_cast<int>(blockIdx.y);
    const int splits = static_cast<int>(gridDim.y);
    const int group_id = lane / 4;
    const int quarter = lane % 4;

    constexpr size_t kBytes = kE4m3 ? 1 : 2;
    const size_t row_bytes = static_cast<size_t>(args.k) * kBytes;
    float sum[kBlocks][4];
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            sum[b][i] = 0;
        }
    }
    const Vec16 zero = {{0, 0, 0, 0}};
    const int chunks = args.k / kChunk;
    const int step = splits * warps * kGemvUnroll;
    int first = (split * warps + warp) * kGemvUnroll;
    // Of this lane at chunk `first`; they advance with it.
    const auto* w_upper = static_cast<const unsigned char*>(args.w) +
                          static_cast<size_t>(tile * kGemvTile + group_id) * row_bytes +
                          static_cast<size_t>(first * 64 + quarter * 16);
    const auto* w_lower = w_upper + 8 * row_bytes;
    const uint16_t* x = args.x + static_cast<size_t>(group_id) * static_cast<size_t>(args.k) +
                        static_cast<size_t>(first * kChunk + quarter * kLane);
    advance(w_upper, 0);
    advance(w_lower, 0);
    advance(x, 0);
    Vec16 upper[kGemvUnroll];
    Vec16 lower[kGemvUnroll];
    const auto load_weights = [&] {
#pragma unroll
        for (int u = 0; u < kGemvUnroll; u++) {
            const bool valid = first + u < chunks;
            upper[u] = valid ? load16_once(w_upper + u * 64) : zero;
            lower[u] = valid ? load16_once(w_lower + u * 64) : zero;
        }
    };
    // The first weights are under way while the launch before this one ends.
    load_weights();
    begin_launch();
    constexpr int kSums = kBlocks * 4 * kWarpSize;
    auto* shared = reinterpret_cast<float*>(shared_bytes());  // [warps][kBlocks][4][32], then the parts of sums of squares
    constexpr bool kNorms = kBlocks * 8 <= kGemvMaxRows;  // of more rows none come
    if (kNorms && args.norm.squares != nullptr) {
        gemv_ask_squares(args, warp, warps, lane, shared + warps * kSums);
    }
    __shared__ GemvAsked<kBlocks> asked;
    for (int b = warp; b < kBlocks; b += warps) {
        asked.ask(args, tile, b, lane);
    }
    async_commit();
    // Few rows leave registers for all of a turn's activations at once, so that they are waited for once.
    constexpr bool kTogether = kBlocks == 1 && !kE4m3;
    const auto load_row = [&](int u, int b, int part) {
        const bool live = first + u < chunks && b * 8 + group_id < args.rows;
        return live ? load16(x + static_cast<size_t>(b * 8) * static_cast<size_t>(args.k) + u * kChunk + part * 8) : zero;
    };
    while (first < chunks) {
        Vec16 rows[kTogether ? kGemvUnroll : 1];
        if constexpr (kTogether) {
#pragma unroll
            for (int u = 0; u < kGemvUnroll; u++) {
                rows[u] = load_row(u, 0, 0);
            }
        }
#pragma unroll
        for (int u = 0; u < kGemvUnroll; u++) {
            if constexpr (kE4m3) {
#pragma unroll
                for (int part = 0; part < 2; part++) {  // 16 bytes of weights go with 32 of each row
                    Vec16 half[kBlocks];
#pragma unroll
                    for (int b = 0; b < kBlocks; b++) {
                        half[b] = load_row(u, b, part);
                    }
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        uint32_t a[4];
                        e4m3_to_bf16(upper[u].word[part * 2 + j], a[0], a[2]);
                        e4m3_to_bf16(lower[u].word[part * 2 + j], a[1], a[3]);
#pragma unroll
                        for (int b = 0; b < kBlocks; b++) {
                            mma_bf16(sum[b], a, half[b].word[j * 2], half[b].word[j * 2 + 1]);
                        }
                    }
                }
            } else {
#pragma unroll
                for (int b = 0; b < kBlocks; b++) {
                    const Vec16 row = kTogether ? rows[kTogether ? u : 0] : load_row(u, b, 0);
#pragma unroll
                    for (int j = 0; j < 2; j++) {
                        const uint32_t a[4] = {upper[u].word[2 * j], lower[u].word[2 * j], upper[u].word[2 * j + 1],
                                               lower[u].word[2 * j + 1]};
                        mma_bf16(sum[b], a, row.word[2 * j], row.word[2 * j + 1]);
                    }
                }
            }
        }
        first += step;
        advance(w_upper, step * 64);
        advance(w_lower, step * 64);
        advance(x, step * kChunk);
        load_weights();
    }

    async_wait<0>();
    __shared__ float row_scale[kBlocks * 8];
    if (kNorms && args.norm.squares != nullptr) {
        gemv_row_scales(args, warp, warps, lane, shared + warps * kSums, row_scale);
    }
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            shared[warp * kSums + (b * 4 + i) * kWarpSize + lane] = sum[b][i];
        }
    }
    __syncthreads();
    const auto finish = [&](int b, const float(&total)[4]) {
        float before[4];
        asked.take(args, b, lane, before);
        gemv_finish(args, asked.outputs(args, lane), tile, b, lane, total, before, row_scale);
    };
    for (int b = warp; b < kBlocks; b += warps) {
        float total[4] = {0, 0, 0, 0};
        for (int from = 0; from < warps; from++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                total[i] += shared[from * kSums + (b * 4 + i) * kWarpSize + lane];
            }
        }
        if (splits == 1) {
            finish(b, total);
        } else {
            float* part = args.partial + (static_cast<size_t>(split) * gridDim.x + static_cast<size_t>(tile)) * kSums;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                part[(b * 4 + i) * kWarpSize + lane] = total[i];
            }
        }
    }
    if (splits == 1) {
        return;
    }
    __shared__ unsigned ticket;
    if (!is_last_block(args.tickets + tile, static_cast<unsigned>(splits), &ticket)) {
        return;
    }
    for (int b = warp; b < kBlocks; b += warps) {
        float total[4] = {0, 0, 0, 0};
        for (int s = 0; s < splits; s++) {
            const float* part = args.partial + (static_cast<size_t>(s) * gridDim.x + static_cast<size_t>(tile)) * kSums;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                total[i] += __ldcg(part + (b * 4 + i) * kWarpSize + lane);
            }
        }
        finish(b, total);
    }
}

}  // namespace llm::engine::cuda
