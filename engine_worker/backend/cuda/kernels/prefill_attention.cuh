// Attention of prompts: tensor cores over tiles of 64 query rows and 64 context positions, found through the slot
// table (the scheme of FlashAttention-2, Dao 2023, with m16n8k16 products).
//
// Block (tile, key/value head, split of the context) of 4 warps; the rows of a tile are the query heads of the group for one token after
// another, so a key is loaded once for all of them. Each warp owns 16 rows. Keys and values come by cp.async, the
// next tile while this one is computed. Rows of shared memory are swizzled by 16-byte chunks: chunk c of row r lies at
// c ^ (r % 8), and ldmatrix meets no bank twice. Head dimension 256 takes 32 positions at a time and keeps its queries
// in shared memory, or registers would not do. Where there are few tiles (short ends of long conversations) blocks split the
// context, and the last of those that share a tile joins what they found.
#pragma once

#include "engine_worker/backend/cuda/kernels/decode_attention.cuh"
#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

inline constexpr int kPrefillWarps = 4;

template <int kHead>
struct PrefillShape {
    static constexpr int kKeys = kHead <= 128 ? 64 : 32;  // context positions of one round
    static constexpr bool kQueryInRegisters = kHead <= 128;
    // Queries that stay in shared memory have their own tile; others pass through the second stage's keys.
    static constexpr int kSharedBytes = (4 * kKeys + (kQueryInRegisters ? 0 : kQueryTile)) * kHead * 2;
};

template <int kHead>
__host__ __device__ __forceinline__ int swizzled(int row, int chunk) {
    return row * kHead + (chunk ^ (row & 7)) * 8;
}

// Which rows of a tile a thread copies, and how many chunks of them, of keys and of values.
template <int kHead>
struct TileCopy {
    static constexpr int kChunks = kHead / 8;  // of a row
    static constexpr int kThreads = kPrefillWarps * kWarpSize;
    static constexpr int kEach = PrefillShape<kHead>::kKeys * kChunks / kThreads;  // one of every kRows rows
    static constexpr int kRows = kThreads / kChunks;
    static_assert(kEach * kRows == PrefillShape<kHead>::kKeys, "no thread has fewer");
    __device__ static __forceinline__ int first_row() { return static_cast<int>(threadIdx.x) / kChunks; }
};

// Where the positions are that this thread copies of the tile from position `at` on.
template <int kHead>
__device__ __forceinline__ void load_slots(const int* table, int at, int end, int (&slot)[TileCopy<kHead>::kEach]) {
    using Copy = TileCopy<kHead>;
    const int first = at + Copy::first_row();
#pragma unroll
    for (int i = 0; i < Copy::kEach; i++) {
        slot[i] = first + i * Copy::kRows < end ? table[first + i * Copy::kRows] : 0;
    }
}

// That tile of keys, and of values; zeros from `end` on.
template <int kHead>
__device__ __forceinline__ void copy_kv_tiles(const uint16_t* keys, const uint16_t* values, const int (&slot)[TileCopy<kHead>::kEach],
                                              int at, int end, uint16_t* shared) {
    using Copy = TileCopy<kHead>;
    const int first = Copy::first_row();
    const int chunk = static_cast<int>(threadIdx.x) % Copy::kChunks;
    const int left = end - at - first;
    keys += chunk * 8;
    values += chunk * 8;
#pragma unroll
    for (int i = 0; i < Copy::kEach; i++) {
        constexpr int kAlike = 8;  // rows that are so far apart have their chunks at the same places
        const int row = i * Copy::kRows;
        uint16_t* to = shared + swizzled<kHead>(first + row % kAlike, chunk) + row / kAlike * kAlike * kHead;
        const std::ptrdiff_t from = static_cast<std::ptrdiff_t>(slot[i]) * kHead;
        async_copy16(to, keys + from, row < left);
        async_copy16(to + PrefillShape<kHead>::kKeys * kHead, values + from, row < left);
    }
}

