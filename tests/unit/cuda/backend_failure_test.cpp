// What a GPU can do to the CUDA backend, played by the emulated one: refusals at the start, memory, disappearing.
#include <gtest/gtest.h>

#include <stdexcept>

#include "tests/unit/cuda/backend_fixture.hpp"

namespace llm::engine::cuda {
namespace {

std::string why_not(const BackendOptions& o) {
    try {
        const CudaBackend backend(o);
        return "";
    } catch (const std::runtime_error& error) {
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
        return error.what();
    }
}

TEST_F(CudaBackendTest, SaysWhyItCannotStart) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    const BackendOptions o = options(dir.path());
    auto& gpu = llm::emulation::device();
    gpu.driver_version = 0;
    EXPECT_NE(why_not(o).find("no NVIDIA driver"), std::string::npos);
    gpu.driver_version = 12040;
    EXPECT_NE(why_not(o).find("too old: it supports CUDA 12.4, this program needs 13.0"), std::string::npos);
    gpu.driver_version = 13000;
    gpu.count = 0;
    gpu.count_error = cudaErrorNoDevice;
    EXPECT_NE(why_not(o).find("finds no GPU"), std::string::npos);
    gpu.count = 1;
    gpu.count_error = cudaSuccess;
    gpu.memory = size_t{40} << 20;
    const std::string fit = why_not(o);
    EXPECT_NE(fit.find("does not fit: it needs "), std::string::npos) << fit;
    EXPECT_NE(fit.find("may use 36.0 MiB"), std::string::npos) << fit;
    gpu.memory = size_t{512} << 20;
    BackendOptions bad = o;
    bad.dtype = "int8";
    EXPECT_NE(why_not(bad).find("--dtype int8"), std::string::npos);
    bad = o;
    bad.max_context = 100000;
    EXPECT_NE(why_not(bad).find("max_position_embeddings"), std::string::npos);
    bad = o;
    bad.kv_tokens = 100'000'000;
    EXPECT_NE(why_not(bad).find("100000016 tokens"), std::string::npos);
    EXPECT_EQ(why_not(o), "");
}

TEST_F(CudaBackendTest, TakesNoMemoryAfterTheStart) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    BackendOptions o = options(dir.path());
    o.kv_tokens = 0;
    o.gpu_memory = 0.5;
    auto& gpu = llm::emulation::device();
    CudaBackend backend(o);
    EXPECT_LE(gpu.used, gpu.memory / 2);
    EXPECT_EQ(backend.info().kv_slots, 512 * 4) << "no more than all sequences can use";
    const size_t used = gpu.used;
    gpu.allocations_until_failure = 0;
    std::vector<Sequence> s = {{prompt(1, 50), {}}, {prompt(2, 3), {}}};
    decode(backend, s, 3);
    EXPECT_EQ(gpu.used, used);
}

TEST_F(CudaBackendTest, StepsRunWithoutGraphs) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    const std::vector<Sequence> one = {{prompt(1, 30), {}}};
    const std::vector<Sequence> three = {{prompt(2, 9), {}}, {prompt(3, 40), {}}, {prompt(4, 5), {}}};
    auto& gpu = llm::emulation::device();
    std::vector<std::vector<std::pair<int32_t, float>>> said;
    for (const auto& [graphs, error] : {std::pair{-1L, cudaSuccess}, {1L, cudaErrorMemoryAllocation}, {0L, cudaErrorMemoryAllocation},
                                        {1L, cudaErrorInvalidValue}, {0L, cudaErrorInvalidValue}}) {
        CudaBackend backend(options(dir.path()));
        gpu.graphs_until_failure = graphs;
        gpu.graph_error = error;
        gpu.graph_launches = 0;
        std::vector<Sequence> a = one, b = three, c = one;
        said.push_back(decode(backend, a, 3));
        for (std::vector<Sequence>* more : {&b, &c}) {
            const auto got = decode(backend, *more, 3);
            said.back().insert(said.back().end(), got.begin(), got.end());
        }
        EXPECT_EQ(said.back(), said.front()) << graphs;
        EXPECT_EQ(backend.graphs(), graphs < 0 ? 2u : static_cast<size_t>(graphs));
        EXPECT_EQ(gpu.graph_launches, graphs < 0 ? 7u : graphs > 0 ? 5u : 0u) << "the first step of a kind is no replay";
    }
}

// As a driver does that is older than programmatic launches in graphs.
TEST_F(CudaBackendTest, GraphsAreWorthMoreThanLaunchesThatOverlap) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    auto& gpu = llm::emulation::device();
    std::vector<std::vector<std::pair<int32_t, float>>> said;
    for (const bool can : {true, false}) {
        CudaBackend backend(options(dir.path()));
        gpu.early_in_graphs = can;
        gpu.graph_launches = 0;
        std::vector<Sequence> one = {{prompt(1, 30), {}}};
        ::testing::internal::CaptureStderr();
        said.push_back(decode(backend, one, 5));
        const std::string told = ::testing::internal::GetCapturedStderr();
        EXPECT_EQ(told.find("without launches that overlap, which is slower") != std::string::npos, !can) << told;
        EXPECT_EQ(told.find("without CUDA graphs"), std::string::npos) << told;
        EXPECT_EQ(backend.graphs(), 1u);
        EXPECT_EQ(gpu.graph_launches, 4u);
    }
    EXPECT_EQ(said[0], said[1]);
}

TEST_F(CudaBackendTest, AGpuThatDisappearsIsReportedAtEveryPlace) {
    const TempDir dir;
    llm::testing::write_random_model(dir.path(), kConfig, 5, DType::kBf16);
    BackendOptions o = options(dir.path());
    o.kv_tokens = 256;
    for (const long calls : {1L, 2L, 5L, 9L, 14L, 20L, 31L, 33L}) {
        CudaBackend backend(o);
        std::vector<Sequence> s = {{prompt(1, 20), {}}};
        llm::emulation::device().calls_until_lost = calls;
        try {
            decode(backend, s, 10);
            ADD_FAILURE() << "nothing was noticed after " << calls;
        } catch (const std::runtime_error& error) {
            EXPECT_NE(std::string(error.what()).find("GPU"), std::string::npos);
            EXPECT_NE(std::string(error.what()).find("launch failure"), std::string::npos) << error.what();
        }
        llm::emulation::device().calls_until_lost = -1;
    }
}

}  // namespace
}  // namespace llm::engine::cuda
