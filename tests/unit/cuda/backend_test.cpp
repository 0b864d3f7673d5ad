// The whole CUDA backend: against the reference, the CPU backend, itself in graphs, and models whose text is known.
// Compiled twice: with emulated kernels (everywhere) and for a GPU (make test-gpu).
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "engine_worker/backend/cpu/cpu_backend.hpp"
#include "engine_worker/backend/cpu/sampler.hpp"
#include "engine_worker/backend/cuda/cuda_backend.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "engine_worker/backend/cuda/weights.hpp"
#include "shared/json.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"
#include "tests/unit/cuda/backend_fixture.hpp"

namespace llm::engine::cuda {
namespace {

std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    EXPECT_TRUE(in) << path;
    return {std::istreambuf_iterator<char>(in), {}};
}

// Where the tree is, for programs that run on another machine than they were built on.
std::string goldens() {
    const char* given = std::getenv("LLM_MODEL_GOLDENS");
    return given != nullptr ? given : LLM_MODEL_GOLDENS;
}

class Golden : public CudaBackendTest, public ::testing::WithParamInterface<const char*> {};

// Every family against the float64 reference, whole and in chunks, prompt and decode.
TEST_P(Golden, LogitsStayNearTheReference) {
    const std::string source = goldens() + "/" + GetParam();
    const auto json = nlohmann::json::parse(read(source + "/golden.json"));
    DType dtype;
    ASSERT_TRUE(parse_dtype(json["dtype"].get<std::string>(), dtype));
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), read(source + "/config.json"), json["seed"], dtype, json["shards"]);
    const auto tokens = json["tokens"].get<std::vector<int32_t>>();
    const std::vector<std::vector<double>> expected = json["logits"];
    const size_t vocab = expected[0].size();
    CudaBackend backend(options(dir.path()));
    StepRunner runner(backend);
    const size_t n = tokens.size();
    for (const std::vector<size_t>& cuts :
         {std::vector<size_t>{n}, std::vector<size_t>{n - 2, 1, 1}, std::vector<size_t>{5, n - 5}}) {
        Sequence sequence{tokens, {}};
        std::vector<float> logits;
        for (const size_t count : cuts) {
            const StepResult result = runner.run({{&sequence, count, true}});
            logits.insert(logits.end(), result.logits.begin(), result.logits.end());
        }
        double difference = 0, largest = 0;
        const size_t first = n - expected.size();
        for (size_t row = 0; row < expected.size(); row++) {
            for (size_t i = 0; i < vocab; i++) {
                const double got = static_cast<double>(logits[(first + row) * vocab + i]);
                ASSERT_TRUE(std::isfinite(got));
                difference = std::max(difference, std::fabs(got - expected[row][i]));
                largest = std::max(largest, std::fabs(expected[row][i]));
            }
        }
        EXPECT_LT(difference / largest, 0.03) << cuts.size() << " steps";
        runner.release(sequence);
    }
}

INSTANTIATE_TEST_SUITE_P(Models, Golden,
                         ::testing::Values("llama2", "llama31", "llama_linear", "llama32_tied", "mistral_window",
                                           "mistral", "qwen2", "qwen2_untied", "qwen3", "qwen3_untied"),
                         [](const auto& test) { return std::string(test.param); });

