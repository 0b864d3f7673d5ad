// A row of logits as the sampler reads it: ranks, weights, and what a block finds in it or in its part of it.
//
// Probabilities are fixed-point numbers, weight = exp((logit - maximum) / temperature) * 2^40: their sums do not
// depend on the order of addition, so neither the grid nor the schedule of warps changes a draw. Tokens below
// 2^-40 of the most probable one have weight 0.
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"

namespace llm::engine::cuda {

inline constexpr float kBinsPerNat = 8;

using Wide = unsigned long long;

static_assert(kMaxSampleSplits <= kWarpSize, "no more parts than threads of the smallest block");
static_assert(kDepthBins % kWarpSize == 0);

// Grows with the value; 0 is below everything. No NaN.
__device__ __forceinline__ uint32_t order_of(float value) {
    const uint32_t bits = __float_as_uint(value + 0.0f);  // -0 is 0
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(uint32_t order) {
    return __uint_as_float(order & 0x80000000u ? order & 0x7fffffffu : ~order);
}

// Of equal logits the lower id comes first.
__device__ __forceinline__ Wide rank_of(float value, int token) {
    return static_cast<Wide>(order_of(value)) << 32 | static_cast<uint32_t>(~token);
}
__device__ __forceinline__ int token_of(Wide rank) {
    return static_cast<int>(~static_cast<uint32_t>(rank));
}
__device__ __forceinline__ float logit_of(Wide rank) {
    return value_of(static_cast<uint32_t>(rank >> 32));
}

struct SampleShared {
    Wide wide[33];
    double real[33];
    Wide rank[kGathered];
    unsigned bins[kDepthBins + 1];  // the last: of all that is deeper
    unsigned n;
    unsigned limit;
    unsigned ticket;
    int token;
    float raw;
};

// What all threads of the block know of their row.
struct Row {
    const float* logits;
    const uint32_t* mask;
    int vocab;
    float maximum;
    float scale;  // 1 / temperature
    int split = 0;  // which part each() visits, of `splits`
    int splits = 1;

    __device__ __forceinline__ Row part(int which, int of) const {
        Row out = *this;
        out.split = which;
        out.splits = of;
        return out;
    }
    // What cannot be drawn is minus infinity.
    __device__ __forceinline__ float value(int i) const {
        const bool allowed = mask == nullptr || (mask[i / 32] >> (i % 32) & 1u) != 0;
        return possible(logits[i], allowed);
    }
    __device__ static __forceinline__ float possible(float v, bool allowed) {
        return allowed && v == v ? v : -INFINITY;
    }
    // visit(value(i), i) for four tokens from `first` on, for those `step` further on, and so on below `end`: a multiple of 4, or all;
    // beyond, some of minus infinity. Rows begin on 16 bytes and have room up to a multiple of 4: four loads of 4 logits are under way per
    // thread, whatever `visit` does, which is instructions 16 times over: few multiprocessors work on a row.
    template <typename Visit>
    __device__ __forceinline__ void each_from(int first, int step, int end, const Visit& visit) const {
        constexpr int kLoads = 4;
        for (; first < end; first += kLoads * step) {
            Vec16 four[kLoads];
#pragma unroll
            for (int load = 0; load < kLoads; load++) {
                four[load] = first + load * step < end ? load16(logits + first + load * step) : Vec16{{0, 0, 0, 0}};
            }
            float v[kLoads][4];
            const auto each_of_these = [&](const auto& change) {
#pragma unroll
                for (int load = 0; load < kLoads; load++) {
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        change(v[load][i], first + load * step + i, load, i);
                    }
                }
            };
            // what is not a number, too, becomes minus infinity
            each_of_these([&](float& value, int, int load, int i) { value = fmaxf(__uint_as_float(four[load].word[i]), -INFINITY); });
            if (mask != nullptr) {
                uint32_t allowed[kLoads];
#pragma unroll
                for (int load = 0; load < kLoads; load++) {
                    const int at = first + load * step;
                    allowed[load] = at < end ? mask[at / 32] >> (at % 32) : 0u;
                }
                each_of_these([&](float& value, int, int load, int i) { value = (allowed[load] >> i & 1u) != 0 ? value : -INFINITY; });
            }
            if (first + (kLoads - 1) * step + 4 > end) {
                each_of_these([&](float& value, int at, int, int) { value = at < end ? value : -INFINITY; });
            }
            each_of_these([&](float value, int at, int, int) { visit(value, at); });
        }
    }
    // The same for this thread's part of all tokens. Parts take turns at every 128 tokens: probable ones are not spread evenly over ids.
    template <typename Visit>
    __device__ __forceinline__ void each(const Visit& visit) const {
        const int warp = static_cast<int>(threadIdx.x) / kWarpSize * splits + split;
        each_from((warp * kWarpSize + static_cast<int>(threadIdx.x) % kWarpSize) * 4, static_cast<int>(blockDim.x) * 4 * splits, vocab,
                  visit);
    }
    // Distance from the maximum in bins of the histogram; infinite where nothing can be drawn.
    __device__ __forceinline__ float depth(float v) const { return (maximum - v) * (scale * kBinsPerNat); }
    __device__ __forceinline__ Wide weight(float v) const {
        return static_cast<Wide>(expf((v - maximum) * scale) * 0x1p40f);
    }
};

// The largest rank; 0 if nothing is possible.
__device__ __forceinline__ Wide best_of(const Row& row, SampleShared& shared) {
    float best = -INFINITY;
    int token = 0;
    row.each([&](float v, int i) {
        if (v > best) {  // ids rise: of equal ones the first stays
            best = v;
            token = i;
        }
    });
    return block_reduce(best == -INFINITY ? Wide{0} : rank_of(best, token), Max(), shared.wide);
}

// The largest rank below `limit`; 0 if there is none.
__device__ __forceinline__ Wide best_below(const Row& row, Wide limit, SampleShared& shared) {
    Wide best = 0;
    row.each([&](float v, int i) {
        const Wide rank = v == -INFINITY ? 0 : rank_of(v, i);
        best = rank < limit && rank > best ? rank : best;
    });
    return block_reduce(best, Max(), shared.wide);
}

// The sum of `of` over all values.
template <typename Of>
__device__ __forceinline__ Wide sum_over(const Row& row, const Of& of, SampleShared& shared) {
    Wide sum = 0;
    row.each([&](float v, int) { sum += of(v); });
    return block_reduce(sum, Add(), shared.wide);
}

}  // namespace llm::engine::cuda
