// The draw of a token from a row whose maximum is known.
//
// With top_k, top_p or min_p the draw walks tokens by falling probability. A histogram of their distance from the
// maximum finds a few hundred best ones, which are gathered and ordered in shared memory. Where the filters may
// reach beyond the 2048 that fit there (a nearly flat distribution), bisection over the logits finds the same token in
// some 100 passes instead.
#pragma once

#include "engine_worker/backend/cuda/kernels/sample_row.cuh"

namespace llm::engine::cuda {

__device__ __forceinline__ Wide warp_inclusive_sum(Wide value, int lane) {
    for (int offset = 1; offset < kWarpSize; offset *= 2) {
        const Wide lower = __shfl_up_sync(kFullMask, value, static_cast<unsigned>(offset));
        value += lane >= offset ? lower : 0;
    }
    return value;
}

struct Span {
    int begin, end;
    Wide target;  // below the sum of the span's weights
};

// Of the tokens [begin, end), cut into `runs` of whole multiples of a warp's width, the one of number `which`; the last may be empty.
__device__ __forceinline__ Span run_of(int begin, int end, int runs, int which) {
    const int run = ((end - begin + runs - 1) / runs + kWarpSize - 1) / kWarpSize * kWarpSize;
    const int from = begin + which * run;
    return {from < end ? from : end, from + run < end ? from + run : end, 0};
}

// That of these runs, whose sums are shared.wide[0, runs), in which the sum of all before exceeds target_of(the sum of all).
template <typename TargetOf>
__device__ __forceinline__ Span choose_run(int begin, int end, int runs, const TargetOf& target_of, SampleShared& shared) {
    __syncthreads();
    Wide total = 0;
    for (int i = 0; i < runs; i++) {
        total += shared.wide[i];
    }
    Wide target = target_of(total);
    int chosen = 0;
    while (chosen + 1 < runs && target >= shared.wide[chosen]) {
        target -= shared.wide[chosen++];
    }
    __syncthreads();
    Span span = run_of(begin, end, runs, chosen);
    span.target = target;
    return span;
}

// Of the tokens [begin, end), cut into one run per warp, the run in which the sum of `of` over the values, in order of ids, exceeds
// target_of(their sum).
template <typename Of, typename TargetOf>
__device__ __forceinline__ Span narrow(const Row& row, int begin, int end, const Of& of, const TargetOf& target_of, SampleShared& shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    const Span mine = run_of(begin, end, warps, warp);
    Wide sum = 0;
    row.each_from(mine.begin + lane * 4, kWarpSize * 4, mine.end, [&](float v, int) { sum += of(v); });
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kFullMask, sum, offset);
    }
    if (lane == 0) {
        shared.wide[warp] = sum;
    }
    return choose_run(begin, end, warps, target_of, shared);
}

// The same of a span that was found before.
template <typename Of>
__device__ __forceinline__ Span narrow(const Row& row, const Span& span, const Of& of, SampleShared& shared) {
    return narrow(row, span.begin, span.end, of, [&](Wide) { return span.target; }, shared);
}

// The first token of `wide`, in order of ids, at which the sum of `of` over its values exceeds its target.
template <typename Of>
__device__ __forceinline__ int find_in(const Row& row, const Span& wide, const Of& of, SampleShared& shared) {
    const Span span = narrow(row, wide, of, shared);
    if (threadIdx.x < kWarpSize) {
        const int lane = static_cast<int>(threadIdx.x);
        Wide before = 0;
        for (int i = span.begin; i < span.end; i += kWarpSize) {
            const Wide mine = i + lane < span.end ? of(row.value(i + lane)) : 0;
            const Wide upto = before + warp_inclusive_sum(mine, lane);
            const unsigned crossed = __ballot_sync(kFullMask, span.target < upto);
            if (crossed != 0) {
                if (lane == __ffs(static_cast<int>(crossed)) - 1) {
                    shared.token = i + lane;
                }
                break;
            }
            before = __shfl_sync(kFullMask, upto, kWarpSize - 1);
        }
    }
    __syncthreads();
    const int token = shared.token;
    __syncthreads();
    return token;
}

// The first token in order of ids at which the sum of `of` over the values exceeds target_of(the sum of all), which must be below it.
template <typename Of, typename TargetOf>
__device__ __forceinline__ int find_by_id(const Row& row, const Of& of, const TargetOf& target_of, SampleShared& shared) {
    return find_in(row, narrow(row, 0, row.vocab, of, target_of, shared), of, shared);
}

// The mass below which the draw falls, of `total`.
__device__ __forceinline__ Wide part_of(double share, Wide total) {
    const auto part = static_cast<Wide>(share * static_cast<double>(total));
    return part < total ? part : total - 1;
}
// Least mass that top_p asks for, at least 1.
__device__ __forceinline__ Wide mass_of(float top_p, Wide total) {
    const auto part = static_cast<Wide>(ceil(static_cast<double>(top_p) * static_cast<double>(total)));
    return part < 1 ? 1 : part > total ? total : part;
}

