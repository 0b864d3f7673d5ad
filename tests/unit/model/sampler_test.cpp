#include "engine_worker/backend/cpu/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>

#include "engine_worker/backend/cpu/philox.hpp"
#include "tests/support/model_builder.hpp"

namespace llm::engine {
namespace {

constexpr int32_t kVocab = 1000;
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<float> some_logits(uint64_t seed) {
    const llm::testing::CounterRandom random(seed, "logits");
    std::vector<float> logits(kVocab);
    for (size_t i = 0; i < logits.size(); i++) {
        logits[i] = (random(3 * i) + random(3 * i + 1) + random(3 * i + 2)) * 4;
    }
    return logits;
}

// The tokens that may come out and their probabilities, the slow way: full sort, in the documented order.
std::map<int32_t, double> expected_distribution(const std::vector<float>& logits,
                                                const SampleParams& params) {
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    if (params.top_k > 0) {
        order.resize(std::min(order.size(), static_cast<size_t>(params.top_k)));
    }
    const auto weight = [&](int32_t token) {
        return std::exp((static_cast<double>(logits[static_cast<size_t>(token)]) -
                         static_cast<double>(logits[static_cast<size_t>(order[0])])) /
                        static_cast<double>(params.temperature));
    };
    double total = 0;
    for (const int32_t token : order) {
        total += weight(token);
    }
    double mass = 0;
    size_t kept = 0;
    while (kept < order.size() && mass < static_cast<double>(params.top_p) * total &&
           weight(order[kept]) >= static_cast<double>(params.min_p)) {
        mass += weight(order[kept++]);
    }
    std::map<int32_t, double> distribution;
    for (size_t i = 0; i < kept; i++) {
        distribution[order[i]] = weight(order[i]) / mass;
    }
    return distribution;
}

class SamplerTest : public ::testing::Test {
  protected:
    int32_t token(const std::vector<float>& logits, const SampleParams& params) {
        Sampler sampler(choose_kernels(), static_cast<int32_t>(logits.size()));
        return sampler.sample(logits.data(), params).token;
    }
};

TEST_F(SamplerTest, PhiloxKnownAnswers) {
    // From the Random123 distribution, kat_vectors, philox4x32 10.
    EXPECT_EQ(philox4x32({0, 0, 0, 0}, {0, 0}),
              (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
    EXPECT_EQ(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff}),
              (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
    EXPECT_EQ(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
              (std::array<uint32_t, 4>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST_F(SamplerTest, GreedyTakesTheLowerIdOnATie) {
    std::vector<float> logits(100, -1.0f);
    logits[37] = logits[38] = logits[99] = 2.5f;
    SampleParams params;
    params.temperature = 0;
    EXPECT_EQ(token(logits, params), 37);
    logits[37] = NAN;
    EXPECT_EQ(token(logits, params), 38);
}

// Chi-square of 5 000 draws against the exact distribution, tokens of small probability pooled.
TEST_F(SamplerTest, DrawsFollowTheDistribution) {
    const std::vector<float> logits = some_logits(1);
    struct {
        float temperature, top_p;
        int32_t top_k;
        float min_p;
    } const cases[] = {{1, 1, 0, 0},     {0.7f, 1, 40, 0},     {1.3f, 0.9f, 0, 0}, {1, 0.5f, 0, 0},
                       {1, 1, 0, 0.05f}, {1, 0.95f, 20, 0.1f}, {2, 0.999f, 0, 0},  {1, 1e-6f, 0, 0}};
    for (const auto& c : cases) {
        SampleParams params;
        params.temperature = c.temperature;
        params.top_p = c.top_p;
        params.top_k = c.top_k;
        params.min_p = c.min_p;
        SCOPED_TRACE(::testing::Message()
                     << c.temperature << " " << c.top_p << " " << c.top_k << " " << c.min_p);
        const auto expected = expected_distribution(logits, params);
        Sampler sampler(choose_kernels(), kVocab);
        constexpr int kDraws = 5000;
        std::map<int32_t, int> counts;
        for (int i = 0; i < kDraws; i++) {
            params.seed = static_cast<uint64_t>(i / 100);
            params.position = static_cast<uint32_t>(i % 100);
            const int32_t drawn = sampler.sample(logits.data(), params).token;
            ASSERT_TRUE(expected.contains(drawn)) << drawn;
            counts[drawn]++;
        }
        double chi = 0;
        double freedom = -1;
        double pooled_expected = 0;
        double pooled_count = 0;
        const auto add = [&](double want, double got) {
            chi += (got - want) * (got - want) / want;
            freedom++;
        };
        for (const auto& [id, probability] : expected) {
            if (probability * kDraws >= 10) {
                add(probability * kDraws, counts[id]);
            } else {
                pooled_expected += probability * kDraws;
                pooled_count += counts[id];
            }
        }
        if (pooled_expected > 0) {
            add(pooled_expected, pooled_count);
        }
        EXPECT_LT(chi, freedom + 5 * std::sqrt(2 * std::max(1.0, freedom)));
    }
}

TEST_F(SamplerTest, TheDrawIsAFunctionOfSeedAndPosition) {
    const std::vector<float> logits = some_logits(2);
    SampleParams params;
    params.seed = 42;
    params.position = 7;
    const int32_t first = token(logits, params);
    EXPECT_EQ(token(logits, params), first);
    std::set<int32_t> others;
    for (uint32_t position = 0; position < 50; position++) {
        params.position = position;
        others.insert(token(logits, params));
    }
    EXPECT_GT(others.size(), 10u);
}

TEST_F(SamplerTest, BiasPenaltiesAndMask) {
    std::vector<float> logits(64, 0.0f);
    logits[3] = 5;
    logits[4] = 4.5f;
    logits[5] = 4;
    SampleParams params;
    params.temperature = 0;
    const std::pair<int32_t, float> bias[] = {{5, 1.5f}, {-1, 100}, {64, 100}};
    params.logit_bias = bias;
    params.n_logit_bias = 3;
    EXPECT_EQ(token(logits, params), 5);

    params = {};
    params.temperature = 0;
    const int32_t tokens[] = {3, 4, 4, 4};  // 3 is the prompt
    params.tokens = tokens;
    params.n_prompt = 1;
    params.n_tokens = 4;
    params.repetition_penalty = 2;  // 3 and 4, once each: 2.5 and 2.25 against 4
    EXPECT_EQ(token(logits, params), 5);
    params.repetition_penalty = 1;
    params.presence_penalty = 10;  // generated only
    EXPECT_EQ(token(logits, params), 3);
    logits[4] = 6;
    params.presence_penalty = 0;
    params.frequency_penalty = 0.3f;  // 6 - 3 * 0.3 = 5.1
    EXPECT_EQ(token(logits, params), 4);
    params.frequency_penalty = 0.4f;
    EXPECT_EQ(token(logits, params), 3);
    logits[4] = -6;
    logits[3] = -7;
    std::fill(logits.begin() + 5, logits.end(), -8.0f);
    std::fill(logits.begin(), logits.begin() + 3, -8.0f);
    params.frequency_penalty = 0;
    params.repetition_penalty = 1.2f;  // negative logits fall: -7.2, -8.4
    EXPECT_EQ(token(logits, params), 4);

    const uint32_t mask[] = {1u << 9, 0};
    params.mask = mask;
    EXPECT_EQ(token(logits, params), 9);
    params.temperature = 1;
    EXPECT_EQ(token(logits, params), 9);
    const uint32_t nothing[] = {0, 0};
    params = {};
    params.temperature = 0;
    params.mask = nothing;
    EXPECT_EQ(token(logits, params), 4);  // as if there were no mask
}

TEST_F(SamplerTest, LogprobsAreOfTheRawLogits) {
    const std::vector<float> logits = some_logits(3);
    double sum = 0;
    for (const float logit : logits) {
        sum += std::exp(static_cast<double>(logit));
    }
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
        return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    SampleParams params;
    params.temperature = 0.3f;
    params.n_logprobs = 20;
    const std::pair<int32_t, float> bias[] = {{order[100], 1000.0f}};
    params.logit_bias = bias;
    params.n_logit_bias = 1;
    Sampler sampler(choose_kernels(), kVocab);
    const Sampled sampled = sampler.sample(logits.data(), params);
    EXPECT_EQ(sampled.token, order[100]);
    EXPECT_NEAR(sampled.logprob, static_cast<double>(logits[static_cast<size_t>(order[100])]) - std::log(sum),
                1e-4);
    ASSERT_EQ(sampled.top.size(), 20u);
    for (size_t i = 0; i < 20; i++) {
        EXPECT_EQ(sampled.top[i].token, order[i]);
        EXPECT_NEAR(sampled.top[i].logprob,
                    static_cast<double>(logits[static_cast<size_t>(order[i])]) - std::log(sum), 1e-4);
    }
    params.n_logprobs = 0;
    EXPECT_TRUE(sampler.sample(logits.data(), params).top.empty());
    params.n_logprobs = -1;
    EXPECT_EQ(sampler.sample(logits.data(), params).logprob, 0);
}

TEST_F(SamplerTest, ExtremeRowsGiveSomeToken) {
    SampleParams params;
    for (const float value : {0.0f, -kInf, kInf, NAN, 1e38f, -1e38f}) {
        std::vector<float> logits(70, value);
        for (const float top_p : {1.0f, 0.9f}) {
            for (const int32_t top_k : {0, 5, 1000}) {
                for (const float temperature : {1e-30f, 1.0f, 1e30f}) {
                    params.top_p = top_p;
                    params.top_k = top_k;
                    params.temperature = temperature;
                    const int32_t drawn = token(logits, params);
                    EXPECT_GE(drawn, 0);
                    EXPECT_LT(drawn, 70);
                }
            }
        }
    }
}

}  // namespace
}  // namespace llm::engine
