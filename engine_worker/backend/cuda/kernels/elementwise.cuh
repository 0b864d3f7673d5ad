// Embedding, norms, rotation and cache writes, activation: one pass over their rows each.
//
// Rows of f32 and bf16 are padded to multiples of 64 elements whose padding is zero and stays zero, so that every
// access is 16 bytes wide and no kernel has a tail.
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

// One block per token: hidden = row of the table; rotation = cosines, then sines, of position times frequency.
__global__ void __launch_bounds__(256) embed_kernel(EmbedArgs args) {
    __shared__ float scratch[33];
    begin_launch();
    const auto row = static_cast<size_t>(blockIdx.x);
    int token = args.tokens[row];
    if (token < 0) {  // sampled in the step before and not yet known to the host
        token = args.sampled[-1 - token];
    }
    const uint16_t* from = args.table + static_cast<size_t>(token) * static_cast<size_t>(args.stride);
    float* to = args.hidden + row * static_cast<size_t>(args.stride);
    float squares = 0;
    for (int i = static_cast<int>(threadIdx.x) * 8; i < args.stride; i += static_cast<int>(blockDim.x) * 8) {
        const Vec16 v = load16(from + i);
        alignas(16) float out[8];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            out[2 * j] = bf16_low(v.word[j]);
            out[2 * j + 1] = bf16_high(v.word[j]);
        }
#pragma unroll
        for (int j = 0; j < 2; j++) {
            store16(to + i + 4 * j, *reinterpret_cast<const Vec16*>(out + 4 * j));
        }
        if (args.next.x != nullptr) {
            Vec16 packed;
#pragma unroll
            for (int part = 0; part < 2; part++) {
                const Vec16 w = load16(args.next.weight + i + 4 * part);
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    const float low = out[4 * part + 2 * j];
                    const float high = out[4 * part + 2 * j + 1];
                    squares += low * low + high * high;
                    packed.word[2 * part + j] =
                        pack_bf16(low * __uint_as_float(w.word[2 * j]), high * __uint_as_float(w.word[2 * j + 1]));
                }
            }
            store16(args.next.x + row * static_cast<size_t>(args.stride) + static_cast<size_t>(i), packed);
        }
    }
    if (args.next.x != nullptr) {
        squares = block_reduce(squares, Add(), scratch);
        float* parts = args.next.squares + row * static_cast<size_t>(args.next.parts);
        for (int i = static_cast<int>(threadIdx.x); i < args.next.parts; i += static_cast<int>(blockDim.x)) {
            parts[i] = i == 0 ? squares : 0.0f;
        }
    }
    const int half = args.head_dim / 2;
    float* rotation = args.rotation + row * static_cast<size_t>(args.head_dim);
    for (int i = static_cast<int>(threadIdx.x); i < half; i += static_cast<int>(blockDim.x)) {
        double sine = 0;
        double cosine = 0;
        sincos(args.frequencies[i] * args.positions[row], &sine, &cosine);
        rotation[i] = static_cast<float>(cosine);
        rotation[half + i] = static_cast<float>(sine);
    }
}

// One block per row: out = x / rms(x) * weight, rounded to bf16.
__global__ void __launch_bounds__(256) rms_norm_kernel(NormArgs args) {
    __shared__ float scratch[33];
    begin_launch();
    const auto row = static_cast<size_t>(blockIdx.x);
    const size_t source = args.rows != nullptr ? static_cast<size_t>(args.rows[row]) : row;
    const float* x = args.x + source * static_cast<size_t>(args.stride);
    float squares = 0;
    constexpr int kLoads = 4;  // at once
    const int step = static_cast<int>(blockDim.x) * 4;
    for (int first = static_cast<int>(threadIdx.x) * 4; first < args.stride; first += kLoads * step) {
        Vec16 v[kLoads];
#pragma unroll
        for (int load = 0; load < kLoads; load++) {
            v[load] = first + load * step < args.stride ? load16(x + first + load * step) : Vec16{{0, 0, 0, 0}};
        }
#pragma unroll
        for (int load = 0; load < kLoads; load++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const float value = __uint_as_float(v[load].word[j]);
                squares += value * value;
            }
        }
    }
    squares = block_reduce(squares, Add(), scratch);
    const float scale = rsqrtf(squares / static_cast<float>(args.dim) + args.eps);
    uint16_t* out = args.out + row * static_cast<size_t>(args.stride);
    for (int i = static_cast<int>(threadIdx.x) * 8; i < args.stride; i += static_cast<int>(blockDim.x) * 8) {
        Vec16 packed;
#pragma unroll
        for (int part = 0; part < 2; part++) {
            const Vec16 v = load16(x + i + 4 * part);
            const Vec16 w = load16(args.weight + i + 4 * part);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                packed.word[2 * part + j] =
                    pack_bf16(__uint_as_float(v.word[2 * j]) * scale * __uint_as_float(w.word[2 * j]),
                              __uint_as_float(v.word[2 * j + 1]) * scale * __uint_as_float(w.word[2 * j + 1]));
            }
        }
        store16(out + i, packed);
    }
}