// By bisection over all logits: the least order (of those above `above`) such that the weights of tokens from it on
// sum to more than `target`.
template <typename Weight>
__device__ __forceinline__ uint32_t bisect(const Row& row, Wide target, const Weight& weight, SampleShared& shared) {
    uint32_t low = 0;  // sum(low) > target
    uint32_t high = order_of(row.maximum) + 1;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        const Wide sum = sum_over(
            row, [&](float v) { return v != -INFINITY && order_of(v) >= middle ? weight(v) : Wide{0}; }, shared);
        (sum > target ? low : high) = middle;
    }
    return low;
}

// The same draw as draw_gathered() for any distribution.
__device__ __forceinline__ int draw_by_bisection(const Row& row, const SampleRow& params, SampleShared& shared) {
    uint32_t cut = 0;    // tokens of a greater order are kept, and of this one the first `ties`
    Wide ties = 0;
    const auto count_above = [&](uint32_t order, bool mass) {
        return sum_over(
            row,
            [&](float v) {
                return v != -INFINITY && order_of(v) > order ? (mass ? row.weight(v) : Wide{1}) : Wide{0};
            },
            shared);
    };
    if (params.top_k > 0 && params.top_k < row.vocab) {
        const Wide k = static_cast<Wide>(params.top_k);
        const Wide all = count_above(0, false);
        if (all > k) {
            cut = bisect(row, k - 1, [](float) { return Wide{1}; }, shared);
            ties = k - count_above(cut, false);
        }
    }
    if (params.top_p < 1) {
        const Wide tied = cut != 0 ? ties * row.weight(value_of(cut)) : 0;
        const Wide mass = mass_of(params.top_p, count_above(cut, true) + tied);
        const uint32_t order = bisect(row, mass - 1, [&](float v) { return row.weight(v); }, shared);
        const Wide one = row.weight(value_of(order));
        const Wide needed = mass - count_above(order, true);
        if (one > 0) {
            cut = order;
            ties = (needed + one - 1) / one;
        }
    }
    // Weights fall with the order, so min_p cuts a tail off as well.
    const auto eligible = [&](float v) {
        return expf((v - row.maximum) * row.scale) >= params.min_p ? row.weight(v) : Wide{0};
    };
    const Wide above = sum_over(
        row, [&](float v) { return v != -INFINITY && order_of(v) > cut ? eligible(v) : Wide{0}; }, shared);
    const Wide total = above + (cut != 0 ? ties * eligible(value_of(cut)) : 0);
    const Wide target = part_of(params.uniform, total);
    const uint32_t order = bisect(row, target, eligible, shared);
    const float drawn = value_of(order);
    const Wide before = sum_over(
        row, [&](float v) { return v != -INFINITY && order_of(v) > order ? eligible(v) : Wide{0}; }, shared);
    const Wide index = (target - before) / eligible(drawn);
    return find_by_id(
        row, [&](float v) { return v != -INFINITY && order_of(v) == order ? Wide{1} : Wide{0}; }, [&](Wide) { return index; }, shared);
}

// Orders shared.rank[0, n) from the greatest down; the rest up to the next power of two is overwritten.
__device__ __forceinline__ void sort_gathered(unsigned n, SampleShared& shared) {
    unsigned size = 2;
    while (size < n) {
        size *= 2;
    }
    for (unsigned i = n + threadIdx.x; i < size; i += blockDim.x) {
        shared.rank[i] = 0;
    }
    __syncthreads();
    for (unsigned width = 2; width <= size; width *= 2) {
        for (unsigned distance = width / 2; distance > 0; distance /= 2) {
            for (unsigned i = threadIdx.x; i < size / 2; i += blockDim.x) {
                const unsigned a = i / distance * 2 * distance + i % distance;
                const unsigned b = a + distance;
                const Wide first = shared.rank[a];
                const Wide second = shared.rank[b];
                if ((first < second) == ((a & width) == 0)) {
                    shared.rank[a] = second;
                    shared.rank[b] = first;
                }
            }
            __syncthreads();
        }
    }
}

// By one warp: index of the first of the n best at which the sum of weights exceeds `target`, n if none; `sum`
// becomes the sum up to there.
__device__ __forceinline__ unsigned walk_gathered(const Row& row, unsigned n, Wide target, Wide& sum,
                                                  const SampleShared& shared, int lane) {
    Wide before = 0;
    for (unsigned first = 0; first < n; first += kWarpSize) {
        const unsigned i = first + static_cast<unsigned>(lane);
        const Wide mine = i < n ? row.weight(logit_of(shared.rank[i])) : 0;
        const Wide upto = before + warp_inclusive_sum(mine, lane);
        const unsigned crossed = __ballot_sync(kFullMask, i < n && target < upto);
        if (crossed != 0) {
            const int at = __ffs(static_cast<int>(crossed)) - 1;
            sum = __shfl_sync(kFullMask, upto, at);
            return first + static_cast<unsigned>(at);
        }
        before = __shfl_sync(kFullMask, upto, kWarpSize - 1);
    }
    sum = before;
    return n;
}

