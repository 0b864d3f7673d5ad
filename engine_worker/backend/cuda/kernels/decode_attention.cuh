// Attention of sequences that have one new token each: bound by reading their keys and values once. The new token's
// rotation, and writing its keys and values to the cache, happens here, too: its block has them at hand.
//
// Block (split, part of a key/value head's group, sequence): up to 8 query heads share every load. A warp takes 16
// positions at a time and multiplies with tensor cores:
//   scores (heads x positions) = queries (heads x d) * keys. Any order of d gives the same sum, so both sides use the order
//     in which 16 contiguous bytes per lane arrive, as products of few rows do (gemv.cuh). The heads are 8 of the 16 rows of
//     A; the other 8 are them again with the other half of d. So a load is two operands B as it is: were keys A, registers would have
//     to be copied, and nvcc does that, waiting, before it asks for the last of them;
//   out (columns x heads) += values (columns x positions) * probabilities, as B just as the scores came. Two positions'
//     values are interleaved on the way (they are pairs of A).
// Each warp keeps its own running maximum and sums (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018); they are merged at the end of the block and, where a context is split, by the last of its blocks
// (flash-decoding).
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/elementwise.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

inline constexpr int kDecodeWarps = 4;
inline constexpr int kDecodeKeys = 16;  // positions that a warp takes at a time
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLowest = -1e30f;  // of a maximum: minus infinity would make NaN of a difference

static_assert(kMaxSplits <= kWarpSize, "one lane per split");

// Shared memory of a block: the token's rotated heads, key and value; each warp's sums and [maximum, sum].
struct DecodeShared {
    __device__ DecodeShared(int heads, int width)
        : rotated(reinterpret_cast<uint16_t*>(shared_bytes())),
          sums(reinterpret_cast<float*>(rotated + (heads + 2) * width)),
          running(sums + kDecodeWarps * heads * stride(width)) {}
    static constexpr size_t bytes(int heads, int width) {
        return static_cast<size_t>((heads + 2) * width) * sizeof(uint16_t) +
               static_cast<size_t>(kDecodeWarps * heads * (stride(width) + 2)) * sizeof(float);
    }
    __host__ __device__ static constexpr int stride(int width) { return width + 4; }
    // Where a warp's sums of a head begin. Heads 0, 2, 4 and 6 are written at once: they lie 16 bytes apart in the banks.
    __device__ float* sums_of(int warp, int heads, int head, int width) const {
        return sums + (warp * heads + head % 2 * ((heads + 1) / 2) + head / 2) * stride(width);
    }
    uint16_t* rotated;  // [heads + 2][width]
    float* sums;        // [warps][even heads, odd heads][stride]; when joining splits: factors [heads][splits]
    float* running;     // [warps][heads][2]
};

// What a warp has seen of a context. Of lane 4g + t: columns 64 c + 8 g + 2 i of head 2t are in out[4 c + i][0], those of 2t + 1
// in [1]; columns + 1 in [2] and [3].
template <int kHead>
struct DecodeState {
    Vec16 query[kHead / 32];  // of head g, words 0, 2, 1 and 3: rows g and g + 8 of A
    float out[kHead / 16][4];
    float maximum;  // of head g
    float total;    // of head g, of this lane's positions
};

// The probabilities of 16 positions, as the product with the values wants them: pairs of positions 2t, 2t + 1 and 2t + 8,
// 2t + 9 of head g. `key`: positions g and g + 8; the first `seen` count.
template <int kHead>
__device__ __forceinline__ void decode_scores(DecodeState<kHead>& state, const Vec16 (&key)[2][kHead / 32], int seen, float factor,
                                              int lane, uint32_t (&probabilities)[2]) {
    const int t = lane % 4;
    float p[2][2];
    float largest = state.maximum;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float half[2][4] = {{0, 0, 0, 0}, {0, 0, 0, 0}};  // of d: the first in row g, the second in row g + 8
#pragma unroll
        for (int c = 0; c < kHead / 32; c++) {
#pragma unroll
            for (int j = 0; j < 2; j++) {
                mma_bf16(half[j], state.query[c].word, key[i][c].word[2 * j], key[i][c].word[2 * j + 1]);
            }
        }
#pragma unroll
        for (int k = 0; k < 2; k++) {
            p[i][k] = 8 * i + 2 * t + k < seen ? (half[0][k] + half[1][2 + k]) * factor : kLowest;
            largest = fmaxf(largest, p[i][k]);
        }
    }
    largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
    largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
    if (__ballot_sync(kFullMask, largest != state.maximum) != 0) {
        const float correction = exp2_of(state.maximum - largest);
        state.maximum = largest;
        state.total *= correction;
        const float of_out[2] = {__shfl_sync(kFullMask, correction, t * 8), __shfl_sync(kFullMask, correction, t * 8 + 4)};
#pragma unroll
        for (int n = 0; n < kHead / 16; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                state.out[n][i] *= of_out[i % 2];
            }
        }
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int k = 0; k < 2; k++) {
            p[i][k] = 8 * i + 2 * t + k < seen ? exp2_of(p[i][k] - largest) : 0.0f;
            state.total += p[i][k];
        }
        probabilities[i] = pack_bf16(p[i][0], p[i][1]);
    }
}