TEST_F(CudaBackendTest, ConstructedModelsSayExactlyTheirText) {
    const TempDir dir;
    std::vector<int32_t> next(300);
    for (size_t i = 0; i < next.size(); i++) {
        next[i] = static_cast<int32_t>((i * 7 + 5) % next.size());
    }
    llm::testing::write_lookup_model(dir.path(), next);
    {
        CudaBackend backend(options(dir.path()));
        StepRunner runner(backend);
        Sequence sequence{{17, 30}, {}};
        runner.generate(sequence, 20);
        for (size_t i = 1; i + 1 < sequence.tokens.size(); i++) {
            ASSERT_EQ(sequence.tokens[i + 1], next[static_cast<size_t>(sequence.tokens[i])]) << i;
        }
    }
    for (const int32_t distance : {0, 5, 70}) {
        llm::testing::write_copy_model(dir.path(), 259, distance);
        CudaBackend backend(options(dir.path()));
        StepRunner runner(backend);
        Sequence sequence;
        for (int32_t i = 0; i <= distance; i++) {
            sequence.tokens.push_back((i * 37 + 11) % 259);
        }
        const size_t prompt = sequence.tokens.size();
        runner.generate(sequence, 25);
        for (size_t i = prompt; i < sequence.tokens.size(); i++) {
            ASSERT_EQ(sequence.tokens[i], sequence.tokens[i - 1 - static_cast<size_t>(distance)]) << distance << " " << i;
        }
    }
}

TEST_F(CudaBackendTest, GraphsWithPaddingGiveTheBitsOfEagerSteps) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    BackendOptions o = options(dir.path());
    o.max_step_seqs = 8;
    for (const size_t n : {size_t{1}, size_t{3}, size_t{5}}) {
        std::vector<Sequence> base;
        for (size_t i = 0; i < n; i++) {
            base.push_back({prompt(i, 10 + 30 * i), {}});
        }
        std::vector<Sequence> a = base, b = base;
        CudaBackend eager(o, {.graphs = false, .tune = true, .overlap = true, .algorithm_file = ""});
        const auto expected = decode(eager, a, 4);
        EXPECT_EQ(eager.graphs(), 0u);
        CudaBackend graphs(o, {});
        const auto got = decode(graphs, b, 4);
        EXPECT_EQ(got, expected) << n;
        EXPECT_GE(graphs.graphs(), 1u);
    }
}

#if defined(LLM_CUDA_EMULATION)
// Beside reading memory, the number of launches is what a token of one user costs.
TEST_F(CudaBackendTest, FiveLaunchesPerLayerAndThreeMore) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    CudaBackend backend(options(dir.path()), {.graphs = false, .tune = false, .overlap = true, .algorithm_file = ""});
    std::vector<Sequence> sequences = {{prompt(1, 10), {}}, {prompt(2, 40), {}}};
    decode(backend, sequences, 2);
    StepRunner runner(backend);
    const size_t before = llm::emulation::device().kernels;
    runner.run({{&sequences[0], 1, false}, {&sequences[1], 1, false}});
    // embed, lm_head, sample; and what the slot table needs
    EXPECT_LE(llm::emulation::device().kernels - before, size_t{5 * 2 + 3 + 1});
}
#endif

// How far logits of a model with 333 tokens are from the CPU backend's.
class Agreement {
  public:
    void add(const std::vector<float>& mine, const std::vector<float>& theirs) {
        ASSERT_EQ(mine.size(), theirs.size());
        for (size_t row = 0; row < mine.size() / 333; row++) {
            const auto log_sum = [&](const std::vector<float>& from) {
                double sum = 0;
                for (size_t i = 0; i < 333; i++) {
                    sum += std::exp(static_cast<double>(from[row * 333 + i]));
                }
                return std::log(sum);
            };
            const double mine_sum = log_sum(mine), their_sum = log_sum(theirs);
            size_t best = 0, their_best = 0;
            for (size_t i = 0; i < 333; i++) {
                best = mine[row * 333 + i] > mine[row * 333 + best] ? i : best;
                their_best = theirs[row * 333 + i] > theirs[row * 333 + their_best] ? i : their_best;
                differences_.push_back(std::fabs((static_cast<double>(mine[row * 333 + i]) - mine_sum) -
                                                 (static_cast<double>(theirs[row * 333 + i]) - their_sum)));
            }
            worst_regret_ = std::max(worst_regret_, static_cast<double>(theirs[row * 333 + their_best] -
                                                                        theirs[row * 333 + best]));
        }
    }
    void check() {
        std::sort(differences_.begin(), differences_.end());
        double mean = 0;
        for (const double d : differences_) {
            mean += d / static_cast<double>(differences_.size());
        }
        EXPECT_LT(worst_regret_, 0.2);
        EXPECT_LT(mean, 0.06);
        EXPECT_LT(differences_.at(differences_.size() * 99 / 100), 0.2);
    }