// Counts the row's tokens by their depth in shared.bins. Returns the sum of their weights.
__device__ __forceinline__ Wide count_depths(const Row& row, SampleShared& shared) {
    for (int i = static_cast<int>(threadIdx.x); i <= kDepthBins; i += static_cast<int>(blockDim.x)) {
        shared.bins[i] = 0;
    }
    __syncthreads();
    Wide sum = 0;
    // Without a branch: this is done for every token.
    row.each([&](float v, int) {
        atomicAdd(&shared.bins[static_cast<int>(fminf(row.depth(v), kDepthBins))], 1u);
        sum += row.weight(v);
    });
    return block_reduce(sum, Add(), shared.wide);
}

// Up to which depth shared.bins counts no more than `most` tokens.
__device__ __forceinline__ unsigned depth_limit(unsigned most, SampleShared& shared) {
    if (threadIdx.x < kWarpSize) {
        constexpr int kOwn = kDepthBins / kWarpSize;
        const int lane = static_cast<int>(threadIdx.x);
        Wide upto = 0;
        for (int i = 0; i < kOwn; i++) {
            upto += shared.bins[lane * kOwn + i];
        }
        upto = warp_inclusive_sum(upto, lane);
        unsigned limit = 0;
        for (int i = kOwn - 1; i >= 0; i--) {
            limit += upto <= most ? 1 : 0;
            upto -= shared.bins[lane * kOwn + i];
        }
        for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
            limit += __shfl_xor_sync(kFullMask, limit, offset);
        }
        if (lane == 0) {
            shared.limit = limit;
        }
    }
    __syncthreads();
    return shared.limit;
}

// The row's tokens of less depth than `limit`, kGathered at most, in shared.rank, in no order. Returns their number.
__device__ __forceinline__ unsigned gather(const Row& row, unsigned limit, SampleShared& shared) {
    if (threadIdx.x == 0) {
        shared.n = 0;
    }
    __syncthreads();
    row.each([&](float v, int i) {
        if (row.depth(v) < static_cast<float>(limit)) {
            shared.rank[atomicAdd(&shared.n, 1u)] = rank_of(v, i);
        }
    });
    __syncthreads();
    return shared.n;
}

// The draw among the n best, all those of less depth than `limit`, which were gathered; -1 if the filters may reach beyond. `everything`:
// the sum of all weights.
__device__ __forceinline__ int draw_gathered(const Row& row, const SampleRow& params, Wide everything, unsigned limit, unsigned n,
                                             SampleShared& shared) {
    sort_gathered(n, shared);
    if (threadIdx.x < kWarpSize) {
        const int lane = static_cast<int>(threadIdx.x);
        const bool complete = limit == kDepthBins;  // what is missing has weight 0
        const bool cut_k = params.top_k > 0 && params.top_k < row.vocab;
        const auto k = static_cast<unsigned>(params.top_k);
        unsigned kept = cut_k && k < n ? k : n;
        bool known = complete || (cut_k && k <= n);
        Wide sum = 0;
        if (params.top_p < 1) {
            if (cut_k) {
                walk_gathered(row, kept, ~Wide{0}, sum, shared, lane);
            } else {
                sum = everything;
            }
            const unsigned last = walk_gathered(row, kept, mass_of(params.top_p, sum) - 1, sum, shared, lane);
            known = known || (!cut_k && last < kept);
            kept = last < kept ? last + 1 : kept;
        }
        if (params.min_p > 0) {
            unsigned likely = 0;  // ranks fall, so those that pass are in front
            for (unsigned i = static_cast<unsigned>(lane); i < kept; i += kWarpSize) {
                const float v = logit_of(shared.rank[i]);
                likely += i == 0 || expf((v - row.maximum) * row.scale) >= params.min_p ? 1 : 0;
            }
            for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
                likely += __shfl_xor_sync(kFullMask, likely, offset);
            }
            known = known || (likely < kept && !(params.top_p < 1) && !cut_k);
            kept = likely;
        }
        int token = -1;
        if (known && kept > 0) {
            walk_gathered(row, kept, ~Wide{0}, sum, shared, lane);
            const unsigned at = walk_gathered(row, kept, part_of(params.uniform, sum), sum, shared, lane);
            token = token_of(shared.rank[at < kept ? at : kept - 1]);
        }
        if (lane == 0) {
            shared.token = token;
        }
    }
    __syncthreads();
    const int token = shared.token;
    __syncthreads();
    return token;
}

// The draw where the filters cut some tokens off. What is given is that of draw_gathered().
__device__ __forceinline__ int draw_cut(const Row& row, const SampleRow& params, Wide everything, unsigned limit, unsigned n,
                                        SampleShared& shared) {
    const int token = draw_gathered(row, params, everything, limit, n, shared);
    return token >= 0 ? token : draw_by_bisection(row, params, shared);
}

}  // namespace llm::engine::cuda
