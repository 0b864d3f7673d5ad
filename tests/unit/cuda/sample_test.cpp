// The GPU's sampler against the CPU's: the same token for the same seed, and logprobs.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <random>

#include "engine_worker/backend/cpu/sampler.hpp"
#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/step_buffers.hpp"
#include "tests/support/gpu_array.hpp"

namespace llm::engine::cuda {
namespace {

using llm::testing::GpuArray;
using llm::testing::test_stream;

constexpr float kInf = std::numeric_limits<float>::infinity();

class GpuSampler : public ::testing::Test {
  protected:
    // Rows of equal length, each with its parameters.
    std::vector<SampleOut> run(const std::vector<std::vector<float>>& rows, const std::vector<SampleParams>& params,
                               int threads = 128, int splits = 1) {
        const auto vocab = static_cast<int>(rows[0].size());
        const int stride = (vocab + 15) / 16 * 16;
        std::vector<float> all(rows.size() * static_cast<size_t>(stride), kInf);  // padding must not be read
        for (size_t i = 0; i < rows.size(); i++) {
            std::copy(rows[i].begin(), rows[i].end(), all.begin() + static_cast<std::ptrdiff_t>(i) * stride);
        }
        StepLimits limits;
        limits.max_tokens = static_cast<int>(rows.size());
        limits.max_sequences = 1;
        limits.max_context = 1;
        limits.max_tiles = 1;
        limits.vocab = vocab;
        const StepLayout layout(limits);
        std::vector<uint8_t> host(layout.total);
        const GpuArray<uint8_t> device(layout.total);
        StepBuffers buffers(limits, reinterpret_cast<std::byte*>(host.data()),
                            reinterpret_cast<std::byte*>(device.get()), 0);
        Step step;
        step.n_logit = static_cast<int>(rows.size());
        step.sampling = params.data();
        EXPECT_EQ(buffers.fill_sampling(step, 0), step.n_logit);
        test_stream().upload(device.get(), host.data(), host.size());
        const GpuArray<float> logits(all);
        const GpuArray<SampleOut> out(rows.size());
        const GpuArray<int> sampled(rows.size());
        const GpuArray<SamplePart> parts(std::vector<SamplePart>(rows.size() * static_cast<size_t>(splits), left_over()));
        const GpuArray<SampleState> states(rows.size());
        const GpuArray<unsigned> tickets(std::vector<unsigned>(rows.size()));
        launch_sample({logits.get(), stride, vocab, buffers.device<SampleRow>(layout.sample_rows), out.get(), sampled.get(), splits,
                       parts.get(), states.get(), tickets.get()},
                      step.n_logit, threads, test_stream().get());
        EXPECT_EQ(tickets.values(), std::vector<unsigned>(rows.size()));
        const std::vector<SampleOut> got = out.values();
        const std::vector<int> tokens = sampled.values();
        for (size_t i = 0; i < got.size(); i++) {
            EXPECT_EQ(got[i].token, tokens[i]);
        }
        return got;
    }

    // Whether one block draws what the CPU draws, and several that share a row the same bits.
    void compare(const std::vector<std::vector<float>>& rows, const std::vector<SampleParams>& params,
                 int threads = 128) {
        const std::vector<SampleOut> got = run(rows, params, threads);
        for (const int splits : {2, 5}) {
            SCOPED_TRACE(splits);
            expect_same(got, run(rows, params, threads, splits));
        }
        Sampler sampler(choose_kernels("generic"), static_cast<int32_t>(rows[0].size()));
        for (size_t i = 0; i < rows.size(); i++) {
            SCOPED_TRACE(i);
            const Sampled expected = sampler.sample(rows[i].data(), params[i]);
            EXPECT_EQ(got[i].token, expected.token);
            if (params[i].n_logprobs < 0) {
                EXPECT_EQ(got[i].n_top, 0);
                continue;
            }
            if (std::isfinite(expected.logprob)) {
                EXPECT_NEAR(got[i].logprob, expected.logprob, 1e-4);
            }
            ASSERT_EQ(static_cast<size_t>(got[i].n_top), expected.top.size());
            for (size_t t = 0; t < expected.top.size(); t++) {
                EXPECT_EQ(got[i].top_token[t], expected.top[t].token);
                EXPECT_NEAR(got[i].top_logprob[t], expected.top[t].logprob, 1e-4);
            }
        }
    }

