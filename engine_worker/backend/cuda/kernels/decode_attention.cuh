// Attention of sequences that have one new token each: bound by reading their keys and values once.
//
// Block (split, key/value head, sequence): up to kGroup query heads share every load. A warp reads whole keys,
// 16 bytes per lane: head_dim_padded / 8 lanes per position, so 4, 2 or 1 positions at a time, 4 times in a row
// before the first is used. Each group of lanes keeps its own running maximum and sums (Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018); they are merged at the end, in the warp, then in the block, then,
// if the context is split, by a second kernel (flash-decoding).
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

inline constexpr int kDecodeWarps = 4;
inline constexpr int kDecodeUnroll = 4;
inline constexpr float kLog2E = 1.4426950408889634f;
inline constexpr float kLowest = -1e30f;  // of a maximum: minus infinity would make NaN of a difference

__device__ __forceinline__ void unpack8(const Vec16& v, float (&out)[8]) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
        out[2 * j] = bf16_low(v.word[j]);
        out[2 * j + 1] = bf16_high(v.word[j]);
    }
}

// Shared: kDecodeWarps * kGroup * (head_dim_padded + 2) floats.
template <int kGroup>
__global__ void __launch_bounds__(kDecodeWarps * kWarpSize) decode_attention_kernel(DecodeArgs args) {
    const AttentionArgs& a = args.attention;
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int split = static_cast<int>(blockIdx.x);
    const int sequence = static_cast<int>(blockIdx.z);
    const int group = a.n_heads / a.n_kv_heads;
    const int parts = (group + kGroup - 1) / kGroup;
    const int kv_head = static_cast<int>(blockIdx.y) / parts;
    const int first_head = kv_head * group + static_cast<int>(blockIdx.y) % parts * kGroup;
    const int rest = (kv_head + 1) * group - first_head;
    const int heads = rest < kGroup ? rest : kGroup;

    const int lanes = a.head_dim_padded / 8;  // per position
    const int at_once = kWarpSize / lanes;
    const int sub = lane / lanes;
    const int column = lane % lanes * 8;
    const int end = a.positions[sequence] + 1;
    const int begin = a.window > 0 && end > a.window ? end - a.window : 0;
    int low = 0;
    int high = 0;
    split_range(begin, end, split, args.splits, low, high);

    float query[kGroup][8];
    float maximum[kGroup];
    float total[kGroup];
    float out[kGroup][8];
    const Vec16 zero = {{0, 0, 0, 0}};
#pragma unroll
    for (int g = 0; g < kGroup; g++) {
        const size_t row = static_cast<size_t>(sequence) * static_cast<size_t>(a.n_heads) +
                           static_cast<size_t>(first_head + g);
        unpack8(g < heads ? load16(a.query + row * static_cast<size_t>(a.head_dim_padded) + column) : zero, query[g]);
        maximum[g] = kLowest;
        total[g] = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            query[g][i] *= a.scale * kLog2E;
            out[g][i] = 0;
        }
    }

    const size_t base = static_cast<size_t>(kv_head) * static_cast<size_t>(a.kv_slots);
    const int* table = a.table + static_cast<size_t>(sequence) * static_cast<size_t>(a.table_stride);
    const int run = at_once * kDecodeUnroll;
    for (int at = low + warp * run; at < high; at += kDecodeWarps * run) {
        Vec16 key[kDecodeUnroll];
        Vec16 value[kDecodeUnroll];
#pragma unroll
        for (int u = 0; u < kDecodeUnroll; u++) {
            const int position = at + u * at_once + sub;
            key[u] = zero;
            value[u] = zero;
            if (position < high) {
                const size_t offset = (base + static_cast<size_t>(table[position])) *
                                          static_cast<size_t>(a.head_dim_padded) +
                                      static_cast<size_t>(column);
                key[u] = load16_once(a.keys + offset);
                value[u] = load16_once(a.values + offset);
            }
        }
        float score[kGroup][kDecodeUnroll];
#pragma unroll
        for (int u = 0; u < kDecodeUnroll; u++) {
            float k[8];
            unpack8(key[u], k);
            const bool valid = at + u * at_once + sub < high;
#pragma unroll
            for (int g = 0; g < kGroup; g++) {
                float dot = 0;
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    dot += query[g][i] * k[i];
                }
                for (int offset = lanes / 2; offset > 0; offset /= 2) {
                    dot += __shfl_xor_sync(kFullMask, dot, offset);
                }
                score[g][u] = valid ? dot : kLowest;
            }
        }
#pragma unroll
        for (int g = 0; g < kGroup; g++) {
            float largest = maximum[g];
#pragma unroll
            for (int u = 0; u < kDecodeUnroll; u++) {
                largest = fmaxf(largest, score[g][u]);
            }
            const float correction = exp2f(maximum[g] - largest);
            maximum[g] = largest;
            total[g] *= correction;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                out[g][i] *= correction;
            }
