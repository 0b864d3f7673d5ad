// What the kernels ask of memory, in a model with the head dimension and the group of Llama-3.1-8B: banks of shared memory that lanes share,
// and sectors of which only a part is used, cost time that no other test without a GPU would notice.
#include <algorithm>
#include <string>
#include <utility>

#include "tests/support/cuda_emulation/runtime.hpp"
#include "tests/support/ptx/block_order.hpp"
#include "tests/support/ptx/memory_profile.hpp"
#include "tests/unit/cuda/backend_fixture.hpp"

namespace llm::engine::cuda {
namespace {

class MemoryUse : public CudaBackendTest {
  protected:
    // A backend without graphs for steps of up to 48 sequences, of a random model whose config.json holds
    // `sizes` and what all have here.
    CudaBackend random_backend(const std::string& sizes, int vocab = 333) {
        llm::testing::write_random_model(dir_.path(),
                                         R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "vocab_size": )" + std::to_string(vocab) +
                                             R"(, "max_position_embeddings": 1024, "tie_word_embeddings": true, )" + sizes + "}",
                                         5, DType::kBf16);
        BackendOptions o = options(dir_.path());
        o.max_step_seqs = 48;
        o.max_step_tokens = 640;
        o.kv_tokens = 4096;
        return CudaBackend(o, {.graphs = false, .tune = false, .overlap = false, .algorithm_file = ""});
    }

