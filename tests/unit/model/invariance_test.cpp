// The CPU backend's promise: not one bit of a sequence's logits depends on the batch, on how its prompt is
// cut, on preemption, on a prefix hit or on the number of threads.
#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "engine_worker/backend/cpu/cpu_backend.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"

namespace llm::engine {
namespace {

using llm::testing::Feed;
using llm::testing::Sequence;
using llm::testing::StepRunner;
using llm::testing::TempDir;

// Odd sizes on purpose: no dimension is a multiple of a tile, GQA of 3, a sliding window, a bias.
constexpr const char* kConfig =
    R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 90,
    "intermediate_size": 150, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "head_dim": 24, "vocab_size": 333, "max_position_embeddings": 1024, "use_sliding_window": true,
    "sliding_window": 50, "max_window_layers": 2})";
constexpr size_t kLength = 100;

class Invariance : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
  protected:
    void SetUp() override {
        try {
            choose_kernels(std::get<1>(GetParam()));
        } catch (const std::runtime_error& error) {
            GTEST_SKIP() << error.what();
        }
        llm::testing::write_random_model(dir_.path(), kConfig, 7, DType::kF32);
        backend_ = make(1);
        alone_ = compute(*backend_, kLength);
    }

    std::unique_ptr<CpuBackend> make(int32_t threads) {
        BackendOptions options;
        options.model_dir = dir_.path();
        options.dtype = std::get<0>(GetParam());
        options.kv_tokens = 2048;
        options.threads = threads;
        return std::make_unique<CpuBackend>(options, std::get<1>(GetParam()));
    }

    static std::vector<int32_t> tokens(uint64_t seed, size_t length) {
        const llm::testing::CounterRandom random(seed, "tokens");
        std::vector<int32_t> list;
        for (size_t i = 0; i < length; i++) {
            list.push_back(static_cast<int32_t>((random(i) + 1) / 2 * 333));
        }
        return list;
    }

    // Logits of every position, the prompt cut into chunks.
    static std::vector<float> compute(CpuBackend& backend, size_t chunk) {
        StepRunner runner(backend);
        Sequence sequence{tokens(1, kLength), {}};
        std::vector<float> logits;
        while (sequence.computed() < kLength) {
            const size_t count = std::min(chunk, kLength - sequence.computed());
            const StepResult result = runner.run({{&sequence, count, true}});
            logits.insert(logits.end(), result.logits.begin(), result.logits.end());
        }
        return logits;
    }

    static void expect_same_bits(const std::vector<float>& expected, const std::vector<float>& got) {
        ASSERT_EQ(expected.size(), got.size());
        EXPECT_EQ(std::memcmp(expected.data(), got.data(), got.size() * sizeof(float)), 0);
    }

    TempDir dir_;
    std::unique_ptr<CpuBackend> backend_;
    std::vector<float> alone_;
};

TEST_P(Invariance, ChunkSize) {
    for (const size_t chunk : {1u, 2u, 7u, 13u, 16u, 48u, 64u, 99u}) {
        SCOPED_TRACE(chunk);
        expect_same_bits(alone_, compute(*backend_, chunk));
    }
}

TEST_P(Invariance, Threads) {
    for (const int32_t threads : {2, 3}) {
        SCOPED_TRACE(threads);
        const auto other = make(threads);
        for (const size_t chunk : {7u, 100u}) {
            expect_same_bits(alone_, compute(*other, chunk));
        }
    }
}

TEST_P(Invariance, BatchOfMixedNeighbours) {
    StepRunner runner(*backend_);
    Sequence subject{tokens(1, kLength), {}};
    std::vector<Sequence> others;
    for (uint64_t i = 0; i < 9; i++) {
        others.push_back({tokens(100 + i, 150), {}});
    }
    std::vector<float> logits;
    size_t round = 0;
    while (subject.computed() < kLength) {
        // Every step has other neighbours: some decode, some prefill, before and after the subject.
        std::vector<Feed> feeds;
        for (size_t i = 0; i < others.size(); i++) {
            if ((round + i) % 3 == 0 && others[i].computed() + 12 <= 150) {
                feeds.push_back({&others[i], i % 2 == 0 ? size_t{1} : 1 + (round + i) % 11});
            }
        }
        const size_t count = std::min(1 + round % 5 * 3, kLength - subject.computed());
        const size_t at = std::min(round % 4, feeds.size());
        feeds.insert(feeds.begin() + static_cast<std::ptrdiff_t>(at), {&subject, count, true});
        const StepResult result = runner.run(feeds);
        const auto first = result.logits.begin() + static_cast<std::ptrdiff_t>(at * 333);
        logits.insert(logits.end(), first, first + static_cast<std::ptrdiff_t>(count * 333));
        round++;
    }
    expect_same_bits(alone_, logits);
}

TEST_P(Invariance, PreemptionAndPrefixHit) {
    StepRunner runner(*backend_);
    Sequence subject{tokens(1, kLength), {}};
    runner.run({{&subject, 61}});
    runner.release(subject);
    Sequence other{tokens(5, 80), {}};
    runner.run({{&other, 80}});  // overwrites the slots
    runner.run({{&subject, 40}});
    // A second sequence takes over the computed prefix, as a prefix cache hit does.
    Sequence twin{subject.tokens, subject.slots};
    const StepResult result = runner.run({{&twin, kLength - 40, true}});
    expect_same_bits({alone_.begin() + 40 * 333, alone_.end()}, result.logits);
    const StepResult original = runner.run({{&subject, kLength - 40, true}});
    expect_same_bits({alone_.begin() + 40 * 333, alone_.end()}, original.logits);
}

INSTANTIATE_TEST_SUITE_P(All, Invariance,
                         ::testing::Combine(::testing::Values("f32", "bf16", "int8"),
                                            ::testing::Values("generic", "avx2", "avx512", "avx512_bf16")),
                         [](const auto& test) {
                             return std::string(std::get<0>(test.param)) + "_" + std::get<1>(test.param);
                         });

}  // namespace
}  // namespace llm::engine