// `value`: positions 2t, 2t + 1, 2t + 8 and 2t + 9.
template <int kHead>
__device__ __forceinline__ void decode_mix(DecodeState<kHead>& state, const Vec16 (&value)[4][kHead / 64],
                                           const uint32_t (&probabilities)[2]) {
#pragma unroll
    for (int c = 0; c < kHead / 64; c++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t v[4] = {value[0][c].word[i], value[1][c].word[i], value[2][c].word[i], value[3][c].word[i]};
            const uint32_t a[4] = {__byte_perm(v[0], v[1], 0x5410), __byte_perm(v[0], v[1], 0x7632),
                                   __byte_perm(v[2], v[3], 0x5410), __byte_perm(v[2], v[3], 0x7632)};
            mma_bf16(state.out[c * 4 + i], a, probabilities[0], probabilities[1]);
        }
    }
}

// Four columns of one head: to the output, as they are.
__device__ __forceinline__ void decode_store(const AttentionArgs& a, int sequence, int head, int column,
                                             const float (&value)[4]) {
    uint16_t* out = a.out + static_cast<size_t>(sequence) * static_cast<size_t>(a.out_stride) +
                    static_cast<size_t>(head * a.head_dim + column);
    const uint32_t pairs[2] = {pack_bf16(value[0], value[1]), pack_bf16(value[2], value[3])};
    if (a.head_dim % 4 == 0) {
        if (column < a.head_dim) {
            store8(out, pairs[0], pairs[1]);
        }
        return;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (column + 2 * i < a.head_dim) {
            store4(out + 2 * i, pairs[i]);
        }
    }
}

// Blocks per multiprocessor that there are registers for; plan_splits() counts on three.
template <int kHead>
__global__ void __launch_bounds__(kDecodeWarps * kWarpSize, kHead == 64 ? 4 : kHead == 128 ? 3 : 2)
    decode_attention_kernel(DecodeArgs args) {
    const AttentionArgs& a = args.attention;
    constexpr int kThreads = kDecodeWarps * kWarpSize;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int g = lane / 4;
    const int t = lane % 4;
    const int split = static_cast<int>(blockIdx.x);
    const int sequence = static_cast<int>(blockIdx.z);
    const int group = a.n_heads / a.n_kv_heads;
    const int parts = head_parts(group);
    const int part = static_cast<int>(blockIdx.y) % parts;
    const int kv_head = static_cast<int>(blockIdx.y) / parts;
    const int first_head = kv_head * group + part * kMaxGroup;
    const int most = group < kMaxGroup ? group : kMaxGroup;  // of any block
    const int heads = part + 1 < parts ? kMaxGroup : group - part * kMaxGroup;
    const DecodeShared shared(most, kHead);

    // Positions before the new one that this block, then this warp, reads.
    const int position = a.positions[sequence];
    const int begin = a.window > 0 && position + 1 > a.window ? position + 1 - a.window : 0;
    int low = 0;
    int high = 0;
    split_range(begin, position, split, args.splits, low, high);
    const size_t base = static_cast<size_t>(kv_head) * static_cast<size_t>(a.kv_slots);
    const int* table = a.table + static_cast<size_t>(sequence) * static_cast<size_t>(a.table_stride);
    const Vec16 zero = {{0, 0, 0, 0}};
    constexpr bool kTogether = kHead <= 128;  // registers for a round's keys and values at once
    Vec16 key[2][kHead / 32] = {};
    Vec16 value[4][kHead / 64] = {};
    int at = low + warp * kDecodeKeys;
    // Of this lane's position. Those from `high` on are the last again: what is read of them is not used, and nothing is asked before it is read.
    const auto slot_of = [&](int from) {
        const int wanted = from + lane % kDecodeKeys;
        return table[wanted < high ? wanted : high > 0 ? high - 1 : 0];
    };
    int slot = slot_of(at);
    const uint16_t* keys = a.keys + base * kHead + static_cast<size_t>(t * 8);
    const uint16_t* values = a.values + base * kHead + static_cast<size_t>(g * 8);
    const auto row = [&](const uint16_t* cache, int i) {
        return cache + static_cast<std::ptrdiff_t>(__shfl_sync(kFullMask, slot, i)) * kHead;
    };
    const auto load_keys = [&](bool wanted) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint16_t* from = row(keys, g + 8 * i);
#pragma unroll
            for (int c = 0; c < kHead / 32; c++) {
                load16_once_if(wanted, from + c * 32, key[i][c]);
            }
        }
    };
    const auto load_values = [&](bool wanted) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint16_t* from = row(values, 2 * t + i % 2 + i / 2 * 8);