    const TempDir dir_;
};

// One token more of each of the first `n` of `sequences`.
std::vector<Feed> feed(std::vector<Sequence>& sequences, size_t n) {
    std::vector<Feed> feeds;
    for (size_t i = 0; i < n; i++) {
        sequences[i].tokens.push_back(1);
        feeds.push_back({&sequences[i], 1});
    }
    return feeds;
}

TEST_F(MemoryUse, NoKernelTakesMuchMoreThanTheLeast) {
    CudaBackend backend =
        random_backend(R"("hidden_size": 512, "intermediate_size": 768, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 128)");
    llm::ptx::MemoryProfile profile;
    StepRunner runner(backend);
    std::vector<Sequence> sequences(1, {prompt(0, 200), {}});
    runner.run({{&sequences[0], sequences[0].tokens.size()}}, false);
    for (const size_t n : {size_t{1}, size_t{12}, size_t{24}, size_t{40}}) {
        sequences.resize(1);  // the others begin anew
        sequences.resize(n);
        runner.run(feed(sequences, n), false);
    }

    const struct {
        const char* kernel;
        double shared, global;  // at most so many times the least
    } limits[] = {
        {"gemv_kernelILi1ELb0E", 1.0, 1.01},
        {"gemv_kernelILi2ELb0E", 1.0, 1.01},
        {"gemm_kernelILi4ELi1ELb0E", 1.0, 1.02},
        {"gemm_kernelILi4ELi2ELb0E", 1.0, 1.02},
        {"decode_attention_kernelILi128E", 1.15, 1.05},
        {"prefill_attention_kernelILi128E", 1.0, 1.25},
        {"rotate_and_store_kernel", 1.0, 1.0},
        {"sample_kernel", 1.6, 1.01},          // neighbours that are ordered meet in banks
        {"rms_norm_kernel", 1.0, 1.6},      // 32 bytes of a lane in two loads, the second from the first-level cache
        {"silu_multiply_kernel", 1.0, 1.7},  // the same
        {"embed_kernel", 1.0, 1.6},         // the same
    };
    const auto kernels = profile.kernels();
    for (const auto& limit : limits) {
        bool found = false;
        for (const auto& [name, use] : kernels) {
            if (name.find(limit.kernel) != std::string::npos) {
                found = true;
                EXPECT_GT(use.least_sectors, 0u);
                EXPECT_LE(use.shared(), limit.shared) << name << "\n" << profile.worst(name, 8);
                EXPECT_LE(use.global(), limit.global) << name << "\n" << profile.worst(name, 8);
            }
        }
        EXPECT_TRUE(found) << limit.kernel << " was not used";
    }
}

// Blocks that share a sum, of products of few rows and of more, of attention of decodes and of prompts; and launches that begin early.
TEST_F(MemoryUse, BlocksAndLaunchesReadWhatOthersWroteAfterIt) {
    CudaBackend backend =
        random_backend(R"("hidden_size": 64, "intermediate_size": 2048, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64)");
    StepRunner runner(backend);
    Sequence first{prompt(0, 600), {}};
    runner.run({{&first, first.tokens.size() - 5}}, false);
    const llm::ptx::BlockOrder order;
    uint64_t before = 0;
    const auto read = [&](const std::vector<Feed>& feeds) {
        runner.run(feeds, false);
        return order.reads() - std::exchange(before, order.reads());
    };
    EXPECT_GT(read({{&first, 4}}), 0u) << "few tokens after many";
    EXPECT_GT(read({{&first, 1}}), 0u);
    std::vector<Sequence> others(40);
    for (const size_t n : {size_t{20}, size_t{40}}) {
        EXPECT_GT(read(feed(others, n)), 0u) << n;
    }
}

TEST_F(MemoryUse, BlocksThatShareARowOfLogits) {
    CudaBackend backend = random_backend(R"("hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32)",
                                         40000);
    StepRunner runner(backend);
    Sequence sequence{prompt(0, 4), {}};
    runner.run({{&sequence, 4}}, false);
    const auto step = [&](float temperature, float top_p) {
        SampleParams params;
        params.temperature = temperature;
        params.top_p = top_p;
        sequence.tokens.push_back(1);
        runner.run({{&sequence, 1, false, params}}, false);
    };
    const std::pair<float, float> draws[] = {{0.0f, 1.0f}, {0.8f, 1.0f}, {0.8f, 0.95f}};
    for (const auto& [temperature, top_p] : draws) {  // nothing else of this model is shared by blocks
        const llm::ptx::BlockOrder order;
        step(temperature, top_p);
        EXPECT_GT(order.reads(), 0u) << temperature << " " << top_p;
    }
    llm::ptx::MemoryProfile profile;
    for (const auto& [temperature, top_p] : draws) {
        step(temperature, top_p);
    }
    const auto kernels = profile.kernels();
    for (const std::string wanted : {"sample_best_kernel", "sample_draw_kernel"}) {
        const auto found = std::find_if(kernels.begin(), kernels.end(),
                                        [&](const auto& kernel) { return kernel.first.find(wanted) != std::string::npos; });
        ASSERT_NE(found, kernels.end()) << wanted;
        EXPECT_LE(found->second.global(), 1.1) << wanted << "\n" << profile.worst(found->first, 8);
    }
}

// Or none would begin while the one before it ends.
TEST_F(MemoryUse, LaunchesOfASmallStepDivideAMultiprocessorAlike) {
    llm::testing::write_random_model(dir_.path(), kConfig, 5, DType::kBf16);
    BackendOptions o = options(dir_.path());
    o.max_step_seqs = 24;
    CudaBackend backend(o, {.graphs = false, .tune = false, .overlap = true, .algorithm_file = ""});
    StepRunner runner(backend);
    std::vector<Sequence> sequences(24);
    const auto step = [&](size_t n) {
        const size_t before = llm::emulation::device().divided_anew;
        runner.run(feed(sequences, n), false);
        return llm::emulation::device().divided_anew - before;
    };
    step(1);
    EXPECT_EQ(step(1), 0u);
    EXPECT_EQ(step(16), 0u);
    EXPECT_EQ(step(24), 2u + 2 * 2) << "after embedding, around the attention of two layers, before sampling";
    EXPECT_EQ(step(1), 0u);
}

}  // namespace
}  // namespace llm::engine::cuda
