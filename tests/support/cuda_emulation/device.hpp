// CUDA's keywords and built-in functions for kernels that run as fibers (emulation.hpp).
#pragma once

#include <cuda_runtime_api.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "engine_worker/model/dtype.hpp"
#include "tests/support/cuda_emulation/emulation.hpp"
#include "tests/support/cuda_emulation/runtime.hpp"

#define __global__ inline
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Blocks run one after the other on one thread.
#define __shared__ static thread_local

#define threadIdx ::llm::emulation::thread_index
#define blockIdx ::llm::emulation::block_index
#define blockDim ::llm::emulation::block_size
#define gridDim ::llm::emulation::grid_size

namespace llm::engine::cuda {

inline void __syncthreads() {
    llm::emulation::sync_block();
}
inline void __syncwarp(uint32_t mask = 0xffffffffu) {
    const int nothing = 0;
    llm::emulation::exchange(llm::emulation::kSyncWarp, mask, &nothing, sizeof nothing);
}

template <typename T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
    const auto* all = llm::emulation::exchange(2, mask, &value, sizeof value);
    T out;
    std::memcpy(&out, all[llm::emulation::lane() ^ lanes].bytes, sizeof out);
    return out;
}
template <typename T>
T __shfl_sync(uint32_t mask, T value, int lane) {
    const auto* all = llm::emulation::exchange(3, mask, &value, sizeof value);
    T out;
    std::memcpy(&out, all[lane & 31].bytes, sizeof out);
    return out;
}
template <typename T>
T __shfl_up_sync(uint32_t mask, T value, unsigned distance) {
    const auto* all = llm::emulation::exchange(4, mask, &value, sizeof value);
    const int from = llm::emulation::lane() - static_cast<int>(distance);
    T out = value;
    if (from >= 0) {
        std::memcpy(&out, all[from].bytes, sizeof out);
    }
    return out;
}

inline unsigned __ballot_sync(uint32_t mask, bool predicate) {
    const int mine = predicate ? 1 : 0;
    const auto* all = llm::emulation::exchange(7, mask, &mine, sizeof mine);
    unsigned out = 0;
    for (int i = 0; i < 32; i++) {
        int value = 0;
        std::memcpy(&value, all[i].bytes, sizeof value);
        out |= (mask >> i & 1u) != 0 && value != 0 ? 1u << i : 0u;
    }
    return out;
}
inline int __ffs(int bits) {
    return __builtin_ffs(bits);
}
template <typename T>
T __ldcg(const T* address) {
    return *address;
}

template <typename T>
T atomicAdd(T* address, T value) {
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}

inline float __uint_as_float(uint32_t bits) {
    return std::bit_cast<float>(bits);
}
inline uint32_t __float_as_uint(float value) {
    return std::bit_cast<uint32_t>(value);
}
inline float rsqrtf(float x) {
    return 1.0f / std::sqrt(x);
}
inline float __expf(float x) {
    return std::exp(x);
}
inline float __fdividef(float x, float y) {
    return x / y;
}
inline void sincos(double x, double* sine, double* cosine) {
    *sine = std::sin(x);
    *cosine = std::cos(x);
}
using std::exp;
using ::expf;
using ::fmaxf;
using std::max;
using std::min;

inline uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) {
        out |= static_cast<uint32_t>(bytes >> (selector >> (4 * i) & 7) * 8 & 0xff) << (8 * i);
    }
    return out;
}

inline uint32_t emulated_pack_bf16(float low, float high) {
    return f32_to_bf16(low) | static_cast<uint32_t>(f32_to_bf16(high)) << 16;
}

// The fragments' layout as the PTX manual draws it.
inline void emulated_mma(float (&sum)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const auto* all = llm::emulation::exchange(5, 0xffffffffu, mine, sizeof mine);
    const int g = llm::emulation::lane() / 4;
    const int t = llm::emulation::lane() % 4;
    const auto element = [&](int lane, int word, int half) {
        uint32_t value;
        std::memcpy(&value, all[lane].bytes + word * 4, 4);
        return bf16_to_f32(static_cast<uint16_t>(half != 0 ? value >> 16 : value));
    };
    for (int i = 0; i < 4; i++) {
        const int column = 2 * t + i % 2;
        for (int k = 0; k < 16; k++) {
            const int quarter = k % 8 / 2;
            const float left = element(4 * g + quarter, (k < 8 ? 0 : 2) + i / 2, k % 2);
            const float right = element(4 * column + quarter, 4 + (k < 8 ? 0 : 1), k % 2);
            sum[i] += left * right;
        }
    }
}

inline void emulated_load_matrices(uint32_t (&out)[4], const void* row, bool transposed) {
    llm::emulation::require_aligned(row, 16);
    const auto* all = llm::emulation::exchange(6, 0xffffffffu, &row, sizeof row);
    const int g = llm::emulation::lane() / 4;
    const int t = llm::emulation::lane() % 4;
    for (int matrix = 0; matrix < 4; matrix++) {
        const auto element = [&](int r, int column) {
            const uint16_t* from;
            std::memcpy(&from, all[matrix * 8 + r].bytes, sizeof from);
            return static_cast<uint32_t>(from[column]);
        };
        out[matrix] = transposed ? element(2 * t, g) | element(2 * t + 1, g) << 16
                                 : element(g, 2 * t) | element(g, 2 * t + 1) << 16;
    }
}

}  // namespace llm::engine::cuda
