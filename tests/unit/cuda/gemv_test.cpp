// Products of few rows against float64: every kernel variant, epilogue, cut and number of rows.
#include <gtest/gtest.h>

#include <cmath>

#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/plan.hpp"
#include "tests/support/gpu_array.hpp"

namespace llm::engine::cuda {
namespace {

using llm::testing::as_bf16;
using llm::testing::as_f32;
using llm::testing::GpuArray;
using llm::testing::random_values;
using llm::testing::test_stream;

// e4m3 by its definition: sign, 4 bits of exponent with bias 7, 3 of mantissa, subnormals; no infinity.
double e4m3_value(uint8_t bits) {
    const int exponent = bits >> 3 & 15;
    const int mantissa = bits & 7;
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    return bits & 0x80 ? -magnitude : magnitude;
}

struct Case {
    int n, k, rows, warps, splits;  // no warps: the kernel for more rows
    bool e4m3;
    GemvEpilogue epilogue;
    bool bias;
    bool few_warps = false;
};

class Gemv : public ::testing::Test {
  protected:
    // Also keeps the bits of the result, to compare launches.
    std::vector<float> run(const Case& c, uint64_t seed = 1) {
        const auto n = static_cast<size_t>(c.n);
        const auto k = static_cast<size_t>(c.k);
        const auto rows = static_cast<size_t>(c.rows);
        const std::vector<float> x = random_values(rows * k, seed);
        std::vector<double> w(n * k);
        std::vector<float> scale(n, 1.0f);
        std::vector<uint8_t> bytes(n * k * (c.e4m3 ? 1 : 2));
        if (c.e4m3) {
            std::mt19937 random(static_cast<unsigned>(seed));
            for (size_t i = 0; i < n * k; i++) {
                do {
                    bytes[i] = static_cast<uint8_t>(random());
                } while ((bytes[i] & 0x7f) == 0x7f);
            }
            for (size_t j = 0; j < n; j++) {
                scale[j] = 0.001f * static_cast<float>(j % 7 + 1);
            }
            for (size_t i = 0; i < n * k; i++) {
                w[i] = e4m3_value(bytes[i]) * static_cast<double>(scale[i / k]);
            }
        } else {
            const std::vector<float> values = random_values(n * k, seed + 1, 0.1f);
            std::copy(values.begin(), values.end(), w.begin());
            const std::vector<uint16_t> bf16 = as_bf16(values);
            std::memcpy(bytes.data(), bf16.data(), bytes.size());
        }
        const std::vector<float> bias = random_values(n, seed + 2);
        const std::vector<float> before = random_values(rows * n, seed + 3);

        const bool swiglu = c.epilogue == GemvEpilogue::kSwiglu;
        const GpuArray<uint8_t> gpu_w(bytes);
        const GpuArray<uint16_t> gpu_x(as_bf16(x));
        const GpuArray<float> gpu_bias(bias), gpu_scale(scale);
        const GpuArray<float> y = c.epilogue == GemvEpilogue::kAdd ? GpuArray<float>(before) : GpuArray<float>(rows * n);
        const GpuArray<uint16_t> half(rows * n / 2);
        const auto blocks = static_cast<size_t>(gemm_blocks(c.n, c.rows, c.e4m3 ? 1 : 2));
        const GpuArray<float> partial(static_cast<size_t>(c.splits) * blocks * kGemmOutputs * kGemmMostBlockRows);
        const GpuArray<unsigned> tickets(std::vector<unsigned>(std::max(n / 16, blocks), 0));
        GemvArgs args{};
        args.w = gpu_w.get();
        args.scale = c.e4m3 ? gpu_scale.get() : nullptr;
        args.bias = c.bias ? gpu_bias.get() : nullptr;
        args.x = gpu_x.get();
        args.y = swiglu ? static_cast<void*>(half.get()) : y.get();
        args.partial = partial.get();
        args.tickets = tickets.get();
        args.n = c.n;
        args.k = c.k;
        args.rows = c.rows;
        args.y_stride = swiglu ? c.n / 2 : c.n;
        args.epilogue = c.epilogue;
        if (c.warps > 0) {
            launch_gemv(args, {c.warps, c.splits}, test_stream().get());
        } else {
            launch_gemm(args, {c.splits, c.few_warps}, test_stream().get());
        }
        for (const unsigned ticket : tickets.values()) {
            EXPECT_EQ(ticket, 0u);
        }

        const std::vector<float> got = swiglu ? as_f32(half.values()) : y.values();
        double worst = 0;
        for (size_t row = 0; row < rows; row++) {
            std::vector<double> sums(n);
            double magnitude = 0;
            for (size_t j = 0; j < n; j++) {
                double size = 0;
                for (size_t i = 0; i < k; i++) {
                    const double product = static_cast<double>(x[row * k + i]) * w[j * k + i];
                    sums[j] += product;
                    size += std::fabs(product);
                }
                sums[j] += c.bias ? static_cast<double>(bias[j]) : 0.0;
                magnitude = std::max(magnitude, size);
            }
            for (size_t j = 0; j < (swiglu ? n / 2 : n); j++) {
                double expected = sums[j];
                double tolerance = 2e-6 * magnitude;
                if (swiglu) {
                    const double gate = sums[j / 8 * 16 + j % 8];
                    expected = gate / (1 + std::exp(-gate)) * sums[j / 8 * 16 + 8 + j % 8];
                    tolerance = 0.004 * std::fabs(expected) + 1e-4 * magnitude;
                } else if (c.epilogue == GemvEpilogue::kAdd) {
                    expected += static_cast<double>(before[row * n + j]);
                }
                const double error = std::fabs(static_cast<double>(got[row * (swiglu ? n / 2 : n) + j]) - expected);
                worst = std::max(worst, std::isfinite(error) ? error / tolerance : INFINITY);
            }
        }
        EXPECT_LE(worst, 1) << "n " << c.n << " k " << c.k << " rows " << c.rows << " warps " << c.warps << " splits "
                            << c.splits << " e4m3 " << c.e4m3;
        return got;
    }
};

TEST_F(Gemv, EveryNumberOfRows) {
    for (const bool e4m3 : {false, true}) {
        for (const int rows : {1, 2, 3, 7, 8, 9, 15, 16}) {
            run({48, 192, rows, 4, 1, e4m3, GemvEpilogue::kStore, false});
        }
    }
    for (const int rows : {17, 31, 32}) {
        run({32, 128, rows, 2, 1, true, GemvEpilogue::kStore, false});
    }
}

TEST_F(Gemv, EveryEpilogue) {
    for (const bool e4m3 : {false, true}) {
        for (const GemvEpilogue epilogue : {GemvEpilogue::kStore, GemvEpilogue::kAdd, GemvEpilogue::kSwiglu}) {
            run({64, 320, 5, 4, 1, e4m3, epilogue, epilogue != GemvEpilogue::kSwiglu});
            run({64, 320, 5, 2, 2, e4m3, epilogue, true});
            run({64, 320, 12, 2, 3, e4m3, epilogue, false});
            run({64, 320, 11, 4, 1, e4m3, epilogue, true});
        }
    }
    for (const GemvEpilogue epilogue : {GemvEpilogue::kStore, GemvEpilogue::kAdd, GemvEpilogue::kSwiglu}) {
        run({64, 320, 27, 4, 1, true, epilogue, true});
        run({64, 320, 27, 2, 3, true, epilogue, true});
    }
}

TEST_F(Gemv, EveryCut) {
    for (const int k : {64, 128, 704, 2112}) {
        for (const int warps : {1, 2, 5, 8}) {
            for (const int splits : {1, 2, 5}) {
                run({16, k, 3, warps, splits, false, GemvEpilogue::kStore, true});
                run({16, k, 3, warps, splits, true, GemvEpilogue::kAdd, true});
            }
        }
    }
}

TEST_F(Gemv, MoreRows) {
    prepare_kernels(false);
    for (const bool e4m3 : {false, true}) {
        for (const int rows : {1, 17, 24, 32, 33, 63, 64, 65, 130}) {
            run({144, 192, rows, 0, 1, e4m3, GemvEpilogue::kStore, true});
        }
        for (const GemvEpilogue epilogue : {GemvEpilogue::kStore, GemvEpilogue::kAdd, GemvEpilogue::kSwiglu}) {
            run({16, 64, 20, 0, 1, e4m3, epilogue, false});
            run({16, 64, 40, 0, 1, e4m3, epilogue, false});
            run({272, 832, 30, 0, 3, e4m3, epilogue, epilogue == GemvEpilogue::kAdd});
            run({272, 832, 70, 0, 3, e4m3, epilogue, epilogue == GemvEpilogue::kAdd});
        }
        for (const int rows : {33, 48, 64, 70}) {
            run({144, 192, rows, 0, rows % 3 + 1, false, e4m3 ? GemvEpilogue::kSwiglu : GemvEpilogue::kAdd, true, true});
        }
        for (const int splits : {2, 5, 8}) {
            run({128, 704, 19, 0, splits, e4m3, GemvEpilogue::kStore, false});
            run({128, 704, 35, 0, splits, e4m3, GemvEpilogue::kStore, false});
        }
    }
}

TEST_F(Gemv, ARowDoesNotDependOnItsNeighbours) {
    const auto compare = [&](Case c, int alone) {
        const std::vector<float> all = run(c);
        c.rows = alone;
        const std::vector<float> few = run(c);  // the same first rows: the generator starts alike
        ASSERT_EQ(std::memcmp(all.data(), few.data(), few.size() * sizeof(float)), 0);
    };
    compare({32, 256, 16, 4, 2, false, GemvEpilogue::kStore, false}, 1);
    compare({32, 256, 16, 4, 2, false, GemvEpilogue::kStore, false}, 8);
    compare({32, 256, 32, 4, 1, true, GemvEpilogue::kStore, false}, 3);
    prepare_kernels(false);
    compare({32, 512, 100, 0, 2, true, GemvEpilogue::kStore, false}, 50);
    compare({32, 512, 100, 0, 2, false, GemvEpilogue::kStore, false}, 50);
    compare({32, 512, 64, 0, 2, false, GemvEpilogue::kStore, false}, 20);
    compare({32, 512, 64, 0, 2, false, GemvEpilogue::kStore, false, true}, 40);
}

// Two products with a norm between them, which has no kernel of its own: residual += w1 * x, then
// w2 * (residual / rms(residual) * weight).
TEST(GemvNorm, BetweenTwoProducts) {
    struct {
        int dim, rows, warps, splits;
        bool e4m3;
    } const cases[] = {{64, 1, 4, 1, false},  {90, 7, 2, 2, false},  {320, 16, 8, 1, false}, {704, 9, 5, 3, false}, {2112, 3, 4, 1, false},
                       {90, 5, 4, 1, true},   {320, 8, 2, 3, true},  {704, 13, 4, 1, true},  {90, 11, 3, 2, true},  {2112, 15, 4, 1, true},
                       {320, 16, 2, 3, true}, {2112, 14, 2, 1, true}, {12288, 16, 4, 1, false}};
    for (const auto& c : cases) {
        SCOPED_TRACE(::testing::Message() << c.dim << " " << c.rows << " " << c.e4m3);
        const int n = static_cast<int>(round_up(c.dim, 16));
        const int stride = static_cast<int>(round_up(c.dim, kRowPad));
        constexpr int kIn = 128, kOut = 48;
        const auto real = [&](int i) { return i < c.dim; };
        std::vector<float> w1 = random_values(static_cast<size_t>(n) * kIn, 1, 0.1f);
        std::vector<float> w2 = random_values(kOut * static_cast<size_t>(stride), 2, 0.1f);
        std::vector<float> before = random_values(static_cast<size_t>(c.rows * stride), 3);
        std::vector<float> weight = random_values(static_cast<size_t>(stride), 4);
        for (size_t i = 0; i < w1.size(); i++) {
            w1[i] = real(static_cast<int>(i) / kIn) ? w1[i] : 0;
        }
        for (auto* values : {&w2, &before, &weight}) {
            for (size_t i = 0; i < values->size(); i++) {
                (*values)[i] = real(static_cast<int>(i) % stride) ? (*values)[i] : 0;
            }
        }
        const std::vector<float> x = random_values(static_cast<size_t>(c.rows) * kIn, 5);
        const int parts = stride / 16;
        // e4m3: powers of two, which both formats have
        const float scale_of_w1 = 0.5f, scale_of_w2 = 0.25f;
        const auto weights = [&](std::vector<float>& values, float scale) {
            std::vector<uint8_t> bytes;
            for (float& value : values) {
                const int exponent = std::max(-6, std::min(3, std::ilogb(value) + 2));
                bytes.push_back(value == 0 ? 0 : static_cast<uint8_t>((value < 0 ? 0x80 : 0) | (exponent + 7) << 3));
                value = value == 0 ? 0 : std::copysign(std::ldexp(scale, exponent), value);
            }
            return bytes;
        };
        const auto upload = [&](std::vector<float>& values, float scale) {
            if (c.e4m3) {
                return GpuArray<uint8_t>(weights(values, scale));
            }
            const std::vector<uint16_t> bf16 = as_bf16(values);
            std::vector<uint8_t> bytes(bf16.size() * 2);
            std::memcpy(bytes.data(), bf16.data(), bytes.size());
            return GpuArray<uint8_t>(bytes);
        };
        const GpuArray<uint8_t> gpu_w1 = upload(w1, scale_of_w1), gpu_w2 = upload(w2, scale_of_w2);
        const GpuArray<float> gpu_scale1(std::vector<float>(static_cast<size_t>(n), scale_of_w1)), gpu_scale2(std::vector<float>(kOut, scale_of_w2));
        const GpuArray<uint16_t> gpu_x(as_bf16(x));
        const GpuArray<float> hidden(before), gpu_weight(weight), out(static_cast<size_t>(c.rows) * kOut);
        const GpuArray<uint16_t> scaled(std::vector<uint16_t>(static_cast<size_t>(c.rows * stride), 0));
        const GpuArray<float> squares(std::vector<float>(static_cast<size_t>(c.rows * parts), 0.0f));
        const GpuArray<float> partial(static_cast<size_t>(c.splits * n * 32));  // for 32 rows at most
        const GpuArray<unsigned> tickets(std::vector<unsigned>(static_cast<size_t>(n), 0));
        GemvArgs args{};
        args.w = gpu_w1.get();
        args.scale = c.e4m3 ? gpu_scale1.get() : nullptr;
        args.x = gpu_x.get();
        args.y = hidden.get();
        args.partial = partial.get();
        args.tickets = tickets.get();
        args.n = n;
        args.k = kIn;
        args.rows = c.rows;
        args.y_stride = stride;
        args.epilogue = GemvEpilogue::kAdd;
        args.next = {gpu_weight.get(), scaled.get(), squares.get(), parts};
        prepare_kernels(true);  // the second begins while the first ends
        launch_gemv(args, {c.warps, c.splits}, test_stream().get());
        GemvArgs after{};
        after.w = gpu_w2.get();
        after.scale = c.e4m3 ? gpu_scale2.get() : nullptr;
        after.x = scaled.get();
        after.y = out.get();
        after.n = kOut;
        after.k = stride;
        after.rows = c.rows;
        after.y_stride = kOut;
        after.norm = {squares.get(), parts, 1.0f / static_cast<float>(c.dim), 1e-5f};
        launch_gemv(after, {c.warps, 1}, test_stream().get());
        prepare_kernels(false);
        const std::vector<float> got = out.values();
        for (int row = 0; row < c.rows; row++) {
            std::vector<double> normed(static_cast<size_t>(c.dim));
            double sum = 0;
            for (int i = 0; i < c.dim; i++) {
                double value = static_cast<double>(before[static_cast<size_t>(row * stride + i)]);
                for (int k = 0; k < kIn; k++) {
                    value += static_cast<double>(w1[static_cast<size_t>(i * kIn + k)]) *
                             static_cast<double>(x[static_cast<size_t>(row * kIn + k)]);
                }
                sum += value * value;
                normed[static_cast<size_t>(i)] = value * static_cast<double>(weight[static_cast<size_t>(i)]);
            }
            const double scale = 1 / std::sqrt(sum / c.dim + 1e-5);
            for (int j = 0; j < kOut; j++) {
                double expected = 0;
                double magnitude = 0;
                for (int i = 0; i < c.dim; i++) {
                    const double product = normed[static_cast<size_t>(i)] * scale *
                                           static_cast<double>(w2[static_cast<size_t>(j * stride + i)]);
                    expected += product;
                    magnitude += std::fabs(product);
                }
                ASSERT_NEAR(got[static_cast<size_t>(row * kOut + j)], expected, 0.0025 * magnitude) << row << " " << j;
            }
        }
    }
}

TEST_F(Gemv, PlannedShapesCoverRealModels) {
    // outputs and inputs of Llama-3.1-8B and Qwen2.5-0.5B; and 17 steps, which 7 or 8 splits cannot share
    const int shapes[][2] = {{6144, 4096}, {4096, 4096}, {28672, 4096}, {4096, 14336}, {128256, 4096},
                             {1152, 896},  {896, 896},   {9728, 896},   {896, 4864},   {151936, 896}, {128, 1088}};
    for (const auto& [n, k] : shapes) {
        for (const int bytes : {1, 2}) {
            const GemvShape shape = plan_gemv(n, k, bytes, 132);
            EXPECT_GE(shape.warps, 1);
            EXPECT_LE(shape.warps, kGemvMaxWarps);
            EXPECT_LE(shape.splits, 8);
            const int groups = k * bytes / 256;
            EXPECT_LT(shape.warps * shape.splits, std::max(5, 2 * groups)) << n << "x" << k;
            // work for most of the multiprocessors
            EXPECT_GE(n / 16 * shape.splits, std::min(110, n / 16 * std::max(1, groups / 8))) << n << "x" << k;
            for (const int rows : {17, 32, 33, 64, 65, 256}) {
                const int choices = gemm_choices(n, k, rows, bytes, 132);
                EXPECT_GE(choices, 1);
                EXPECT_TRUE(bytes == 2 || choices == 1);
                for (int choice = 0; choice < choices + 2; choice++) {
                    const int splits = plan_gemm(n, k, rows, bytes, 132, choice).splits;
                    EXPECT_TRUE(splits >= 1 && splits <= 8);
                    EXPECT_LE(splits * 2 * kGemmStepBytes, std::max(k * bytes, 2 * kGemmStepBytes));
                    const int steps = (k * bytes + kGemmStepBytes - 1) / kGemmStepBytes;
                    EXPECT_LT((splits - 1) * ((steps + splits - 1) / splits), steps) << "a split has nothing to do";
                    if (splits > 1) {
                        const int blocks = splits * gemm_blocks(n, rows, bytes);
                        EXPECT_LE(blocks, (bytes == 1 || choice > 0 ? 2 : 1) * 132);
                        EXPECT_LE(static_cast<size_t>(blocks * kGemmOutputs * gemm_block_rows(rows, bytes)),
                                  gemm_partial_floats(n, k, bytes, 132));
                    }
                }
            }
        }
    }
}

}  // namespace
}  // namespace llm::engine::cuda