// Leaves what this block found and, in the last block of its tile, takes all splits together: `out` of 4 sums per 8 columns, of
// rows g and g + 8 of the warp's 16, their maxima and totals. False: another block goes on. All threads call.
template <int kHead>
__device__ __forceinline__ bool join_prefill_splits(const PrefillArgs& args, float (&out)[kHead / 8][4], float (&maximum)[2],
                                                    float (&total)[2]) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const size_t tile = static_cast<size_t>(blockIdx.x) * gridDim.y + blockIdx.y;
    // As the threads hold them: [tile][split][warp][8 columns][lane][4], and [tile][split][warp][lane / 4][row][2]
    const auto sums = [&](int split, int n) {
        return args.partial + ((tile * static_cast<size_t>(args.splits) + static_cast<size_t>(split)) * kPrefillWarps +
                               static_cast<size_t>(warp)) * (16 * kHead) +
               (n * kWarpSize + lane) * 4;
    };
    const auto ml = [&](int split) {
        return args.partial_ml + ((tile * static_cast<size_t>(args.splits) + static_cast<size_t>(split)) * kPrefillWarps +
                                  static_cast<size_t>(warp)) * (16 * 2) +
               lane / 4 * 4;
    };
    const int own = static_cast<int>(blockIdx.z);
#pragma unroll
    for (int n = 0; n < kHead / 8; n++) {
        store16_shared_by_blocks(sums(own, n), {{__float_as_uint(out[n][0]), __float_as_uint(out[n][1]),
                                                 __float_as_uint(out[n][2]), __float_as_uint(out[n][3])}});
    }
    if (lane % 4 == 0) {
        store16_shared_by_blocks(ml(own), {{__float_as_uint(maximum[0]), __float_as_uint(total[0]),
                                            __float_as_uint(maximum[1]), __float_as_uint(total[1])}});
    }
    __shared__ unsigned ticket;
    if (!is_last_block(args.tickets + tile, static_cast<unsigned>(args.splits), &ticket)) {
        return false;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        maximum[i] = kLowest;
        total[i] = 0;
    }
    for (int split = 0; split < args.splits; split++) {
        const Vec16 v = load16_shared_by_blocks(ml(split));
#pragma unroll
        for (int i = 0; i < 2; i++) {
            maximum[i] = fmaxf(maximum[i], __uint_as_float(v.word[2 * i]));
        }
    }
#pragma unroll
    for (int n = 0; n < kHead / 8; n++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            out[n][j] = 0;
        }
    }
    for (int split = 0; split < args.splits; split++) {
        const Vec16 v = load16_shared_by_blocks(ml(split));
        float weight[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            weight[i] = exp2_of(__uint_as_float(v.word[2 * i]) - maximum[i]);
            total[i] += weight[i] * __uint_as_float(v.word[2 * i + 1]);
        }
#pragma unroll
        for (int n = 0; n < kHead / 8; n++) {
            const Vec16 found = load16_shared_by_blocks(sums(split, n));
#pragma unroll
            for (int j = 0; j < 4; j++) {
                out[n][j] += weight[j / 2] * __uint_as_float(found.word[j]);
            }
        }
    }
    return true;
}

