// Logits of tiny random models against the float64 reference and against transformers
// (tools/make_model_goldens.py).
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "engine_worker/backend/cpu/cpu_backend.hpp"
#include "shared/json.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"

namespace llm::engine {
namespace {

using llm::testing::Sequence;
using llm::testing::StepRunner;
using llm::testing::TempDir;

std::string read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    EXPECT_TRUE(in) << path;
    return {std::istreambuf_iterator<char>(in), {}};
}

struct Golden {
    std::string config;
    uint64_t seed;
    DType dtype;
    size_t shards;
    std::vector<int32_t> tokens;
    std::vector<std::vector<double>> logits, transformers;
};

Golden load(const std::string& name) {
    const std::string dir = std::string(LLM_MODEL_GOLDENS) + "/" + name;
    const auto json = nlohmann::json::parse(read(dir + "/golden.json"));
    Golden golden;
    golden.config = read(dir + "/config.json");
    golden.seed = json["seed"];
    EXPECT_TRUE(parse_dtype(json["dtype"].get<std::string>(), golden.dtype));
    golden.shards = json["shards"];
    golden.tokens = json["tokens"].get<std::vector<int32_t>>();
    golden.logits = json["logits"];
    golden.transformers = json["transformers_logits"];
    return golden;
}

// Largest difference over the last rows, relative to the largest logit.
double relative_error(const std::vector<std::vector<double>>& expected, const std::vector<float>& all_rows) {
    const size_t vocab = expected[0].size();
    const size_t first = all_rows.size() / vocab - expected.size();
    double difference = 0;
    double largest = 0;
    for (size_t row = 0; row < expected.size(); row++) {
        for (size_t i = 0; i < vocab; i++) {
            const double value = static_cast<double>(all_rows[(first + row) * vocab + i]);
            if (!std::isfinite(value)) {
                return INFINITY;
            }
            difference = std::max(difference, std::fabs(value - expected[row][i]));
            largest = std::max(largest, std::fabs(expected[row][i]));
        }
    }
    return difference / largest;
}

bool runs_here(const char* kernels) {
    try {
        choose_kernels(kernels);
        return true;
    } catch (const std::runtime_error&) {
        return false;
    }
}

class Reference : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
  protected:
    std::vector<float> logits(const char* dtype) {
        const auto [name, kernels] = GetParam();
        golden_ = load(name);
        const TempDir dir;
        llm::testing::write_random_model(dir.path(), golden_.config, golden_.seed, golden_.dtype,
                                         golden_.shards);
        BackendOptions options;
        options.model_dir = dir.path();
        options.kv_tokens = 512;
        options.dtype = dtype;
        options.threads = 2;
        CpuBackend backend(options, kernels);
        StepRunner runner(backend);
        Sequence sequence{golden_.tokens, {}};
        return runner.run({{&sequence, sequence.tokens.size(), true}}).logits;
    }
    Golden golden_;
};

TEST_P(Reference, F32AgreesWithTheFloat64Reference) {
    if (!runs_here(std::get<1>(GetParam()))) {
        GTEST_SKIP() << "this machine cannot run " << std::get<1>(GetParam());
    }
    const std::vector<float> got = logits("f32");
    EXPECT_LT(relative_error(golden_.logits, got), 2e-6);
    EXPECT_LT(relative_error(golden_.transformers, got), 2e-6);
}

TEST_P(Reference, Bf16AndInt8StayNear) {
    if (!runs_here(std::get<1>(GetParam()))) {
        GTEST_SKIP() << "this machine cannot run " << std::get<1>(GetParam());
    }
    EXPECT_LT(relative_error(golden_.logits, logits("bf16")), 0.03);
    EXPECT_LT(relative_error(golden_.logits, logits("int8")), 0.05);
}

INSTANTIATE_TEST_SUITE_P(
    Models, Reference,
    ::testing::Combine(::testing::Values("llama2", "llama31", "llama_linear", "llama32_tied",
                                         "mistral_window", "mistral", "qwen2", "qwen2_untied", "qwen3",
                                         "qwen3_untied"),
                       ::testing::Values("generic", "avx2", "avx512", "avx512_bf16")),
    [](const auto& test) { return std::string(std::get<0>(test.param)) + "_" + std::get<1>(test.param); });

}  // namespace
}  // namespace llm::engine
