// Products of more rows than gemv.cuh takes, and few enough that reading the weights still is what takes the time, or launches do: the
// weights are read from memory once, from the second-level cache once per 64 rows. One-byte weights are widened to bf16 on the way to
// the tensor cores, so that they cost a byte each.
//
// A block computes 128 rows of the matrix for 32 or 64 activation rows. Both operands pass through shared memory, several steps
// ahead: enough under way that one block per multiprocessor keeps memory busy. Each of 4 warps has 32 rows of the matrix; with
// 64 rows of two-byte weights there can be 4 more for the upper half (one-byte weights cost too much to widen twice). Where that
// makes too few blocks they share k, and the last of those that share a tile adds the parts in a fixed order.
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/gemv.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

// What is read to finish a tile's sums is asked for before any is written: after a store the compiler puts no load of what may be
// the same memory, and each would be waited for alone.
__device__ __forceinline__ GemvOutputs gemm_outputs(const GemvArgs& args, int tile, int lane) {
    GemvOutputs out;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const int n = tile * kGemvTile + half * 8 + lane / 4;
        out.scale[half] = args.scale != nullptr ? args.scale[n] : 1.0f;
        out.bias[half] = args.bias != nullptr ? args.bias[n] : 0.0f;
        out.weight[half] = args.next.x != nullptr ? args.next.weight[n] : 0.0f;
    }
    return out;
}
// What each of the four sums that gemv_finish() takes is added to.
__device__ __forceinline__ void gemm_before(const GemvArgs& args, int tile, int block, int lane, float (&before)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        before[i] = 0;
    }
    if (args.epilogue == GemvEpilogue::kAdd) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int row = block * 8 + lane % 4 * 2 + i;
            const float* y = static_cast<const float*>(args.y) + row * args.y_stride + tile * kGemvTile + lane / 4;
            before[i] = row < args.rows ? y[0] : 0.0f;
            before[i + 2] = row < args.rows ? y[8] : 0.0f;
        }
    }
}

// How a block is made: activation rows of a warp in blocks of 8, and how many times 4 warps share the rows.
template <int kBlocks, int kRowWarps, bool kE4m3>
struct GemmTile {
    static constexpr int kRows = kBlocks * 8 * kRowWarps;
    static constexpr int kThreads = kGemmColumnWarps * kRowWarps * kWarpSize;
    static constexpr int kElements = kGemmStepBytes / (kE4m3 ? 1 : 2);  // of k in a step
    static constexpr int kWeightBytes = kGemmOutputs * kGemmStepBytes;  // of a step
    static constexpr int kRowBytes = kElements * 2;                     // of an activation row in a step
    static constexpr int kStageBytes = kWeightBytes + kRows * kRowBytes;
    static constexpr int kMostShared = 96 << 10;  // of a block: what every GPU has, and two per multiprocessor of the large ones
    static constexpr int kStages = kMostShared / kStageBytes < 4 ? kMostShared / kStageBytes : 4;
    static constexpr int kSharedBytes = kStages * kStageBytes;
    static_assert(kStages >= 3, "two steps under way while one is multiplied");
};