template <int kHead>
__global__ void __launch_bounds__(kPrefillWarps* kWarpSize) prefill_attention_kernel(PrefillArgs args) {
    using Shape = PrefillShape<kHead>;
    constexpr int kKeys = Shape::kKeys;
    constexpr int kTile = kKeys * kHead;
    const AttentionArgs& a = args.attention;
    begin_launch();
    auto* shared = reinterpret_cast<uint16_t*>(shared_bytes());  // [stage][keys, values][kKeys][kHead] (, queries)
    const PrefillTile tile = args.tiles[blockIdx.x];
    const int kv_head = static_cast<int>(blockIdx.y);
    const int group = a.n_heads / a.n_kv_heads;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int g = lane / 4;
    const int t = lane % 4;

    uint16_t* queries = shared + (Shape::kQueryInRegisters ? 2 : 4) * kTile;
    for (int i = static_cast<int>(threadIdx.x); i < kQueryTile * kHead / 8; i += kPrefillWarps * kWarpSize) {
        const int row = i / (kHead / 8);
        const int chunk = i % (kHead / 8);
        const bool valid = row < tile.rows;
        const int token = tile.first_token + (tile.first_row + (valid ? row : 0)) / group;
        const int head = kv_head * group + (tile.first_row + (valid ? row : 0)) % group;
        const size_t from = (static_cast<size_t>(token) * static_cast<size_t>(a.n_heads) + static_cast<size_t>(head)) *
                            kHead;
        async_copy16(queries + swizzled<kHead>(row, chunk), a.query + from + chunk * 8, valid);
    }
    async_commit();

    const int first_position = a.positions[tile.first_token + tile.first_row / group];
    const int last_position = a.positions[tile.first_token + (tile.first_row + tile.rows - 1) / group];
    int end = last_position + 1;
    int begin = a.window > 0 && first_position >= a.window ? first_position - a.window + 1 : 0;
    begin = begin / kKeys * kKeys;
    int rounds = (end - begin + kKeys - 1) / kKeys;
    if (args.splits > 1) {  // this block's; none is left for some if the tile's context is short
        const int part = (rounds + args.splits - 1) / args.splits;
        begin += static_cast<int>(blockIdx.z) * part * kKeys;
        end = begin + part * kKeys < end ? begin + part * kKeys : end;
        rounds = begin < end ? (end - begin + kKeys - 1) / kKeys : 0;
    }
    const int* table = a.table + static_cast<size_t>(tile.sequence) * static_cast<size_t>(a.table_stride);
    const size_t cache = static_cast<size_t>(kv_head) * static_cast<size_t>(a.kv_slots) * kHead;
    const uint16_t* keys = a.keys + cache;
    const uint16_t* values = a.values + cache;

    // Rows g and g + 8 of this warp's 16.
    int position[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = warp * 16 + g + i * 8;
        position[i] = row < tile.rows ? a.positions[tile.first_token + (tile.first_row + row) / group] : -1;
    }

    // Lane l names row l % 8 (+ 8) of A's four 8 x 8 matrices.
    const int query_row = warp * 16 + lane % 16;
    uint32_t query[Shape::kQueryInRegisters ? kHead / 16 : 1][4];
    async_wait<0>();
    __syncthreads();
    if constexpr (Shape::kQueryInRegisters) {
#pragma unroll
        for (int k = 0; k < kHead / 16; k++) {
            load_matrices(query[k], queries + swizzled<kHead>(query_row, k * 2 + lane / 16));
        }
        __syncthreads();  // the tile is needed for keys
    }

    // Slots are asked for a round before they are needed.
    int slot[TileCopy<kHead>::kEach];
    if (rounds > 0) {
        load_slots<kHead>(table, begin, end, slot);
        copy_kv_tiles<kHead>(keys, values, slot, begin, end, shared);
        async_commit();
        load_slots<kHead>(table, begin + kKeys, end, slot);
    }

    float out[kHead / 8][4];
#pragma unroll
    for (int n = 0; n < kHead / 8; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            out[n][i] = 0;
        }
    }
    float maximum[2] = {kLowest, kLowest};
    float total[2] = {0, 0};
    const float factor = a.scale * kLog2E;

    for (int round = 0; round < rounds; round++) {
        const int at = begin + round * kKeys;
        const uint16_t* key_tile = shared + round % 2 * 2 * kTile;
        const uint16_t* value_tile = key_tile + kTile;
        if (round + 1 < rounds) {
            uint16_t* next = shared + (round + 1) % 2 * 2 * kTile;
            copy_kv_tiles<kHead>(keys, values, slot, at + kKeys, end, next);
            async_commit();
            load_slots<kHead>(table, at + 2 * kKeys, end, slot);
            async_wait<1>();
        } else {
            async_wait<0>();
        }
        __syncthreads();

        float score[kKeys / 8][4];
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score[n][i] = 0;
            }
        }
#pragma unroll
        for (int k = 0; k < kHead / 16; k++) {
            uint32_t q[4];
            if constexpr (Shape::kQueryInRegisters) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    q[i] = query[k][i];
                }
            } else {
                load_matrices(q, queries + swizzled<kHead>(query_row, k * 2 + lane / 16));
            }