#pragma unroll
            for (int u = 0; u < kDecodeUnroll; u++) {
                // a missing position has score kLowest, like the maximum of lanes that have seen nothing yet
                score[g][u] = at + u * at_once + sub < high ? exp2f(score[g][u] - largest) : 0.0f;
                total[g] += score[g][u];
            }
        }
#pragma unroll
        for (int u = 0; u < kDecodeUnroll; u++) {
            float v[8];
            unpack8(value[u], v);
#pragma unroll
            for (int g = 0; g < kGroup; g++) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    out[g][i] += score[g][u] * v[i];
                }
            }
        }
    }

    // Within the warp: lanes of the same columns.
#pragma unroll
    for (int g = 0; g < kGroup; g++) {
        for (int offset = lanes; offset < kWarpSize; offset *= 2) {
            const float other = __shfl_xor_sync(kFullMask, maximum[g], offset);
            const float largest = fmaxf(maximum[g], other);
            const float correction = exp2f(maximum[g] - largest);
            maximum[g] = largest;
            total[g] *= correction;
            total[g] += __shfl_xor_sync(kFullMask, total[g], offset);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                out[g][i] *= correction;
                out[g][i] += __shfl_xor_sync(kFullMask, out[g][i], offset);
            }
        }
    }
    // Within the block.
    const int width = a.head_dim_padded;
    auto* sums = reinterpret_cast<float*>(shared_bytes());        // [warps][kGroup][width]
    float* running = sums + kDecodeWarps * kGroup * width;        // [warps][kGroup][2]
#pragma unroll
    for (int g = 0; g < kGroup; g++) {
        if (lane < lanes) {
            float* to = sums + (warp * kGroup + g) * width + column;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                to[i] = out[g][i];
            }
        }
        if (lane == 0) {
            running[(warp * kGroup + g) * 2] = maximum[g];
            running[(warp * kGroup + g) * 2 + 1] = total[g];
        }
    }
    __syncthreads();
    for (int i = static_cast<int>(threadIdx.x); i < heads * width; i += kDecodeWarps * kWarpSize) {
        const int g = i / width;
        const int d = i % width;
        float largest = kLowest;
        for (int w = 0; w < kDecodeWarps; w++) {
            largest = fmaxf(largest, running[(w * kGroup + g) * 2]);
        }
        float mixed = 0;
        float sum = 0;
        for (int w = 0; w < kDecodeWarps; w++) {
            const float factor = exp2f(running[(w * kGroup + g) * 2] - largest);
            mixed += factor * sums[(w * kGroup + g) * width + d];
            sum += factor * running[(w * kGroup + g) * 2 + 1];
        }
        const int head = first_head + g;
        if (args.splits == 1) {
            if (d < a.head_dim) {
                a.out[static_cast<size_t>(sequence) * static_cast<size_t>(a.out_stride) +
                      static_cast<size_t>(head * a.head_dim + d)] = to_bf16(mixed / sum);
            }
        } else {
            const size_t part = (static_cast<size_t>(sequence) * static_cast<size_t>(a.n_heads) +
                                 static_cast<size_t>(head)) * static_cast<size_t>(args.splits) +
                                static_cast<size_t>(split);
            args.partial[part * static_cast<size_t>(width) + static_cast<size_t>(d)] = mixed;
            if (d == 0) {
                args.partial_ml[part * 2] = largest;
                args.partial_ml[part * 2 + 1] = sum;
            }
        }
    }
}

// Grid (heads, sequences): joins the splits. A split that had nothing to read has sum 0 and the lowest maximum.
__global__ void __launch_bounds__(128) decode_combine_kernel(DecodeArgs args) {
    const AttentionArgs& a = args.attention;
    const auto head = static_cast<size_t>(blockIdx.x);
    const auto sequence = static_cast<size_t>(blockIdx.y);
    const size_t first = (sequence * static_cast<size_t>(a.n_heads) + head) * static_cast<size_t>(args.splits);
    float largest = kLowest;
    for (int s = 0; s < args.splits; s++) {
        largest = fmaxf(largest, args.partial_ml[(first + static_cast<size_t>(s)) * 2]);
    }
    for (int d = static_cast<int>(threadIdx.x); d < a.head_dim; d += static_cast<int>(blockDim.x)) {
        float mixed = 0;
        float sum = 0;
        for (int s = 0; s < args.splits; s++) {
            const size_t part = first + static_cast<size_t>(s);
            const float factor = exp2f(args.partial_ml[part * 2] - largest);
            mixed += factor * args.partial[part * static_cast<size_t>(a.head_dim_padded) + static_cast<size_t>(d)];
            sum += factor * args.partial_ml[part * 2 + 1];
        }
        a.out[sequence * static_cast<size_t>(a.out_stride) + head * static_cast<size_t>(a.head_dim) +
              static_cast<size_t>(d)] = to_bf16(mixed / sum);
    }
}

}  // namespace llm::engine::cuda