  private:
    std::vector<double> differences_;
    double worst_regret_ = 0;
};

class HeadDimension : public CudaBackendTest, public ::testing::WithParamInterface<int> {};

TEST_P(HeadDimension, AgreesWithTheCpuBackend) {
    const TempDir dir;
    std::string config = kConfig;  // with norms of the heads
    config.replace(config.find("32"), 2, std::to_string(GetParam()));
    llm::testing::write_random_model(dir.path(), config, 6, DType::kBf16);
    CudaBackend gpu(options(dir.path()));
    BackendOptions o = options(dir.path());
    o.threads = 1;
    CpuBackend cpu(o);
    StepRunner on_gpu(gpu), on_cpu(cpu);
    const std::vector<int32_t> tokens = prompt(3, 120);
    Sequence a{tokens, {}}, b{tokens, {}};
    Agreement agreement;
    for (const size_t count : {size_t{70}, size_t{1}, size_t{30}, size_t{1}, size_t{18}}) {
        agreement.add(on_gpu.run({{&a, count, true}}).logits, on_cpu.run({{&b, count, true}}).logits);
    }
    agreement.check();
}
INSTANTIATE_TEST_SUITE_P(CudaBackend, HeadDimension, ::testing::Values(32, 90, 128, 256));

// cuBLASLt's products leave the bias of q, k and v to attention; our own add it. Emulated, one makes those of
// odd numbers of rows, the other those of even ones.
TEST_F(CudaBackendTest, ABiasIsAddedOnceWhoeverMultiplies) {
    const TempDir dir;
    llm::testing::write_random_model(
        dir.path(), R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 333,
        "max_position_embeddings": 512, "tie_word_embeddings": true})",
        7, DType::kBf16);
    CudaBackend gpu(options(dir.path()));
    BackendOptions o = options(dir.path());
    o.threads = 1;
    CpuBackend cpu(o);
    StepRunner on_gpu(gpu), on_cpu(cpu);
    std::vector<Sequence> sequences = {{prompt(3, 82), {}}, {prompt(4, 140), {}}};
    std::vector<Sequence> same = sequences;
    Agreement agreement;
    const auto step = [&](size_t first, size_t second) {
        const auto feeds = [&](std::vector<Sequence>& of) {
            std::vector<Feed> out;
            if (first > 0) {
                out.push_back({&of[0], first, true});
            }
            if (second > 0) {
                out.push_back({&of[1], second, true});
            }
            return out;
        };
        agreement.add(on_gpu.run(feeds(sequences)).logits, on_cpu.run(feeds(same)).logits);
    };
    step(80, 0);
    step(1, 70);  // a decode and a prompt
    step(1, 69);
    step(0, 1);
    agreement.check();
}

// Few tokens after a long context, as in a conversation whose beginning is in the cache: attention splits the context.
TEST_F(CudaBackendTest, TheShortEndOfALongPromptIsLikeDecodingIt) {
    const TempDir dir;
    std::string config = kConfig;
    config.replace(config.find("512"), 3, "1024");
    llm::testing::write_random_model(dir.path(), config, 6, DType::kBf16);
    CudaBackend backend(options(dir.path()));
    ASSERT_GT(plan_prefill_splits(1, 2, 600, backend.device().multiprocessors), 1);
    StepRunner runner(backend);
    Sequence together{prompt(3, 600), {}};
    for (const size_t count : {size_t{256}, size_t{256}, size_t{85}}) {
        runner.run({{&together, count}});
    }
    Sequence other{prompt(4, 5), {}};
    const std::vector<float> got = runner.run({{&other, 5, true}, {&together, 3, true}}).logits;
    runner.release(together);

    Sequence alone{prompt(3, 600), {}};
    for (const size_t count : {size_t{256}, size_t{256}, size_t{85}}) {
        runner.run({{&alone, count}});
    }
    for (size_t token = 0; token < 3; token++) {
        const std::vector<float> expected = runner.run({{&alone, 1, true}}).logits;
        for (size_t i = 0; i < 333; i++) {
            ASSERT_NEAR(got[(5 + token) * 333 + i], expected[i], 0.1) << token << " " << i;
        }
    }
}

