// One row of logits to one token, without sorting the vocabulary; the meaning is that of the CPU's Sampler.
//
// Probabilities are fixed-point numbers, weight = exp((logit - maximum) / temperature) * 2^40: their sums do not
// depend on the order of addition, so neither the grid nor the schedule of warps changes a draw. Tokens below
// 2^-40 of the most probable one have weight 0.
//
// With top_k, top_p or min_p the draw walks tokens by falling probability. A histogram of their distance from the
// maximum finds a few hundred best ones, which are gathered and ordered in shared memory. Where the filters may
// reach beyond the 2048 that fit there (a nearly flat distribution), bisection over the logits finds the same token in
// some 100 passes instead.
//
// One block works on a row (sample_kernel); of few rows of a large vocabulary several, in two launches: the maximum, on which every
// weight depends (sample_best_kernel), then sums, histogram and candidates (sample_draw_kernel). The last block of a row joins what the
// others found, and does what is left, alone.
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
    // thread, whatever `visit` does, which is instructions 16 times over: one multiprocessor works on a row.
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

// Of the tokens [begin, end), cut into one run per warp, the run in which the sum of `of` over the values, in order of ids, exceeds
// target_of(their sum).
template <typename Of, typename TargetOf>
__device__ __forceinline__ Span narrow(const Row& row, int begin, int end, const Of& of, const TargetOf& target_of, SampleShared& shared) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpSize;
    const int warp = static_cast<int>(threadIdx.x) / kWarpSize;
    const int warps = static_cast<int>(blockDim.x) / kWarpSize;
    const int run = ((end - begin + warps - 1) / warps + kWarpSize - 1) / kWarpSize * kWarpSize;
    const int mine = begin + warp * run;
    Wide sum = 0;
    row.each_from(mine + lane * 4, kWarpSize * 4, mine + run < end ? mine + run : end, [&](float v, int) { sum += of(v); });
    for (int offset = kWarpSize / 2; offset > 0; offset /= 2) {
        sum += __shfl_xor_sync(kFullMask, sum, offset);
    }
    if (lane == 0) {
        shared.wide[warp] = sum;
    }
    __syncthreads();
    Wide total = 0;
    for (int i = 0; i < warps; i++) {
        total += shared.wide[i];
    }
    Wide target = target_of(total);
    int chosen = 0;
    while (chosen + 1 < warps && target >= shared.wide[chosen]) {
        target -= shared.wide[chosen++];
    }
    __syncthreads();
    const int from = begin + chosen * run;
    return {from, from + run < end ? from + run : end, target};
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