// Grid (activation rows, splits, matrix rows): neighbours multiply the same weights, which are read from memory once for all of them.
// Registers: two blocks and, where 4 warps have all the rows, room for one of the next launch.
template <int kBlocks, int kRowWarps, bool kE4m3>
__global__ void __launch_bounds__(GemmTile<kBlocks, kRowWarps, kE4m3>::kThreads, kRowWarps == 1 ? 3 : 2) gemm_kernel(GemvArgs args) {
    using Tile = GemmTile<kBlocks, kRowWarps, kE4m3>;
    constexpr int kTiles = 2;                            // of 16 matrix rows, per warp
    constexpr int kVectors = kGemmStepBytes / 16;        // 16 bytes each: of a matrix row in a step
    constexpr int kRowVectors = Tile::kRowBytes / 16;    // of an activation row
    constexpr size_t kWeightSize = kE4m3 ? 1 : 2;
    const int thread = static_cast<int>(threadIdx.x);
    const int lane = thread % kWarpSize;
    const int warp = thread / kWarpSize;
    const int column_warp = warp % kGemmColumnWarps;
    const int row_warp = warp / kGemmColumnWarps;
    const int g = lane / 4;
    const int t = lane % 4;
    const int split = static_cast<int>(blockIdx.y);
    const int splits = static_cast<int>(gridDim.y);
    const int first_row = static_cast<int>(blockIdx.x) * Tile::kRows;
    const int rows = args.rows - first_row < Tile::kRows ? args.rows - first_row : Tile::kRows;
    const int first_output = static_cast<int>(blockIdx.z) * kGemmOutputs;
    const size_t matrix_row = static_cast<size_t>(args.k) * kWeightSize;  // bytes

    int low = 0;
    int high = 0;  // of this block's steps
    {
        const int steps = (args.k + Tile::kElements - 1) / Tile::kElements;
        const int part = (steps + splits - 1) / splits;
        low = split * part < steps ? split * part : steps;
        high = low + part < steps ? low + part : steps;
    }

    // Bytes from a stage's start. Vectors of a row change places so that lanes that read together find different banks: those of
    // 8 rows' same vector (fragments by ldmatrix), or of 2 rows' same 64 bytes (each lane 16 bytes, see below).
    const auto weight_place = [](int row, int vector) {
        return row * kGemmStepBytes + (vector ^ (kE4m3 ? row % 2 * 4 : row % 8)) * 16;
    };
    const auto row_place = [](int row, int vector) {
        return Tile::kWeightBytes + row * Tile::kRowBytes + (vector ^ row % (kE4m3 ? 2 : 8)) * 16;
    };
    const auto stage_of = [](int index) { return shared_bytes() + index * Tile::kStageBytes; };

    // What this thread copies in a step. Rows beyond the last are the last again; their sums are not used.
    constexpr int kWeightCopies = kGemmOutputs * kVectors / Tile::kThreads;
    constexpr int kRowCopies = Tile::kRows * kRowVectors / Tile::kThreads;
    constexpr int kWeightRows = Tile::kThreads / kVectors;  // at a time
    constexpr int kRowRows = Tile::kThreads / kRowVectors;
    static_assert(kWeightRows * kWeightCopies == kGemmOutputs && kRowRows * kRowCopies == Tile::kRows, "all threads alike");
    static_assert(kWeightRows % 8 == 0 && kRowRows % (kE4m3 ? 2 : 8) == 0, "a vector has its place in all rows of a thread");
    const int weight_to = weight_place(thread / kVectors, thread % kVectors);
    const int row_to = row_place(thread / kRowVectors, thread % kRowVectors);
    const unsigned char* weight_from[kWeightCopies];
    const uint16_t* row_from[kRowCopies];
    int weight_at = low * kGemmStepBytes + thread % kVectors * 16;  // in a row of the matrix
    int row_at = low * Tile::kElements + thread % kRowVectors * 8;
    const auto at_most = [](int value, int most) { return value < most ? value : most; };
#pragma unroll
    for (int i = 0; i < kWeightCopies; i++) {
        const int row = at_most(first_output + i * kWeightRows + thread / kVectors, args.n - 1);
        weight_from[i] = static_cast<const unsigned char*>(args.w) + static_cast<size_t>(row) * matrix_row + weight_at;
    }
#pragma unroll
    for (int i = 0; i < kRowCopies; i++) {
        const int row = at_most(first_row + i * kRowRows + thread / kRowVectors, args.rows - 1);
        row_from[i] = args.x + static_cast<size_t>(row) * static_cast<size_t>(args.k) + row_at;
    }
    // Steps are asked for one after the other; those from `high` on are empty.
    const auto load_weights = [&](int step, int stage) {
        const bool valid = step < high && weight_at < static_cast<int>(matrix_row);
#pragma unroll
        for (int i = 0; i < kWeightCopies; i++) {
            async_copy16(stage_of(stage) + weight_to + i * kWeightRows * kGemmStepBytes, weight_from[i], valid);
            advance(weight_from[i], kGemmStepBytes);
        }
        weight_at += kGemmStepBytes;
    };
    const auto load_rows = [&](int step, int stage) {
        const bool valid = step < high && row_at < args.k;
#pragma unroll
        for (int i = 0; i < kRowCopies; i++) {
            async_copy16(stage_of(stage) + row_to + i * kRowRows * Tile::kRowBytes, row_from[i], valid);
            advance(row_from[i], Tile::kElements);
        }
        row_at += Tile::kElements;
    };

    float sum[kTiles][kBlocks][4];
    // visit(4 sums, number of their tile, of their block of 8 rows) for all of this thread's that are needed.
    const auto for_each_sum = [&](auto visit) {
#pragma unroll
        for (int i = 0; i < kTiles; i++) {
#pragma unroll
            for (int b = 0; b < kBlocks; b++) {
                if ((row_warp * kBlocks + b) * 8 < rows) {
                    visit(sum[i][b], i, b);
                }
            }
        }
    };
    const auto clear = [](float(&four)[4], int, int) {
#pragma unroll
        for (float& value : four) {
            value = 0;
        }
    };
#pragma unroll
    for (int i = 0; i < kTiles; i++) {
#pragma unroll
        for (int b = 0; b < kBlocks; b++) {
            clear(sum[i][b], i, b);
        }
    }

    constexpr int kAhead = Tile::kStages - 1;
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
        load_weights(low + i, i);
    }
    begin_launch();