TEST_F(CudaBackendTest, MixedStepsPreemptionAndSharedPrefixesChangeNothing) {
    const TempDir dir;
    llm::testing::write_copy_model(dir.path(), 259, 9);
    CudaBackend backend(options(dir.path()));
    StepRunner runner(backend);
    const auto text = [](int seed) {
        std::vector<int32_t> out;
        for (int i = 0; i < 10; i++) {
            out.push_back((i * 41 + seed * 17) % 259);
        }
        return out;
    };
    SampleParams greedy = StepRunner::greedy();
    std::vector<Sequence> s;
    for (int i = 0; i < 4; i++) {
        s.push_back({text(i), {}});
    }
    for (int round = 0; round < 14; round++) {
        std::vector<Feed> feeds;
        for (size_t i = 0; i < s.size(); i++) {
            if (round >= static_cast<int>(i) * 2) {  // they start one after the other
                feeds.push_back({&s[i], s[i].tokens.size() - s[i].computed(), false, greedy});
            }
        }
        if (round == 8) {
            runner.release(s[1]);  // preempted: everything is computed anew
            feeds[1].count = s[1].tokens.size();
        }
        const StepResult result = runner.run(feeds, false);
        for (size_t i = 0; i < feeds.size(); i++) {
            feeds[i].sequence->tokens.push_back(result.token[i]);
        }
    }
    for (const Sequence& one : s) {
        for (size_t i = 10; i < one.tokens.size(); i++) {
            EXPECT_EQ(one.tokens[i], one.tokens[i - 10]);
        }
    }
}

TEST_F(CudaBackendTest, SamplingWithExtrasGoesThroughGraphs) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 8, DType::kF32);
    BackendOptions o = options(dir.path());
    CudaBackend backend(o);
    StepRunner runner(backend);
    std::vector<uint32_t> mask(11, 0);
    mask[4] = 1u << 9;
    const std::vector<std::pair<int32_t, float>> bias = {{77, 1000.0f}};
    SampleParams masked = StepRunner::greedy(), biased = StepRunner::greedy();
    masked.mask = mask.data();
    biased.logit_bias = bias.data();
    biased.n_logit_bias = 1;
    Sequence a{prompt(1, 5), {}}, b{prompt(2, 6), {}};
    runner.run({{&a, 4}, {&b, 5}}, false);
    for (int round = 0; round < 3; round++) {
        const StepResult result = runner.run({{&a, 1, false, masked}, {&b, 1, false, biased}}, false);
        EXPECT_EQ(result.token, (std::vector<int32_t>{137, 77}));
        a.tokens.push_back(137);
        b.tokens.push_back(77);
    }
    EXPECT_GT(backend.graphs(), 0u);
}