#pragma unroll
            for (int n = 0; n < kKeys / 8; n += 2) {
                uint32_t b[4];  // two blocks of 8 keys, each in two halves of k
                const int row = n * 8 + lane / 16 * 8 + lane % 8;
                load_matrices(b, key_tile + swizzled<kHead>(row, k * 2 + lane / 8 % 2));
                mma_bf16(score[n], q, b[0], b[1]);
                mma_bf16(score[n + 1], q, b[2], b[3]);
            }
        }

        const bool masked = at + kKeys - 1 > first_position || tile.rows < kQueryTile ||
                            (a.window > 0 && at <= last_position - a.window);
        float largest[2] = {-INFINITY, -INFINITY};
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (masked) {
                    const int key_position = at + n * 8 + 2 * t + i % 2;
                    const int row_position = position[i / 2];
                    const bool hidden = key_position > row_position ||
                                        (a.window > 0 && key_position <= row_position - a.window);
                    score[n][i] = hidden ? -INFINITY : score[n][i];
                }
                largest[i / 2] = fmaxf(largest[i / 2], score[n][i]);
            }
        }
        bool moved = false;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            largest[i] = fmaxf(largest[i], __shfl_xor_sync(kFullMask, largest[i], 1));
            largest[i] = fmaxf(largest[i], __shfl_xor_sync(kFullMask, largest[i], 2));
            largest[i] = fmaxf(maximum[i], largest[i] * factor);
            moved = moved || largest[i] != maximum[i];
        }
        if (__ballot_sync(kFullMask, moved) != 0) {
#pragma unroll
            for (int i = 0; i < 2; i++) {
                const float correction = exp2_of(maximum[i] - largest[i]);
                maximum[i] = largest[i];
                total[i] *= correction;
#pragma unroll
                for (int n = 0; n < kHead / 8; n++) {
                    out[n][2 * i] *= correction;
                    out[n][2 * i + 1] *= correction;
                }
            }
        }
#pragma unroll
        for (int n = 0; n < kKeys / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score[n][i] = exp2_of(fmaf(score[n][i], factor, -maximum[i / 2]));
                total[i / 2] += score[n][i];
            }
        }
#pragma unroll
        for (int k = 0; k < kKeys / 16; k++) {
            // the sums' layout of two neighbouring blocks is that of A
            const uint32_t p[4] = {pack_bf16(score[2 * k][0], score[2 * k][1]),
                                   pack_bf16(score[2 * k][2], score[2 * k][3]),
                                   pack_bf16(score[2 * k + 1][0], score[2 * k + 1][1]),
                                   pack_bf16(score[2 * k + 1][2], score[2 * k + 1][3])};
#pragma unroll
            for (int n = 0; n < kHead / 8; n += 2) {
                uint32_t b[4];
                const int row = k * 16 + lane % 16;
                load_matrices_transposed(b, value_tile + swizzled<kHead>(row, n + lane / 16));
                mma_bf16(out[n], p, b[0], b[1]);
                mma_bf16(out[n + 1], p, b[2], b[3]);
            }
        }
        __syncthreads();  // all have read this stage before it is filled again
    }

#pragma unroll
    for (int i = 0; i < 2; i++) {
        total[i] += __shfl_xor_sync(kFullMask, total[i], 1);
        total[i] += __shfl_xor_sync(kFullMask, total[i], 2);
    }
    if (args.splits > 1 && !join_prefill_splits<kHead>(args, out, maximum, total)) {
        return;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int row = warp * 16 + g + i * 8;
        if (row >= tile.rows) {
            continue;
        }
        const float inverse = 1.0f / total[i];
        const int token = tile.first_token + (tile.first_row + row) / group;
        const int head = kv_head * group + (tile.first_row + row) % group;
        uint16_t* to = a.out + static_cast<size_t>(token) * static_cast<size_t>(a.out_stride) +
                       static_cast<size_t>(head * a.head_dim);
#pragma unroll
        for (int n = 0; n < kHead / 8; n++) {
            const int d = n * 8 + 2 * t;
            if (d < a.head_dim) {
                store4(to + d, pack_bf16(out[n][2 * i] * inverse, out[n][2 * i + 1] * inverse));
            }
        }
    }
}

}  // namespace llm::engine::cuda