// The sum of `of` over all values.
template <typename Of>
__device__ __forceinline__ Wide sum_over(const Row& row, const Of& of, SampleShared& shared) {
    Wide sum = 0;
    row.each([&](float v, int) { sum += of(v); });
    return block_reduce(sum, Add(), shared.wide);
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
        const Wide mine = i < n ? row.weight(value_of(static_cast<uint32_t>(shared.rank[i] >> 32))) : 0;
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
                const float v = value_of(static_cast<uint32_t>(shared.rank[i] >> 32));
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

// Log-probabilities of the raw logits: of the best n now, of the sampled one when it is known.
__device__ __forceinline__ double raw_logprobs(const Row& raw, int n, SampleOut& out, SampleShared& shared) {
    double sum = 0;
    raw.each([&](float v, int) { sum += v == -INFINITY ? 0.0 : static_cast<double>(expf(v - raw.maximum)); });
    sum = block_reduce(sum, Add(), shared.real);
    const double base = static_cast<double>(raw.maximum) + log(sum);
    Wide last = ~Wide{0};
    int found = 0;
    for (; found < n; found++) {
        last = best_below(raw, last, shared);
        if (last == 0) {
            break;
        }
        if (threadIdx.x == 0) {
            out.top_token[found] = token_of(last);
            out.top_logprob[found] =
                static_cast<float>(static_cast<double>(value_of(static_cast<uint32_t>(last >> 32))) - base);
        }
    }
    if (threadIdx.x == 0) {
        out.n_top = found;
    }
    return base;
}

__device__ __forceinline__ void apply_edits(float* logits, const SampleRow& params) {
    for (int e = static_cast<int>(threadIdx.x); e < params.n_edits; e += static_cast<int>(blockDim.x)) {
        SampleEdit& edit = params.edits[e];
        float v = logits[edit.token];
        edit.raw = v;
        v += edit.bias;
        if (edit.seen != 0) {
            v = v > 0 ? v / params.repetition : v * params.repetition;
        }
        if (edit.count > 0) {
            v -= params.presence + params.frequency * static_cast<float>(edit.count);
        }
        logits[edit.token] = v;
    }
    __syncthreads();
}

__device__ __forceinline__ Row row_of(const SampleArgs& args, int index) {
    return {args.logits + static_cast<size_t>(index) * static_cast<size_t>(args.stride), nullptr, args.vocab, 0.0f, 1.0f};
}

// What follows for the draw from what is known before it.
__device__ __forceinline__ void apply(const SampleState& state, const SampleRow& params, Row& row) {
    row.mask = state.edited != 0 ? params.mask : nullptr;
    row.maximum = state.best == 0 ? -INFINITY : value_of(static_cast<uint32_t>(state.best >> 32));
    row.scale = params.temperature > 0 ? 1.0f / params.temperature : INFINITY;
}

// All that comes before the draw. `best`: the row's largest rank.
__device__ __forceinline__ SampleState settle(const SampleArgs& args, int index, const SampleRow& params, Wide best, Row& row,
                                              SampleShared& shared) {
    SampleOut& out = args.out[index];
    SampleState state{best, 0, 0, 0};
    apply(state, params, row);
    if (params.n_logprobs >= 0) {
        state.base = raw_logprobs(row, params.n_logprobs < kMaxTop ? params.n_logprobs : kMaxTop, out, shared);
    } else if (threadIdx.x == 0) {
        out.n_top = 0;
    }
    if (params.n_edits > 0 || params.mask != nullptr) {
        float* logits = args.logits + static_cast<size_t>(index) * static_cast<size_t>(args.stride);
        apply_edits(logits, params);
        row.mask = params.mask;
        const Wide edited = best_of(row, shared);
        if (edited != 0) {
            state.best = edited;
            state.edited = 1;
        } else {  // nothing is possible: as if nothing had been asked
            for (int e = static_cast<int>(threadIdx.x); e < params.n_edits; e += static_cast<int>(blockDim.x)) {
                logits[params.edits[e].token] = params.edits[e].raw;
            }
            __syncthreads();
        }
        apply(state, params, row);
    }
    const bool finite = row.maximum < INFINITY && row.maximum > -INFINITY && row.scale < INFINITY;
    state.draws = params.temperature > 0 && params.top_k != 1 && finite ? 1 : 0;
    return state;
}

// Whether some tokens are never drawn.
__device__ __forceinline__ bool is_cut(const SampleRow& params, int vocab) {
    return (params.top_k > 0 && params.top_k < vocab) || params.top_p < 1 || params.min_p > 0;
}

struct WeightOf {
    const Row& row;
    __device__ __forceinline__ Wide operator()(float v) const { return v == -INFINITY ? Wide{0} : row.weight(v); }
};

__device__ __forceinline__ int best_token(const SampleState& state) {
    return state.best == 0 ? 0 : token_of(state.best);
}

__device__ __forceinline__ void report(const SampleArgs& args, int index, const SampleRow& params, const SampleState& state, int token,
                                       SampleShared& shared) {
    if (params.n_logprobs >= 0) {
        if (threadIdx.x == 0) {
            shared.raw = row_of(args, index).logits[token];
        }
        __syncthreads();
        for (int e = static_cast<int>(threadIdx.x); state.edited != 0 && e < params.n_edits; e += static_cast<int>(blockDim.x)) {
            if (params.edits[e].token == token) {
                shared.raw = params.edits[e].raw;
            }
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) {
        SampleOut& out = args.out[index];
        out.token = token;
        out.logprob = params.n_logprobs >= 0 ? static_cast<float>(static_cast<double>(shared.raw) - state.base) : 0.0f;
        // what the host will refuse must not lead the next step's embedding astray before
        args.sampled[index] = token >= 0 && token < args.vocab ? token : 0;
    }
}

__global__ void __launch_bounds__(1024) sample_kernel(SampleArgs args) {
    begin_launch();
    auto& shared = *reinterpret_cast<SampleShared*>(shared_bytes());
    const int index = static_cast<int>(blockIdx.x);
    const SampleRow params = args.rows[index];
    if (params.active == 0) {
        if (threadIdx.x == 0) {
            args.sampled[index] = 0;
        }
        return;
    }
    Row row = row_of(args, index);
    const SampleState state = settle(args, index, params, best_of(row, shared), row, shared);
    int token = best_token(state);
    if (state.draws != 0 && !is_cut(params, args.vocab)) {
        token = find_by_id(row, WeightOf{row}, [&](Wide total) { return part_of(params.uniform, total); }, shared);
    } else if (state.draws != 0) {
        const Wide everything = count_depths(row, shared);
        const unsigned limit = depth_limit(kGathered, shared);
        token = draw_gathered(row, params, everything, limit, gather(row, limit, shared), shared);
        if (token < 0) {
            token = draw_by_bisection(row, params, shared);
        }
    }
    report(args, index, params, state, token, shared);
}

// ---- Several blocks per row: (split, row) ------------------------------------------------------------------

__global__ void __launch_bounds__(1024) sample_best_kernel(SampleArgs args) {
    begin_launch();
    auto& shared = *reinterpret_cast<SampleShared*>(shared_bytes());
    const int split = static_cast<int>(blockIdx.x);
    const int index = static_cast<int>(blockIdx.y);
    const SampleRow params = args.rows[index];
    if (params.active == 0) {
        if (split == 0 && threadIdx.x == 0) {
            args.sampled[index] = 0;
            args.states[index].draws = 0;
        }
        return;
    }
    Row row = row_of(args, index);
    SamplePart* parts = args.parts + index * args.splits;
    const Wide mine = best_of(row.part(split, args.splits), shared);
    if (threadIdx.x == 0) {
        parts[split].best = mine;
    }
    if (!is_last_block(args.tickets + index, static_cast<unsigned>(args.splits), &shared.ticket)) {
        return;
    }
    const int thread = static_cast<int>(threadIdx.x);
    const Wide best = block_reduce(thread < args.splits ? __ldcg(&parts[thread].best) : 0, Max(), shared.wide);
    const SampleState state = settle(args, index, params, best, row, shared);
    if (state.draws == 0) {
        report(args, index, params, state, best_token(state), shared);
    }
    if (threadIdx.x == 0) {
        args.states[index] = state;
    }
}

// Of the tokens, cut into one run per block, the one of this block.
__device__ __forceinline__ Span run_of(int split, const SampleArgs& args) {
    const int run = ((args.vocab + args.splits - 1) / args.splits + kWarpSize - 1) / kWarpSize * kWarpSize;
    const int begin = split * run < args.vocab ? split * run : args.vocab;
    return {begin, begin + run < args.vocab ? begin + run : args.vocab, 0};
}

// The run in which the draw falls, when all know theirs.
__device__ __forceinline__ Span chosen_run(const SampleArgs& args, const SamplePart* parts, double uniform, SampleShared& shared) {
    if (static_cast<int>(threadIdx.x) < args.splits) {
        shared.wide[threadIdx.x] = __ldcg(&parts[threadIdx.x].sum);
    }
    __syncthreads();
    Wide total = 0;
    for (int i = 0; i < args.splits; i++) {
        total += shared.wide[i];
    }
    Wide target = part_of(uniform, total);
    int chosen = 0;
    while (chosen + 1 < args.splits && target >= shared.wide[chosen]) {
        target -= shared.wide[chosen++];
    }
    __syncthreads();
    Span span = run_of(chosen, args);
    span.target = target;
    return span;
}

// How many of its best tokens a block keeps: twice its share of those that the row's last block gathers.
__device__ __forceinline__ unsigned most_of_part(int splits) {
    return splits <= 2 ? kGathered : 2 * kGathered / static_cast<unsigned>(splits);
}

// What a draw among the best needs of this block's part of the row.
__device__ __forceinline__ void write_part(const Row& row, unsigned most, SamplePart& part, SampleShared& shared) {
    const Wide sum = count_depths(row, shared);
    const unsigned limit = depth_limit(most, shared);
    const unsigned n = gather(row, limit, shared);
    for (unsigned i = threadIdx.x; i < most; i += blockDim.x) {
        part.rank[i] = i < n ? shared.rank[i] : 0;
    }
    for (unsigned i = threadIdx.x; i <= kDepthBins; i += blockDim.x) {
        part.bins[i] = shared.bins[i];
    }
    if (threadIdx.x == 0) {
        part.sum = sum;
        part.limit = limit;
    }
}

// gather() from what the blocks kept, or from the row where one of them could not keep enough.
__device__ __forceinline__ unsigned gather_parts(const Row& row, const SamplePart* parts, int splits, unsigned most, unsigned limit,
                                                 SampleShared& shared) {
    const bool lacking = static_cast<int>(threadIdx.x) < splits && __ldcg(&parts[threadIdx.x].limit) < limit;
    if (block_reduce(Wide{lacking ? 1u : 0u}, Max(), shared.wide) != 0) {
        return gather(row, limit, shared);
    }
    if (threadIdx.x == 0) {
        shared.n = 0;
    }
    __syncthreads();
#pragma unroll 4
    for (unsigned i = threadIdx.x; i < most * static_cast<unsigned>(splits); i += blockDim.x) {
        const Wide rank = __ldcg(&parts[i / most].rank[i % most]);  // 0 is that of a NaN, which is less deep than nothing
        if (row.depth(value_of(static_cast<uint32_t>(rank >> 32))) < static_cast<float>(limit)) {
            shared.rank[atomicAdd(&shared.n, 1u)] = rank;
        }
    }
    __syncthreads();
    return shared.n;
}

__global__ void __launch_bounds__(1024) sample_draw_kernel(SampleArgs args) {
    begin_launch();
    auto& shared = *reinterpret_cast<SampleShared*>(shared_bytes());
    const int split = static_cast<int>(blockIdx.x);
    const int index = static_cast<int>(blockIdx.y);
    const SampleState state = args.states[index];
    if (state.draws == 0) {
        return;
    }
    const SampleRow params = args.rows[index];
    Row row = row_of(args, index);
    apply(state, params, row);
    SamplePart* parts = args.parts + index * args.splits;
    const unsigned most = most_of_part(args.splits);
    const bool cut = is_cut(params, args.vocab);
    if (cut) {
        write_part(row.part(split, args.splits), most, parts[split], shared);
    } else {
        const Span run = run_of(split, args);
        Wide sum = 0;
        row.each_from(run.begin + static_cast<int>(threadIdx.x) * 4, static_cast<int>(blockDim.x) * 4, run.end,
                      [&](float v, int) { sum += WeightOf{row}(v); });
        sum = block_reduce(sum, Add(), shared.wide);
        if (threadIdx.x == 0) {
            parts[split].sum = sum;
        }
    }
    if (!is_last_block(args.tickets + index, static_cast<unsigned>(args.splits), &shared.ticket)) {
        return;
    }
    int token = -1;
    if (cut) {
        for (int i = static_cast<int>(threadIdx.x); i <= kDepthBins; i += static_cast<int>(blockDim.x)) {
            unsigned n = 0;
#pragma unroll 4
            for (int part = 0; part < args.splits; part++) {
                n += __ldcg(&parts[part].bins[i]);
            }
            shared.bins[i] = n;
        }
        const int thread = static_cast<int>(threadIdx.x);
        const Wide everything = block_reduce(thread < args.splits ? __ldcg(&parts[thread].sum) : 0, Add(), shared.wide);
        const unsigned limit = depth_limit(kGathered, shared);
        const unsigned n = gather_parts(row, parts, args.splits, most, limit, shared);
        token = draw_gathered(row, params, everything, limit, n, shared);
        if (token < 0) {
            token = draw_by_bisection(row, params, shared);
        }
    } else {
        const WeightOf weight{row};
        token = find_in(row, narrow(row, chosen_run(args, parts, params.uniform, shared), weight, shared), weight, shared);
    }
    report(args, index, params, state, token, shared);
}

}  // namespace llm::engine::cuda
