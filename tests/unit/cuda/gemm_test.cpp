// cuBLASLt as the backend calls it, against float64: only on a GPU.
#include "engine_worker/backend/cuda/gemm.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "engine_worker/backend/cuda/algorithm_cache.hpp"
#include "tests/support/gpu_array.hpp"
#include "tests/support/model_builder.hpp"

namespace llm::engine::cuda {
namespace {

using llm::testing::as_bf16;
using llm::testing::as_f32;
using llm::testing::GpuArray;
using llm::testing::random_values;
using llm::testing::test_stream;

TEST(Gemm, EveryKindTunedAndNot) {
    const llm::testing::TempDir dir;
    const GpuArray<uint8_t> workspace(Gemm::kWorkspace);
    for (const bool tuned : {false, true, true}) {  // the last from the file
        Gemm gemm(test_stream(), reinterpret_cast<std::byte*>(workspace.get()), "test", dir.path() + "/algorithms");
        for (const int kind : {0, 1, 2}) {
            constexpr int kN = 160, kK = 192, kStride = 192;
            for (const int rows : {17, 32, 100}) {
                const size_t count = static_cast<size_t>(rows) * kStride;
                const std::vector<float> x = random_values(static_cast<size_t>(rows) * kK, 1);
                const std::vector<float> w = random_values(kN * kK, 2);
                const std::vector<float> before = random_values(count, 4);
                const GpuArray<uint16_t> gpu_x(as_bf16(x)), gpu_w(as_bf16(w)), half(count);
                const GpuArray<float> y(before);
                GemmCall call;
                call.w = gpu_w.get();
                call.x = gpu_x.get();
                call.bf16_out = (kind & 1) != 0;
                call.add = (kind & 2) != 0;
                call.y = call.bf16_out ? static_cast<void*>(half.get()) : y.get();
                call.n = kN;
                call.k = kK;
                call.rows = rows;
                call.y_stride = kStride;
                if (tuned) {
                    const GpuArray<float> scratch(count);
                    GemmCall trial = call;
                    trial.y = scratch.get();
                    gemm.tune(trial, {gpu_w.get(), gpu_w.get()});
                }
                gemm.run(call);
                const std::vector<float> got = call.bf16_out ? as_f32(half.values()) : y.values();
                for (int row = 0; row < rows; row++) {
                    for (int j = 0; j < kN; j++) {
                        double sum = call.add ? static_cast<double>(before[row * kStride + j]) : 0;
                        for (int i = 0; i < kK; i++) {
                            sum += static_cast<double>(x[row * kK + i]) * static_cast<double>(w[j * kK + i]);
                        }
                        ASSERT_NEAR(got[row * kStride + j], sum, 1e-3 + (call.bf16_out ? 0.005 * std::fabs(sum) : 0))
                            << kind << " " << rows;
                    }
                    if (!call.bf16_out) {
                        ASSERT_EQ(got[row * kStride + kN], before[row * kStride + kN]) << "wrote past its columns";
                    }
                }
            }
        }
        gemm.save();
    }
}

TEST(Gemm, OwnKernelsCompete) {
    const llm::testing::TempDir dir;
    const GpuArray<uint8_t> workspace(Gemm::kWorkspace);
    constexpr int kN = 1024, kK = 1024, kRows = 32;
    const GpuArray<uint16_t> w(std::vector<uint16_t>(kN * kK, 0)), x(std::vector<uint16_t>(kRows * kK, 0));
    const GpuArray<float> y(kRows * kN);
    GemmCall call;
    call.w = w.get();
    call.x = x.get();
    call.y = y.get();
    call.n = call.y_stride = kN;
    call.k = kK;
    call.rows = kRows;
    GemmCall other = call;
    other.bf16_out = true;
    for (const bool again : {false, true}) {  // again: from the file
        Gemm gemm(test_stream(), reinterpret_cast<std::byte*>(workspace.get()), "test", dir.path() + "/algorithms");
        EXPECT_EQ(gemm.own_choice(call), again ? kLibrary : 0) << "where nothing was timed, the own kernel";
        int products = 0;
        const auto make = [&](const uint16_t* of, int choice) {
            EXPECT_EQ(of, w.get());
            products++;
            for (int i = 0; i < (choice == 1 ? 0 : 200); i++) {
                test_stream().zero(y.get(), kRows * kN * sizeof(float));
            }
        };
        gemm.tune(other, {w.get()}, {make, 3});
        gemm.tune(call, {w.get()}, {make, 1});
        EXPECT_EQ(gemm.own_choice(other), 1) << "it does nothing";
        EXPECT_EQ(gemm.own_choice(call), kLibrary) << "it clears its result 200 times";
        EXPECT_EQ(products == 0, again);
        gemm.save();
    }
}

}  // namespace
}  // namespace llm::engine::cuda