// What each lane of a warp has of a head (or of the rotation, cosines and sines): elements i and i + half, for i = lane, lane + 32, ...
template <int kPairs>
struct HeadPairs {
    float first[kPairs];
    float second[kPairs];
};
template <int kPairs>
__device__ __forceinline__ HeadPairs<kPairs> load_pairs(const float* from, int half, int lane) {
    HeadPairs<kPairs> out;
#pragma unroll
    for (int j = 0; j < kPairs; j++) {
        const int i = j * kWarpSize + lane;
        out.first[j] = i < half ? from[i] : 0.0f;
        out.second[j] = i < half ? from[i + half] : 0.0f;
    }
    return out;
}
// Of heads of q, k and v: head `head` of a token, a head's bias, and their sum; and the token's rotation.
template <int kPairs>
__device__ __forceinline__ HeadPairs<kPairs> load_head(const QkvArgs& args, size_t token, int head, int lane) {
    return load_pairs<kPairs>(args.qkv + token * static_cast<size_t>(args.qkv_stride) + static_cast<size_t>(head * args.head_dim),
                              args.head_dim / 2, lane);
}
template <int kPairs>
__device__ __forceinline__ HeadPairs<kPairs> load_bias(const QkvArgs& args, int head, int lane) {
    return load_pairs<kPairs>(args.bias + head * args.head_dim, args.head_dim / 2, lane);
}
template <int kPairs>
__device__ __forceinline__ void add_pairs(HeadPairs<kPairs>& to, const HeadPairs<kPairs>& bias) {
#pragma unroll
    for (int j = 0; j < kPairs; j++) {
        to.first[j] += bias.first[j];
        to.second[j] += bias.second[j];
    }
}
template <int kPairs>
__device__ __forceinline__ HeadPairs<kPairs> load_rotation(const QkvArgs& args, size_t token, int lane) {
    return load_pairs<kPairs>(args.rotation + token * static_cast<size_t>(args.head_dim), args.head_dim / 2, lane);
}

// One warp: a head with its per-head norm (q and k, if the model has one) and its rotation (q and k), rounded to bf16 into
// out[head_dim_padded].
template <int kPairs>
__device__ __forceinline__ void rotate_head(const QkvArgs& args, int head, int lane, HeadPairs<kPairs> x,
                                            const HeadPairs<kPairs>& rotation, uint16_t* out) {
    const bool is_query = head < args.n_heads;
    const bool is_value = head >= args.n_heads + args.n_kv_heads;
    const int half = args.head_dim / 2;
    const float* norm = is_value ? nullptr : is_query ? args.q_norm : args.k_norm;
    if (norm != nullptr) {
        float squares = 0;
#pragma unroll
        for (int j = 0; j < kPairs; j++) {
            squares += x.first[j] * x.first[j] + x.second[j] * x.second[j];
        }
        const float scale = rsqrtf(warp_sum(squares) / static_cast<float>(args.head_dim) + args.eps);
#pragma unroll
        for (int j = 0; j < kPairs; j++) {
            const int i = j * kWarpSize + lane;
            if (i < half) {
                x.first[j] *= scale * norm[i];
                x.second[j] *= scale * norm[i + half];
            }
        }
    }
#pragma unroll
    for (int j = 0; j < kPairs; j++) {
        const int i = j * kWarpSize + lane;
        if (i < half) {
            float a = x.first[j];
            float b = x.second[j];
            if (!is_value) {
                a = x.first[j] * rotation.first[j] - x.second[j] * rotation.second[j];
                b = x.second[j] * rotation.first[j] + x.first[j] * rotation.second[j];
            }
            out[i] = to_bf16(a);
            out[i + half] = to_bf16(b);
        }
    }
    for (int i = args.head_dim + lane; i < args.head_dim_padded; i += kWarpSize) {
        out[i] = 0;
    }
}

// Where a token's key (or value) is in the cache of one layer.
__device__ __forceinline__ uint16_t* cache_row(const QkvArgs& args, uint16_t* cache, size_t token, int kv_head) {
    return cache + (static_cast<size_t>(kv_head) * static_cast<size_t>(args.kv_slots) +
                    static_cast<size_t>(args.slots[token])) *
                       static_cast<size_t>(args.head_dim_padded);
}