#pragma unroll
            for (int c = 0; c < kHead / 64; c++) {
                load16_once_if(wanted, from + c * 64, value[i][c]);
            }
        }
    };
    const auto load = [&](bool wanted) {
        load_keys(wanted);
        if constexpr (kTogether) {
            load_values(wanted);
        }
    };
    // The first keys are under way while the launch before this one ends: they are of steps before.
    load(at < high);
    begin_launch();

    // All that this warp rotates is asked for at once, so that it is waited for once.
    constexpr int kPairs = kHead / 2 / kWarpSize;
    constexpr int kMine = (kMaxGroup + 2 + kDecodeWarps - 1) / kDecodeWarps;
    const auto head_at = [&](int i) { return i < heads ? first_head + i : a.n_heads + (i - heads) * a.n_kv_heads + kv_head; };
    const HeadPairs<kPairs> rotation = load_rotation<kPairs>(args.token, static_cast<size_t>(sequence), lane);
    HeadPairs<kPairs> mine[kMine];
#pragma unroll
    for (int round = 0; round < kMine; round++) {
        const int i = warp + round * kDecodeWarps;
        if (i < heads + 2) {
            mine[round] = load_head<kPairs>(args.token, static_cast<size_t>(sequence), head_at(i), lane);
        }
    }
    if (args.token.bias != nullptr) {
        HeadPairs<kPairs> bias[kMine];
#pragma unroll
        for (int round = 0; round < kMine; round++) {
            const int i = warp + round * kDecodeWarps;
            bias[round] = i < heads + 2 ? load_bias<kPairs>(args.token, head_at(i), lane) : HeadPairs<kPairs>{};
        }
#pragma unroll
        for (int round = 0; round < kMine; round++) {
            if (warp + round * kDecodeWarps < heads + 2) {
                add_pairs(mine[round], bias[round]);
            }
        }
    }
#pragma unroll
    for (int round = 0; round < kMine; round++) {
        const int i = warp + round * kDecodeWarps;
        if (i < heads + 2) {
            rotate_head(args.token, head_at(i), lane, mine[round], rotation, shared.rotated + i * kHead);
        }
    }
    __syncthreads();
    const uint16_t* new_key = shared.rotated + heads * kHead;
    const uint16_t* new_value = new_key + kHead;
    if (split == 0 && part == 0 && static_cast<int>(threadIdx.x) < 2 * kHead / 8) {
        const int column = static_cast<int>(threadIdx.x) * 8 % kHead;
        const bool is_key = static_cast<int>(threadIdx.x) < kHead / 8;
        store16(cache_row(args.token, is_key ? args.token.keys : args.token.values, static_cast<size_t>(sequence),
                          kv_head) + column,
                load16((is_key ? new_key : new_value) + column));
    }

    DecodeState<kHead> state;
    const float factor = a.scale * kLog2E;
#pragma unroll
    for (int c = 0; c < kHead / 32; c++) {
        const Vec16 v = g < heads ? load16(shared.rotated + g * kHead + c * 32 + t * 8) : zero;
        state.query[c] = {{v.word[0], v.word[2], v.word[1], v.word[3]}};
    }
