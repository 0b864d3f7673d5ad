// Products of more rows than gemv.cuh takes with one-byte weights: weights are read once per 64 rows and widened to bf16 on
// the way to the tensor cores, so that they cost a byte each. (Two-byte weights go to cuBLASLt, which has no product of
// e4m3 with bf16.)
//
// A block computes 128 rows of the matrix for 64 activation rows. Its 4 warps have 32 rows of the matrix each, whose weights
// go straight to registers, one step ahead; the activations, which all warps share, pass through shared memory, two
// steps ahead. As in gemv.cuh, k is taken in the order in which 16 bytes per lane arrive. Where that makes too few blocks
// they share k, and the last of those that share a tile adds the parts in a fixed order.
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/gemv.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

struct GemmShared {
    static constexpr int kStages = 3;
    // Elements of a row: 16 bytes more than a step, so that the rows of lanes that load together are in different banks.
    static constexpr int kStride = kGemmStep + 8;
    static constexpr int kStage = kGemmRows * kStride;
    static constexpr int kBytes = kStages * kStage * static_cast<int>(sizeof(uint16_t));
};

__global__ void __launch_bounds__(kGemmWarps* kWarpSize, 2) gemm_e4m3_kernel(GemvArgs args) {
    constexpr int kTiles = 2;                // of 16 matrix rows, per warp
    constexpr int kChunks = kGemmStep / 64;  // 64 bytes of a matrix row
    constexpr int kBlocks = kGemmRows / 8;   // of 8 activation rows
    constexpr int kThreads = kGemmWarps * kWarpSize;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int g = lane / 4;
    const int t = lane % 4;
    const int split = static_cast<int>(blockIdx.y);
    const int splits = static_cast<int>(gridDim.y);
    const int first_row = static_cast<int>(blockIdx.z) * kGemmRows;
    const int rows = args.rows - first_row < kGemmRows ? args.rows - first_row : kGemmRows;
    const int first_tile = (static_cast<int>(blockIdx.x) * kGemmWarps + warp) * kTiles;
    const auto k = static_cast<size_t>(args.k);

    int low = 0;
    int high = 0;  // of this block's steps
    const int steps = (args.k + kGemmStep - 1) / kGemmStep;
    {
        const int part = (steps + splits - 1) / splits;
        low = split * part < steps ? split * part : steps;
        high = low + part < steps ? low + part : steps;
    }

    const Vec16 zero = {{0, 0, 0, 0}};
    const auto* w = static_cast<const unsigned char*>(args.w) + static_cast<size_t>(first_tile * 16 + g) * k + t * 16;
    const auto load_weights = [&](int step, Vec16 (&to)[kTiles][kChunks][2]) {
#pragma unroll
        for (int i = 0; i < kTiles; i++) {
#pragma unroll
            for (int c = 0; c < kChunks; c++) {
                const int at = step * kGemmStep + c * 64;
                const bool valid = step < high && at < args.k && (first_tile + i) * 16 < args.n;
                const unsigned char* from = w + static_cast<size_t>(i * 16) * k + at;
                to[i][c][0] = valid ? load16_once(from) : zero;
                to[i][c][1] = valid ? load16_once(from + 8 * k) : zero;
            }
        }
    };
    auto* shared = reinterpret_cast<uint16_t*>(shared_bytes());  // [stage][kGemmRows][kStride]
    const uint16_t* x = args.x + static_cast<size_t>(first_row) * k;
    const auto load_rows = [&](int step) {
        uint16_t* to = shared + step % GemmShared::kStages * GemmShared::kStage;
        static_assert(kGemmRows * kGemmStep / 8 % kThreads == 0, "no thread has fewer");
#pragma unroll
        for (int each = 0; each < kGemmRows * kGemmStep / 8 / kThreads; each++) {
            const int i = static_cast<int>(threadIdx.x) + each * kThreads;
            const int row = i / (kGemmStep / 8);
            const int column = i % (kGemmStep / 8) * 8;
            const int at = step * kGemmStep + column;
            const bool valid = step < high && row < rows && at < args.k;
            async_copy16(to + row * GemmShared::kStride + column, valid ? x + static_cast<size_t>(row) * k + at : x,
                         valid);
        }
        async_commit();
    };

    float sum[kTiles][kBlocks][4];
    // visit(sum, its number) for all of this thread's.
    const auto for_each_sum = [&](auto visit) {
#pragma unroll
        for (int i = 0; i < kTiles; i++) {
#pragma unroll
            for (int b = 0; b < kBlocks; b++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    visit(sum[i][b][j], (i * kBlocks + b) * 4 + j);
                }
            }
        }
    };
    const auto clear = [](float& value, int) { value = 0; };
    for_each_sum(clear);
    Vec16 weights[2][kTiles][kChunks][2];
    load_weights(low, weights[0]);
    begin_launch();
    load_rows(low);
    load_rows(low + 1);

    const auto multiply = [&](int step, Vec16 (&now)[kTiles][kChunks][2], Vec16 (&next)[kTiles][kChunks][2]) {
        async_wait<1>();
        __syncthreads();  // this step's rows are there, and nobody reads those of the step before any more
        load_rows(step + 2);
        load_weights(step + 1, next);
        const uint16_t* tile = shared + step % GemmShared::kStages * GemmShared::kStage + g * GemmShared::kStride;
#pragma unroll
        for (int c = 0; c < kChunks; c++) {
            uint32_t a[kTiles][4][4];
#pragma unroll
            for (int i = 0; i < kTiles; i++) {
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    e4m3_to_bf16(now[i][c][0].word[j], a[i][j][0], a[i][j][2]);
                    e4m3_to_bf16(now[i][c][1].word[j], a[i][j][1], a[i][j][3]);
                }
            }
#pragma unroll
            for (int b = 0; b < kBlocks; b++) {
                if (b * 8 >= rows) {
                    break;
                }
                const uint16_t* from = tile + b * 8 * GemmShared::kStride + c * 64 + t * 16;
                const Vec16 half[2] = {load16(from), load16(from + 8)};
#pragma unroll
                for (int j = 0; j < 4; j++) {
#pragma unroll
                    for (int i = 0; i < kTiles; i++) {
                        mma_bf16(sum[i][b], a[i][j], half[j / 2].word[j % 2 * 2], half[j / 2].word[j % 2 * 2 + 1]);
                    }
                }
            }
        }
    };
    for (int step = low; step < high; step += 2) {
        multiply(step, weights[0], weights[1]);
        if (step + 1 < high) {
            multiply(step + 1, weights[1], weights[0]);
        }
    }
    async_wait<0>();

    GemvArgs block = args;
    block.rows = rows;
    const size_t offset = static_cast<size_t>(first_row) * static_cast<size_t>(args.y_stride);
    block.y = args.epilogue == GemvEpilogue::kSwiglu ? static_cast<void*>(static_cast<uint16_t*>(args.y) + offset)
                                                     : static_cast<float*>(args.y) + offset;
    if (splits > 1) {
        // [split][row tile][column tile][warp, tile, block, sum][lane]
        constexpr size_t kSums = static_cast<size_t>(kGemmWarps * kTiles * kBlocks * 4 * kWarpSize);
        const size_t tiles = static_cast<size_t>(gridDim.z) * gridDim.x;
        const size_t tile = static_cast<size_t>(blockIdx.z) * gridDim.x + blockIdx.x;
        const auto part = [&](int s) {
            return args.partial + (static_cast<size_t>(s) * tiles + tile) * kSums +
                   static_cast<size_t>(warp * kTiles * kBlocks * 4 * kWarpSize + lane);
        };
        for_each_sum([mine = part(split)](float& value, int i) { mine[i * kWarpSize] = value; });
        __shared__ unsigned ticket;
        if (!is_last_block(args.tickets + tile, static_cast<unsigned>(splits), &ticket)) {
            return;
        }
        for_each_sum(clear);
        for (int s = 0; s < splits; s++) {
            for_each_sum([from = part(s)](float& value, int i) { value += __ldcg(from + i * kWarpSize); });
        }
    }
#pragma unroll
    for (int i = 0; i < kTiles; i++) {
        if ((first_tile + i) * 16 < args.n) {
#pragma unroll
            for (int b = 0; b < kBlocks; b++) {
                gemv_finish(block, first_tile + i, b, lane, sum[i][b], nullptr);
            }
        }
    }
}

}  // namespace llm::engine::cuda
