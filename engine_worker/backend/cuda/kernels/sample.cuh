// One row of logits to one token, without sorting the vocabulary; the meaning is that of the CPU's Sampler.
//
// One block works on a row (sample_kernel); of few rows of a large vocabulary several, in two launches: the maximum, on which every
// weight depends (sample_best_kernel), then sums, histogram and candidates (sample_draw_kernel). The last block of a row joins what the
// others found, and does what is left, alone.
#pragma once

#include "engine_worker/backend/cuda/kernels/device.cuh"
#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/kernels/sample_draw.cuh"
#include "engine_worker/backend/cuda/kernels/sample_row.cuh"

namespace llm::engine::cuda {

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
            out.top_logprob[found] = static_cast<float>(static_cast<double>(logit_of(last)) - base);
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
    row.maximum = state.best == 0 ? -INFINITY : logit_of(state.best);
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
        token = draw_cut(row, params, everything, limit, gather(row, limit, shared), shared);
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

// The run in which the draw falls, when all blocks know the sum of theirs.
__device__ __forceinline__ Span chosen_run(const SampleArgs& args, const SamplePart* parts, double uniform, SampleShared& shared) {
    if (static_cast<int>(threadIdx.x) < args.splits) {
        shared.wide[threadIdx.x] = __ldcg(&parts[threadIdx.x].sum);
    }
    return choose_run(0, args.vocab, args.splits, [&](Wide total) { return part_of(uniform, total); }, shared);
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
        if (row.depth(logit_of(rank)) < static_cast<float>(limit)) {
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
        const Span run = run_of(0, args.vocab, args.splits, split);
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
        token = draw_cut(row, params, everything, limit, n, shared);
    } else {
        const WeightOf weight{row};
        token = find_in(row, narrow(row, chosen_run(args, parts, params.uniform, shared), weight, shared), weight, shared);
    }
    report(args, index, params, state, token, shared);
}

}  // namespace llm::engine::cuda