// Grid (tokens, heads / warps per block): one warp per head. k and v go to the cache, q to `query`.
__global__ void __launch_bounds__(256) rotate_and_store_kernel(QkvArgs args, uint16_t* query, int first) {
    begin_launch();
    const auto token = static_cast<size_t>(first) + static_cast<size_t>(blockIdx.x);
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int head = static_cast<int>(blockIdx.y * (blockDim.x / kWarpSize) + threadIdx.x / kWarpSize);
    if (head >= args.n_heads + 2 * args.n_kv_heads) {
        return;
    }
    const int kv_head = (head - args.n_heads) % args.n_kv_heads;
    uint16_t* out = head < args.n_heads
                        ? query + (token * static_cast<size_t>(args.n_heads) + static_cast<size_t>(head)) *
                                      static_cast<size_t>(args.head_dim_padded)
                        : cache_row(args, head < args.n_heads + args.n_kv_heads ? args.keys : args.values, token,
                                    kv_head);
    constexpr int kPairs = kMaxHeadDim / 2 / kWarpSize;
    HeadPairs<kPairs> x = load_head<kPairs>(args, token, head, lane);
    const HeadPairs<kPairs> rotation = load_rotation<kPairs>(args, token, lane);
    if (args.bias != nullptr) {
        add_pairs(x, load_bias<kPairs>(args, head, lane));
    }
    rotate_head(args, head, lane, x, rotation, out);
}

__device__ __forceinline__ float silu_times(float gate, float up) {
    return __fdividef(gate, 1.0f + __expf(-gate)) * up;
}

// Grid (rows, blocks per row): 8 columns of the gate, then 8 of `up` that belong to them, to 8 products.
__global__ void __launch_bounds__(256) silu_multiply_kernel(const uint16_t* in, int in_stride, uint16_t* out,
                                                            int out_stride) {
    begin_launch();
    const auto row = static_cast<size_t>(blockIdx.x);
    const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * 8;
    if (i >= out_stride) {
        return;
    }
    Vec16 product = {{0, 0, 0, 0}};
    if (2 * i < in_stride) {
        const uint16_t* from = in + row * static_cast<size_t>(in_stride) + static_cast<size_t>(2 * i);
        const Vec16 gate = load16(from);
        const Vec16 up = load16(from + 8);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            product.word[j] = pack_bf16(silu_times(bf16_low(gate.word[j]), bf16_low(up.word[j])),
                                        silu_times(bf16_high(gate.word[j]), bf16_high(up.word[j])));
        }
    }
    store16(out + row * static_cast<size_t>(out_stride) + static_cast<size_t>(i), product);
}

// Grid (rows, blocks per row): a bias to each row of y, or onto what is there.
__global__ void __launch_bounds__(256) bias_rows_kernel(const float* bias, float* y, int n, int y_stride, bool add) {
    const int i = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * 4;
    const Vec16 value = i < n ? load16(bias + i) : Vec16{{0, 0, 0, 0}};
    begin_launch();
    if (i >= n) {
        return;
    }
    float* to = y + static_cast<size_t>(blockIdx.x) * static_cast<size_t>(y_stride) + static_cast<size_t>(i);
    Vec16 sum = value;
    if (add) {
        const Vec16 before = load16(to);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            sum.word[j] = __float_as_uint(__uint_as_float(before.word[j]) + __uint_as_float(value.word[j]));
        }
    }
    store16(to, sum);
}

// Weights of one byte to bf16, `scale` of their row included: what large products multiply with.
__global__ void __launch_bounds__(256) expand_e4m3_kernel(const uint8_t* in, const float* scale, int k, uint16_t* out) {
    begin_launch();
    const auto row = static_cast<size_t>(blockIdx.x);
    const float factor = scale[row];
    for (int i = static_cast<int>(threadIdx.x) * 16; i < k; i += static_cast<int>(blockDim.x) * 16) {
        const Vec16 v = load16(in + row * static_cast<size_t>(k) + static_cast<size_t>(i));
        Vec16 wide[2];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            uint32_t a = 0;
            uint32_t b = 0;
            e4m3_to_bf16(v.word[j], a, b);
            wide[j / 2].word[j % 2 * 2] = pack_bf16(bf16_low(a) * factor, bf16_high(a) * factor);
            wide[j / 2].word[j % 2 * 2 + 1] = pack_bf16(bf16_low(b) * factor, bf16_high(b) * factor);
        }
        uint16_t* to = out + row * static_cast<size_t>(k) + static_cast<size_t>(i);
        store16(to, wide[0]);
        store16(to + 8, wide[1]);
    }
}

// One block per range: writes new slots into the device's copy of the slot table.
__global__ void __launch_bounds__(128) update_table_kernel(int* table, const TableRange* ranges, const int* values) {
    begin_launch();
    const TableRange range = ranges[blockIdx.x];
    for (int i = static_cast<int>(threadIdx.x); i < range.count; i += static_cast<int>(blockDim.x)) {
        table[range.target + i] = values[range.source + i];
    }
}

}  // namespace llm::engine::cuda