#pragma unroll
    for (int n = 0; n < kHead / 16; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            state.out[n][i] = 0;
        }
    }
    state.maximum = kLowest;
    state.total = 0;

    uint32_t probabilities[2];
    while (at < high) {
        const int next = slot_of(at + kDecodeWarps * kDecodeKeys);
        decode_scores<kHead>(state, key, high - at, factor, lane, probabilities);
        if constexpr (!kTogether) {
            load_values(true);
        }
        decode_mix<kHead>(state, value, probabilities);
        at += kDecodeWarps * kDecodeKeys;
        slot = next;
        load(at < high);
    }
    if (split == 0 && warp == kDecodeWarps - 1) {  // the new token, as the first of 16
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int c = 0; c < kHead / 32; c++) {
                key[i][c] = i == 0 && g == 0 ? load16(new_key + c * 32 + t * 8) : zero;
            }
        }
        decode_scores<kHead>(state, key, 1, factor, lane, probabilities);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int c = 0; c < kHead / 64; c++) {
                value[i][c] = i == 0 && t == 0 ? load16(new_value + c * 64 + g * 8) : zero;
            }
        }
        decode_mix<kHead>(state, value, probabilities);
    }

    state.total += __shfl_xor_sync(kFullMask, state.total, 1);
    state.total += __shfl_xor_sync(kFullMask, state.total, 2);
    if (t == 0 && g < heads) {
        shared.running[(warp * most + g) * 2] = state.maximum;
        shared.running[(warp * most + g) * 2 + 1] = state.total;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int head = 2 * t + i;
        if (head < heads) {
            float* to = shared.sums_of(warp, most, head, kHead);
#pragma unroll
            for (int n = 0; n < kHead / 16; n += 2) {
                store16_to_shared(to + n / 4 * 64 + g * 8 + n % 4 * 2,
                                  {{__float_as_uint(state.out[n][i]), __float_as_uint(state.out[n][i + 2]),
                                    __float_as_uint(state.out[n + 1][i]), __float_as_uint(state.out[n + 1][i + 2])}});
            }
        }
    }
    __syncthreads();

    // Within the block; four columns per thread.
    const size_t first_part = (static_cast<size_t>(sequence) * static_cast<size_t>(a.n_heads) +
                               static_cast<size_t>(first_head)) * static_cast<size_t>(args.splits);
    for (int i = static_cast<int>(threadIdx.x) * 4; i < heads * kHead; i += kThreads * 4) {
        const int head = i / kHead;
        const int column = i % kHead;
        float largest = kLowest;
        for (int w = 0; w < kDecodeWarps; w++) {
            largest = fmaxf(largest, shared.running[(w * most + head) * 2]);
        }
        float mixed[4] = {0, 0, 0, 0};
        float sum = 0;
        for (int w = 0; w < kDecodeWarps; w++) {
            const float weight = exp2_of(shared.running[(w * most + head) * 2] - largest);
            const Vec16 v = load16(shared.sums_of(w, most, head, kHead) + column);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                mixed[j] += weight * __uint_as_float(v.word[j]);
            }
            sum += weight * shared.running[(w * most + head) * 2 + 1];
        }
        if (args.splits == 1) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                mixed[j] /= sum;
            }
            decode_store(a, sequence, first_head + head, column, mixed);
        } else {
            const size_t to = first_part + static_cast<size_t>(head * args.splits + split);
            store16_shared_by_blocks(args.partial + to * static_cast<size_t>(kHead) + static_cast<size_t>(column),
                                     {{__float_as_uint(mixed[0]), __float_as_uint(mixed[1]), __float_as_uint(mixed[2]),
                                       __float_as_uint(mixed[3])}});
            if (column == 0) {
                args.partial_ml[to * 2] = largest;
                args.partial_ml[to * 2 + 1] = sum;
            }
        }
    }
    if (args.splits == 1) {
        return;
    }

    // The last block of these heads joins the splits. One that had nothing to read has sum 0 and the lowest maximum.
    __shared__ unsigned ticket;
    if (!is_last_block(args.tickets + static_cast<size_t>(sequence) * gridDim.y + blockIdx.y,
                       static_cast<unsigned>(args.splits), &ticket)) {
        return;
    }
    float* factors = shared.sums;
    for (int head = warp; head < heads; head += kDecodeWarps) {
        const float* ml = args.partial_ml + (first_part + static_cast<size_t>(head * args.splits + lane)) * 2;
        const float maximum = lane < args.splits ? __ldcg(ml) : kLowest;
        float largest = maximum;
        for (int distance = 1; distance < kWarpSize; distance *= 2) {
            largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, distance));
        }
        const float weight = lane < args.splits ? exp2_of(maximum - largest) : 0.0f;
        const float sum = warp_sum(lane < args.splits ? weight * __ldcg(ml + 1) : 0.0f);
        if (lane < args.splits) {
            factors[head * args.splits + lane] = weight / sum;
        }
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x) * 4; i < heads * kHead; i += kThreads * 4) {
        const int head = i / kHead;
        const int column = i % kHead;
        const float* from = args.partial +
                            (first_part + static_cast<size_t>(head * args.splits)) * static_cast<size_t>(kHead) +
                            static_cast<size_t>(column);
        float mixed[4] = {0, 0, 0, 0};
#pragma unroll 8
        for (int s = 0; s < args.splits; s++) {
            const Vec16 v = load16_shared_by_blocks(from + s * kHead);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                mixed[j] += factors[head * args.splits + s] * __uint_as_float(v.word[j]);
            }
        }
        decode_store(a, sequence, first_head + head, column, mixed);
    }
}

}  // namespace llm::engine::cuda