    // As if a step before had found token 7, with a logit of 2, again and again.
    static SamplePart left_over() {
        SamplePart out;
        std::memset(static_cast<void*>(&out), 0xff, sizeof out);
        std::fill(std::begin(out.rank), std::end(out.rank), 0xc0000000'fffffff8ull);
        return out;
    }

    // Of what was found: a list of logprobs may be shorter than its room.
    static void expect_same(const std::vector<SampleOut>& one, const std::vector<SampleOut>& other) {
        const auto bits = [](float value) { return std::bit_cast<uint32_t>(value); };
        for (size_t i = 0; i < one.size(); i++) {
            SCOPED_TRACE(i);
            EXPECT_EQ(one[i].token, other[i].token);
            EXPECT_EQ(bits(one[i].logprob), bits(other[i].logprob));
            ASSERT_EQ(one[i].n_top, other[i].n_top);
            for (int t = 0; t < one[i].n_top; t++) {
                EXPECT_EQ(one[i].top_token[t], other[i].top_token[t]);
                EXPECT_EQ(bits(one[i].top_logprob[t]), bits(other[i].top_logprob[t]));
            }
        }
    }

    static std::vector<float> logits(size_t vocab, uint64_t seed, float scale) {
        std::mt19937_64 random(seed);
        std::normal_distribution<float> normal(0, scale);
        std::vector<float> out(vocab);
        for (float& v : out) {
            v = normal(random);
        }
        return out;
    }
};

TEST_F(GpuSampler, EveryFilterDrawsWhatTheCpuDraws) {
    struct {
        float temperature, top_p;
        int top_k;
        float min_p;
    } const filters[] = {{0, 1, 0, 0},      {1, 1, 0, 0},       {0.7f, 1, 40, 0},     {1.3f, 0.9f, 0, 0},
                         {1, 0.5f, 0, 0},   {1, 1, 0, 0.05f},   {1, 0.95f, 20, 0.1f}, {2, 0.999f, 0, 0},
                         {1, 1e-6f, 0, 0},  {0.01f, 1, 0, 0},   {1, 1, 1, 0},         {5, 0.8f, 700, 0.001f},
                         {1, 0.3f, 0, 0.9f}};
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    uint64_t seed = 0;
    for (const size_t vocab : {777u}) {
        for (const auto& f : filters) {
            for (int draw = 0; draw < 6; draw++) {
                rows.push_back(logits(vocab, ++seed, draw % 2 == 0 ? 3.0f : 0.3f));
                SampleParams p;
                p.temperature = f.temperature;
                p.top_p = f.top_p;
                p.top_k = f.top_k;
                p.min_p = f.min_p;
                p.seed = seed * 7919;
                p.position = static_cast<uint32_t>(draw);
                p.n_logprobs = draw % 3 - 1 + draw / 3 * 4;
                params.push_back(p);
            }
        }
    }
    compare(rows, params);
}

// More equally likely tokens than can be gathered: the bisection.
TEST_F(GpuSampler, FlatDistributions) {
    constexpr size_t kVocab = 6000;
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    for (int i = 0; i < 8; i++) {
        rows.push_back(logits(kVocab, static_cast<uint64_t>(i), i % 2 == 0 ? 0.01f : 1.0f));
        SampleParams p;
        p.seed = static_cast<uint64_t>(i) * 31;
        p.top_p = i < 4 ? 0.97f : 1.0f;
        p.top_k = i % 4 < 2 ? 0 : 5000;
        p.min_p = i >= 6 ? 0.001f : 0.0f;
        if (i >= 4 && p.top_k == 0) {
            p.min_p = 0.01f;
        }
        params.push_back(p);
    }
    rows.push_back(std::vector<float>(kVocab, 1.0f));  // all equal: ties by id
    params.push_back(params[0]);
    rows.push_back(std::vector<float>(kVocab, 1.0f));
    params.push_back(params[2]);
    compare(rows, params, 256);
}

// The same with a mask and tokens that are impossible, and a vocabulary that is no multiple of anything.
TEST_F(GpuSampler, FlatDistributionsInPart) {
    constexpr size_t kVocab = 6003;
    std::vector<uint32_t> mask((kVocab + 31) / 32, 0xfffffff7u);
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    for (int i = 0; i < 6; i++) {
        rows.push_back(logits(kVocab, static_cast<uint64_t>(i), 0.02f));
        for (size_t token = 0; i % 2 == 1 && token < kVocab; token += 2) {
            rows.back()[token] = -kInf;  // fewer are left than top_k
        }
        SampleParams p;
        p.seed = static_cast<uint64_t>(i) * 57;
        p.top_p = i < 4 ? 0.99f : 1.0f;
        p.top_k = i < 2 ? 0 : 4000;
        p.min_p = i >= 4 ? 0.97f : 0.0f;
        p.mask = i % 3 == 0 ? mask.data() : nullptr;
        params.push_back(p);
    }
    compare(rows, params, 256);
}

TEST_F(GpuSampler, PenaltiesBiasAndMask) {
    constexpr size_t kVocab = 300;
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    std::vector<int32_t> tokens;
    for (int i = 0; i < 60; i++) {
        tokens.push_back((i * i) % 37);
    }
    tokens.push_back(-1);        // is ignored
    tokens.push_back(100000);
    const std::vector<std::pair<int32_t, float>> bias = {{5, 3.5f}, {6, -kInf}, {5, 1.0f}, {-2, 9.0f}, {299, -100.0f}};
    std::vector<uint32_t> mask((kVocab + 31) / 32, 0x55555555u);
    for (int i = 0; i < 24; i++) {
        rows.push_back(logits(kVocab, static_cast<uint64_t>(100 + i), 2));
        SampleParams p;
        p.temperature = i % 3 == 0 ? 0.0f : 0.9f;
        p.top_p = i % 4 == 0 ? 0.8f : 1.0f;
        p.seed = static_cast<uint64_t>(i);
        p.n_logprobs = i % 5;
        p.tokens = tokens.data();
        p.n_prompt = 30;
        p.n_tokens = static_cast<int32_t>(tokens.size());
        p.repetition_penalty = i % 2 == 0 ? 1.3f : 1.0f;
        p.presence_penalty = i % 3 == 1 ? 0.7f : 0.0f;
        p.frequency_penalty = i % 3 == 2 ? 0.4f : 0.0f;
        if (i % 4 > 1) {
            p.logit_bias = bias.data();
            p.n_logit_bias = static_cast<int32_t>(bias.size());
        }
        p.mask = i % 5 == 3 ? mask.data() : nullptr;
        params.push_back(p);
    }
    compare(rows, params);
}

// More tokens are edited than threads work on a row.
TEST_F(GpuSampler, ManyEdits) {
    constexpr size_t kVocab = 900;
    std::vector<int32_t> tokens;
    std::vector<std::pair<int32_t, float>> bias;
    for (int32_t i = 0; i < 700; i++) {
        tokens.push_back((i * 7) % 450);
        if (i < 300) {
            bias.emplace_back(i * 3, static_cast<float>(i % 5) - 2);
        }
    }
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    for (int i = 0; i < 4; i++) {
        rows.push_back(logits(kVocab, static_cast<uint64_t>(300 + i), 2));
        SampleParams p;
        p.temperature = i == 0 ? 0.0f : 1.1f;
        p.seed = static_cast<uint64_t>(i);
        p.n_logprobs = i;
        p.tokens = tokens.data();
        p.n_prompt = 100;
        p.n_tokens = static_cast<int32_t>(tokens.size());
        p.repetition_penalty = 1.1f;
        p.presence_penalty = 0.2f;
        p.frequency_penalty = 0.1f;
        p.logit_bias = bias.data();
        p.n_logit_bias = static_cast<int32_t>(bias.size());
        params.push_back(p);
    }
    compare(rows, params, 64);
}

TEST_F(GpuSampler, WhatCannotBeDrawn) {
    constexpr size_t kVocab = 100;
    const std::vector<float> plain = logits(kVocab, 1, 2);
    std::vector<uint32_t> nothing((kVocab + 31) / 32, 0);
    std::vector<uint32_t> only_nan = nothing;
    only_nan[0] = 1u << 3;
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    const auto add = [&](std::vector<float> row, auto&& change) {
        SampleParams p;
        p.n_logprobs = -1;
        change(p);
        rows.push_back(std::move(row));
        params.push_back(p);
    };
    std::vector<float> with_nan = plain;
    with_nan[3] = NAN;
    std::vector<float> ties(kVocab, -1.0f);
    ties[37] = ties[38] = ties[99] = 2.5f;
    std::vector<float> zeros(kVocab, -3.0f);
    zeros[10] = -0.0f;
    zeros[5] = 0.0f;
    zeros[3] = -0.0f;
    std::vector<float> infinite = plain;
    infinite[70] = kInf;
    const std::vector<float> all_nan(kVocab, NAN), impossible(kVocab, -kInf);
    std::vector<std::pair<int32_t, float>> biases;  // taken back if nothing is possible
    for (int32_t token = 0; token < static_cast<int32_t>(kVocab); token += 3) {
        biases.emplace_back(99 - token, static_cast<float>(token));
    }
    for (const float temperature : {0.0f, 1.0f}) {
        const auto base = [&](SampleParams& p) { p.temperature = temperature; };
        add(plain, [&](SampleParams& p) { base(p), p.mask = nothing.data(); });
        add(plain, [&](SampleParams& p) {
            base(p), p.mask = nothing.data();
            p.logit_bias = biases.data(), p.n_logit_bias = static_cast<int32_t>(biases.size());
        });
        add(with_nan, [&](SampleParams& p) { base(p), p.mask = only_nan.data(); });
        add(with_nan, base);
        add(infinite, base);
        add(all_nan, base);
        add(impossible, base);
    }
    add(ties, [](SampleParams& p) { p.temperature = 0; });
    add(ties, [](SampleParams& p) { p.top_k = 2, p.seed = 4; });
    add(zeros, [](SampleParams& p) { p.temperature = 0; });
    add(plain, [](SampleParams& p) { p.temperature = 1e-45f; });
    std::vector<float> two(kVocab, -kInf);
    two[7] = two[90] = 1;
    add(two, [](SampleParams& p) { p.top_k = 50, p.seed = 3; });
    add(two, [](SampleParams& p) { p.n_logprobs = 5; });
    add(two, [](SampleParams& p) { p.seed = 8; });
    compare(rows, params, 64);
}

TEST_F(GpuSampler, TheNumberOfThreadsDoesNotMatter) {
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    for (int i = 0; i < 6; i++) {
        rows.push_back(logits(1500, static_cast<uint64_t>(i), 2));
        SampleParams p;
        p.seed = static_cast<uint64_t>(i);
        p.top_p = i % 2 == 0 ? 0.9f : 1.0f;
        params.push_back(p);
    }
    const std::vector<SampleOut> few = run(rows, params, 32);
    const std::vector<SampleOut> many = run(rows, params, 1024);
    for (size_t i = 0; i < rows.size(); i++) {
        EXPECT_EQ(few[i].token, many[i].token);
    }
}

// Blocks that share a row keep twice their share of the 2048 best at most; where the best are one block's, the last block reads the row.
TEST_F(GpuSampler, TheBestOfAllInOneBlocksPart) {
    constexpr size_t kVocab = 8003;
    for (const int splits : {3, 4, 16}) {
        std::vector<std::vector<float>> rows;
        std::vector<SampleParams> params;
        for (int i = 0; i < 6; i++) {
            rows.push_back(logits(kVocab, static_cast<uint64_t>(i), 0.5f));
            for (size_t token = 0; token < kVocab; token++) {
                const bool likely = token / 128 % static_cast<size_t>(splits) == 1;
                rows.back()[token] += likely && token < 1900 * static_cast<size_t>(splits) ? 0.0f : -40.0f;  // has no weight
            }
            SampleParams p;
            p.seed = static_cast<uint64_t>(i) * 91;
            p.top_p = i < 3 ? 0.99f : 1.0f;
            p.top_k = i < 3 ? 0 : 1800;
            params.push_back(p);
        }
        SCOPED_TRACE(splits);
        expect_same(run(rows, params, 128), run(rows, params, 128, splits));
    }
}

// With the threads that a step has, and as many blocks as can share a row.
TEST_F(GpuSampler, ManyBlocksAndThreadsPerRow) {
    constexpr size_t kVocab = 20011;
    std::vector<std::vector<float>> rows;
    std::vector<SampleParams> params;
    for (int i = 0; i < 5; i++) {
        rows.push_back(logits(kVocab, static_cast<uint64_t>(i), 3));
        SampleParams p;
        p.temperature = i == 0 ? 0.0f : 0.8f;
        p.seed = static_cast<uint64_t>(i);
        p.top_p = i >= 2 ? 0.95f : 1.0f;
        p.top_k = i == 3 ? 20 : 0;
        p.n_logprobs = i == 4 ? 3 : -1;
        params.push_back(p);
    }
    const std::vector<SampleOut> one = run(rows, params, 1024);
    expect_same(one, run(rows, params, 1024, 2));
    expect_same(one, run(rows, params, 256, kMaxSampleSplits));
}

TEST_F(GpuSampler, InactiveRowsAreLeftAlone) {
    for (const int splits : {1, 3}) {
        const GpuArray<float> logits(std::vector<float>(32, 1.0f));
        const GpuArray<SampleRow> rows(std::vector<SampleRow>(2));
        const GpuArray<SampleOut> out(2);
        const GpuArray<int> sampled(2);
        const GpuArray<SamplePart> parts(6);
        const GpuArray<SampleState> states(2);
        const GpuArray<unsigned> tickets(std::vector<unsigned>(2));
        launch_sample({logits.get(), 16, 16, rows.get(), out.get(), sampled.get(), splits, parts.get(), states.get(), tickets.get()}, 2,
                      32, test_stream().get());
        EXPECT_EQ(sampled.values(), (std::vector<int>{0, 0}));
        EXPECT_EQ(out.values()[0].token, -1) << "as it was";
    }
}

}  // namespace
}  // namespace llm::engine::cuda