TEST_F(CudaBackendTest, SeveralBlocksShareARowOfALargeVocabulary) {
    constexpr int32_t kVocab = 20000;
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
        "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32,
        "vocab_size": 20000, "max_position_embeddings": 64, "tie_word_embeddings": true})",
                                     7, DType::kBf16);
    BackendOptions o = options(dir.path());
    o.max_step_seqs = 8;
    for (const size_t n : {size_t{1}, size_t{2}, size_t{3}}) {  // 2 blocks each; of the emulated GPU's 4 multiprocessors 1 for 3
        std::vector<Sequence> a;
        for (size_t i = 0; i < n; i++) {
            a.push_back({prompt(i, 3 + i), {}});
        }
        std::vector<Sequence> b = a;
        CudaBackend eager(o, {.graphs = false, .tune = false, .overlap = true, .algorithm_file = ""});
        CudaBackend graphs(o, {.graphs = true, .tune = false, .overlap = true, .algorithm_file = ""});
        EXPECT_EQ(decode(eager, a, 2), decode(graphs, b, 2)) << n;
        EXPECT_GE(graphs.graphs(), 1u);

        StepRunner runner(eager);
        std::vector<Feed> feeds;
        for (size_t i = 0; i < n; i++) {
            a[i].slots.clear();
            SampleParams params;
            params.seed = i;
            params.temperature = 0.9f;
            params.top_p = i % 2 == 0 ? 0.9f : 1.0f;
            feeds.push_back({&a[i], a[i].tokens.size(), false, params});
        }
        const StepResult result = runner.run(feeds);
        Sampler sampler(choose_kernels("generic"), kVocab);
        for (size_t i = 0; i < n; i++) {
            EXPECT_EQ(result.token[i], sampler.sample(result.logits.data() + i * size_t{kVocab}, feeds[i].sampling).token) << n << " " << i;
        }
    }
}

#if defined(LLM_CUDA_EMULATION)
TEST_F(CudaBackendTest, OneLaunchMoreWhereBlocksShareARow) {
    const TempDir dir;
    const auto launches = [&](int vocab) {
        llm::testing::write_random_model(dir.path(), R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama",
            "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "max_position_embeddings": 64, "tie_word_embeddings": true, "vocab_size": )" + std::to_string(vocab) + "}",
                                         7, DType::kBf16);
        CudaBackend backend(options(dir.path()), {.graphs = false, .tune = false, .overlap = true, .algorithm_file = ""});
        StepRunner runner(backend);
        Sequence sequence{prompt(1, 5), {}};
        runner.run({{&sequence, 4}}, false);
        const size_t before = llm::emulation::device().kernels;
        runner.run({{&sequence, 1}}, false);
        return llm::emulation::device().kernels - before;
    };
    const size_t few = launches(16384);
    EXPECT_EQ(launches(16385), few + 1);
}
#endif

// Larger than a pinned buffer, and filled by several threads.
TEST_F(CudaBackendTest, UploadsEveryRowOfALargeMatrix) {
    const TempDir dir;
    const std::string config_text = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 72,
        "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 8,
        "vocab_size": 140001, "max_position_embeddings": 64, "tie_word_embeddings": true})";
    llm::testing::write_random_model(dir.path(), config_text, 6, DType::kBf16);
    const ModelConfig config = load_model_config(dir.path());
    const ModelTensors tensors = load_model_tensors(config);
    const Stream stream;
    const GpuModel model = upload_model(config, tensors, stream);
    ASSERT_EQ(model.lm_head.n, 140016);
    ASSERT_EQ(model.hidden_stride, 128);
    std::vector<uint16_t> got(size_t{140016} * 128);
    stream.download(got.data(), model.embedding, got.size() * sizeof(uint16_t));
    stream.synchronize();
    const std::vector<uint16_t> zero(128, 0);
    for (size_t row = 0; row < 140016; row++) {
        const bool real = row < 140001;
        const void* expected = real ? static_cast<const void*>(tensors.embedding.data + row * 72 * 2) : zero.data();
        ASSERT_EQ(std::memcmp(&got[row * 128], expected, 72 * 2), 0) << row;
        ASSERT_EQ(std::memcmp(&got[row * 128 + 72], zero.data(), 56 * 2), 0) << row;
    }
}

}  // namespace
}  // namespace llm::engine::cuda
