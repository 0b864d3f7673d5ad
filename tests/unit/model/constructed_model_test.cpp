// Models whose text is known exactly: what tests of the whole server build on.
#include <gtest/gtest.h>

#include "engine_worker/backend/cpu/cpu_backend.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"

namespace llm::engine {
namespace {

using llm::testing::Sequence;
using llm::testing::StepRunner;
using llm::testing::TempDir;

class Constructed : public ::testing::TestWithParam<const char*> {
  protected:
    CpuBackend open() const {
        BackendOptions options;
        options.model_dir = dir_.path();
        options.kv_tokens = 4000;
        options.dtype = GetParam();
        options.threads = 2;
        options.max_step_tokens = 1024;
        return CpuBackend(options);
    }
    TempDir dir_;
};

TEST_P(Constructed, LookupModelFollowsItsTable) {
    std::vector<int32_t> next(300);
    for (size_t i = 0; i < next.size(); i++) {
        next[i] = static_cast<int32_t>((i * 7 + 5) % next.size());
    }
    next[17] = next[18] = next[19] = 4;  // several predecessors
    llm::testing::write_lookup_model(dir_.path(), next);
    CpuBackend backend = open();
    StepRunner runner(backend);
    Sequence sequence{{17, 30}, {}};
    runner.generate(sequence, 200);
    for (size_t i = 1; i + 1 < sequence.tokens.size(); i++) {
        ASSERT_EQ(sequence.tokens[i + 1], next[static_cast<size_t>(sequence.tokens[i])]) << i;
    }
}

TEST_P(Constructed, CopyModelRepeatsFromAFixedDistance) {
    for (const int32_t distance : {0, 1, 5, 31, 32, 100, 700}) {
        SCOPED_TRACE(distance);
        llm::testing::write_copy_model(dir_.path(), 259, distance);
        CpuBackend backend = open();
        StepRunner runner(backend);
        Sequence sequence;
        for (int32_t i = 0; i <= distance; i++) {
            sequence.tokens.push_back((i * 37 + 11) % 259);
        }
        const size_t prompt = sequence.tokens.size();
        runner.generate(sequence, 150);
        for (size_t i = prompt; i < sequence.tokens.size(); i++) {
            ASSERT_EQ(sequence.tokens[i], sequence.tokens[i - 1 - static_cast<size_t>(distance)]) << i;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Dtypes, Constructed, ::testing::Values("f32", "bf16", "int8"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace llm::engine