#pragma unroll
    for (int i = 0; i < kAhead; i++) {
        load_rows(low + i, i);
        async_commit();
    }
    // Two-byte weights: the rows whose addresses this lane gives to ldmatrix. One-byte weights: each lane reads 16 bytes of a row, and
    // the activations that belong to them, as in gemv.cuh: k is taken in the order in which they arrive.
    const int my_weights = weight_place(column_warp * kTiles * 16 + (kE4m3 ? g : lane % 16), kE4m3 ? t : lane / 16);
    const int my_row = row_place(row_warp * kBlocks * 8 + (kE4m3 ? g : lane % 8), kE4m3 ? t * 2 : lane / 8);
    int stage = 0;
    for (int step = low; step < high; step++) {
        async_wait<kAhead - 1>();
        __syncthreads();  // this step is there, and nobody reads the one before it any more
        const int free_stage = stage == 0 ? Tile::kStages - 1 : stage - 1;
        load_weights(step + kAhead, free_stage);
        load_rows(step + kAhead, free_stage);
        async_commit();
        const unsigned char* from = stage_of(stage);
        stage = stage == Tile::kStages - 1 ? 0 : stage + 1;
#pragma unroll
        for (int c = 0; c < 2; c++) {  // halves of the step
            constexpr int kFragments = kE4m3 ? 4 : 2;  // of 16 of k
            uint32_t a[kTiles][kFragments][4];
#pragma unroll
            for (int i = 0; i < kTiles; i++) {
                if constexpr (kE4m3) {
                    const unsigned char* at = from + (my_weights ^ c * 64) + i * 16 * kGemmStepBytes;
                    const Vec16 upper = load16(at);
                    const Vec16 lower = load16(at + 8 * kGemmStepBytes);
#pragma unroll
                    for (int j = 0; j < kFragments; j++) {
                        e4m3_to_bf16(upper.word[j], a[i][j][0], a[i][j][2]);
                        e4m3_to_bf16(lower.word[j], a[i][j][1], a[i][j][3]);
                    }
                } else {
#pragma unroll
                    for (int j = 0; j < kFragments; j++) {
                        load_matrices(a[i][j], from + (my_weights ^ (c * 2 + j) * 32) + i * 16 * kGemmStepBytes);
                    }
                }
            }
#pragma unroll
            for (int b = 0; b < kBlocks; b++) {
                if (kBlocks == 8 && b > 0 && b % 2 == 0 && b * 8 >= rows) {
                    break;  // arithmetic may cost as much as memory here; with fewer rows it is free
                }
                uint32_t x[kFragments / 2][4];
#pragma unroll
                for (int half = 0; half < kFragments / 2; half++) {
                    const unsigned char* at = from + b * 8 * Tile::kRowBytes;
                    if constexpr (kE4m3) {
                        const Vec16 v = load16(at + (my_row ^ half * 16) + c * 128);
#pragma unroll
                        for (int j = 0; j < 4; j++) {
                            x[half][j] = v.word[j];
                        }
                    } else {
                        load_matrices(x[half], at + (my_row ^ c * 64));
                    }
                }
#pragma unroll
                for (int j = 0; j < kFragments; j++) {
#pragma unroll
                    for (int i = 0; i < kTiles; i++) {
                        mma_bf16(sum[i][b], a[i][j], x[j / 2][j % 2 * 2], x[j / 2][j % 2 * 2 + 1]);
                    }
                }
            }
        }
    }
    async_wait<0>();

    GemvArgs block = args;
    block.rows = rows;
    block.norm = {};
    block.next = {};
    if constexpr (!kE4m3) {
        block.scale = nullptr;
    }
    const size_t offset = static_cast<size_t>(first_row) * static_cast<size_t>(args.y_stride);
    block.y = args.epilogue == GemvEpilogue::kSwiglu ? static_cast<void*>(static_cast<uint16_t*>(args.y) + offset)
                                                     : static_cast<float*>(args.y) + offset;
    const int first_tile = first_output / kGemvTile + column_warp * kTiles;
    const auto exists = [&](int i) { return (first_tile + i) * kGemvTile < args.n; };
    GemvOutputs outputs[kTiles];
    float before[kTiles][kBlocks][4];
    // Asks for what finishing some of the sums needs, see above.
    const auto ask = [&](int tile, int first, int blocks) {
        if (first == 0 && exists(tile)) {
            outputs[tile] = gemm_outputs(block, first_tile + tile, lane);
        }
        for_each_sum([&](const float(&)[4], int i, int b) {
            if (i == tile && b >= first && b < first + blocks && exists(i)) {
                gemm_before(block, first_tile + i, row_warp * kBlocks + b, lane, before[i][b]);
            }
        });
    };
    // [split][column tile][row tile][warp][tile, block][lane][4]
    constexpr int kWarpSums = kTiles * kBlocks * kWarpSize * 4;
    constexpr size_t kBlockSums = static_cast<size_t>(kGemmOutputs) * Tile::kRows;
    static_assert(kWarpSums * Tile::kThreads / kWarpSize == kGemmOutputs * Tile::kRows, "every sum of the block, once");
    const size_t tiles = static_cast<size_t>(gridDim.z) * gridDim.x;
    const size_t tile_number = static_cast<size_t>(blockIdx.z) * gridDim.x + blockIdx.x;
    const auto part = [&](int s, int i, int b) {
        return args.partial + (static_cast<size_t>(s) * tiles + tile_number) * kBlockSums +
               static_cast<size_t>(warp * kWarpSums + ((i * kBlocks + b) * kWarpSize + lane) * 4);
    };
    if (splits > 1) {
        for_each_sum([&](const float(&four)[4], int i, int b) {
            Vec16 v;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                v.word[j] = __float_as_uint(four[j]);
            }
            store16(part(split, i, b), v);
        });
        __shared__ unsigned ticket;
        if (!is_last_block(args.tickets + tile_number, static_cast<unsigned>(splits), &ticket)) {
            return;
        }
    }
    // With registers for it, all is waited for once, else a group at a time.
    constexpr bool kAtOnce = Tile::kThreads == 128 && kBlocks == 4;
    constexpr int kGroup = 4;
    static_assert(kBlocks % kGroup == 0, "groups alike");
    if constexpr (kAtOnce) {
#pragma unroll
        for (int i = 0; i < kTiles; i++) {
            ask(i, 0, kBlocks);
        }
    }
    if (splits > 1) {
        for_each_sum(clear);
        const auto add = [](float(&four)[4], const Vec16& v) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                four[j] += __uint_as_float(v.word[j]);
            }
        };
        if constexpr (kAtOnce) {  // two splits
            for (int s = 0; s < splits; s += 2) {
                Vec16 parts[2][kTiles][kBlocks];
                for_each_sum([&](const float(&)[4], int i, int b) { parts[0][i][b] = load16_shared_by_blocks(part(s, i, b)); });
                if (s + 1 < splits) {
                    for_each_sum([&](const float(&)[4], int i, int b) { parts[1][i][b] = load16_shared_by_blocks(part(s + 1, i, b)); });
                }
                for_each_sum([&](float(&four)[4], int i, int b) { add(four, parts[0][i][b]); });
                if (s + 1 < splits) {
                    for_each_sum([&](float(&four)[4], int i, int b) { add(four, parts[1][i][b]); });
                }
            }
        } else {
            const float* from = part(0, 0, 0);
            for (int s = 0; s < splits; s++) {
                for_each_sum([&](float(&four)[4], int i, int b) {
                    add(four, load16_shared_by_blocks(from + (i * kBlocks + b) * kWarpSize * 4));
                });
                from += tiles * kBlockSums;
            }
        }
    }

#pragma unroll
    for (int tile = 0; tile < kTiles; tile++) {
#pragma unroll
        for (int first = 0; first < kBlocks; first += kGroup) {
            if constexpr (!kAtOnce) {
                auto* y = static_cast<unsigned char*>(block.y);
                advance(y, 0);  // what groups have in common is computed again: it would take registers
                block.y = y;
                ask(tile, first, kGroup);
            }
            for_each_sum([&](const float(&four)[4], int i, int b) {
                if (i == tile && b >= first && b < first + kGroup && exists(i)) {
                    gemv_finish(block, outputs[i], first_tile + i, row_warp * kBlocks + b, lane, four, before[i][b], nullptr);
                }
            });
        }
    }
}

}  // namespace llm::engine::cuda
