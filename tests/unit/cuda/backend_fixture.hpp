// What tests of the whole CUDA backend share.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "engine_worker/backend/cuda/cuda_backend.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"
#if defined(LLM_CUDA_EMULATION)
#include "tests/support/cuda_emulation/runtime.hpp"
#endif

namespace llm::engine::cuda {

using llm::testing::Feed;
using llm::testing::Sequence;
using llm::testing::StepRunner;
using llm::testing::TempDir;

class CudaBackendTest : public ::testing::Test {
  protected:
    // What is found out by timing is kept for the tests of this process, not at home.
    static void SetUpTestSuite() {
        static const TempDir cache;
        setenv("LLM_ENGINE_CACHE", cache.path().c_str(), 1);
    }

#if defined(LLM_CUDA_EMULATION)
    void SetUp() override { llm::emulation::device() = {}; }
    void TearDown() override {
        EXPECT_EQ(llm::emulation::device().used, 0u) << "device memory was not given back";
        llm::emulation::device() = {};
        cudaGetLastError();  // which a GPU that was lost leaves to the next test
    }
#endif

    BackendOptions options(const std::string& dir) const {
        BackendOptions o;
        o.model_dir = dir;
        o.kv_tokens = 1024;
        o.max_step_seqs = 4;
        o.max_step_tokens = 256;
        return o;
    }
};

inline constexpr const char* kConfig =
    R"({"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 333,
    "max_position_embeddings": 512, "tie_word_embeddings": true})";

inline std::vector<int32_t> prompt(uint64_t seed, size_t length) {
    const llm::testing::CounterRandom random(seed, "tokens");
    std::vector<int32_t> list;
    for (size_t i = 0; i < length; i++) {
        list.push_back(static_cast<int32_t>((random(i) + 1) / 2 * 333));
    }
    return list;
}

// Continues `sequences` together by `steps` tokens; returns what was sampled, and the logprobs.
inline std::vector<std::pair<int32_t, float>> decode(Backend& backend, std::vector<Sequence>& sequences, int steps) {
    StepRunner runner(backend);
    SampleParams params;
    params.temperature = 0.8f;
    params.top_p = 0.95f;
    params.n_logprobs = 2;
    std::vector<std::pair<int32_t, float>> out;
    for (Sequence& s : sequences) {
        runner.run({{&s, s.tokens.size() - 1}}, false);
    }
    for (int step = 0; step < steps; step++) {
        std::vector<Feed> feeds;
        for (size_t i = 0; i < sequences.size(); i++) {
            params.seed = i;
            params.position = static_cast<uint32_t>(sequences[i].tokens.size());
            feeds.push_back({&sequences[i], 1, false, params});
        }
        const StepResult result = runner.run(feeds, false);
        for (size_t i = 0; i < sequences.size(); i++) {
            sequences[i].tokens.push_back(result.token[i]);
            out.emplace_back(result.token[i], result.logprob[i]);
            EXPECT_EQ(result.top[i].size(), 2u);
        }
    }
    return out;
}

}  // namespace llm::engine::cuda
