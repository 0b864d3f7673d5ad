// Embedding, norms, rotation and cache writes, activation, conversion: against float64.
#include <gtest/gtest.h>

#include <cmath>

#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "tests/support/gpu_array.hpp"

namespace llm::engine::cuda {
namespace {

using llm::testing::as_bf16;
using llm::testing::as_f32;
using llm::testing::GpuArray;
using llm::testing::random_values;
using llm::testing::test_stream;

TEST(Elementwise, EmbedTakesTokensOfTheHostAndOfTheStepBefore) {
    constexpr int kStride = 320, kHeadDim = 80, kVocab = 50;
    const std::vector<float> table = random_values(kVocab * kStride, 1);
    const GpuArray<uint16_t> gpu_table(as_bf16(table));
    const GpuArray<int> tokens(std::vector<int>{49, -3, 0}), sampled(std::vector<int>{7, 8, 9}),
        positions(std::vector<int>{0, 131071, 5});
    std::vector<double> frequencies;
    for (int i = 0; i < kHeadDim / 2; i++) {
        frequencies.push_back(std::pow(500000.0, -2.0 * i / kHeadDim));
    }
    const GpuArray<double> gpu_frequencies(frequencies);
    const GpuArray<float> hidden(3 * kStride), rotation(3 * kHeadDim), squares(3 * kStride / 16);
    const GpuArray<uint16_t> scaled(3 * kStride);
    const std::vector<float> weight = random_values(kStride, 2);
    const GpuArray<float> gpu_weight(weight);
    launch_embed({gpu_table.get(), tokens.get(), sampled.get(), positions.get(), gpu_frequencies.get(), hidden.get(),
                  rotation.get(), kStride, kHeadDim, {gpu_weight.get(), scaled.get(), squares.get(), kStride / 16}},
                 3, test_stream().get());
    const std::vector<float> got = hidden.values();
    const int expected[] = {49, 9, 0};
    for (int row = 0; row < 3; row++) {
        for (int i = 0; i < kStride; i++) {
            ASSERT_EQ(got[row * kStride + i], table[expected[row] * kStride + i]);
        }
    }
    const std::vector<float> parts = squares.values(), times_weight = as_f32(scaled.values());
    for (int row = 0; row < 3; row++) {
        double sum = 0;
        for (int i = 0; i < kStride; i++) {
            const double value = static_cast<double>(table[expected[row] * kStride + i]);
            sum += value * value;
            ASSERT_NEAR(times_weight[row * kStride + i], value * static_cast<double>(weight[i]),
                        0.004 * std::fabs(value * static_cast<double>(weight[i])));
        }
        double got_sum = 0;
        for (int i = 0; i < kStride / 16; i++) {
            got_sum += static_cast<double>(parts[row * kStride / 16 + i]);
        }
        EXPECT_NEAR(got_sum, sum, 1e-5 * sum);
    }
    const std::vector<float> angles = rotation.values();
    for (int i = 0; i < kHeadDim / 2; i++) {
        EXPECT_NEAR(angles[kHeadDim + i], std::cos(frequencies[i] * 131071), 1e-6);
        EXPECT_NEAR(angles[kHeadDim + kHeadDim / 2 + i], std::sin(frequencies[i] * 131071), 1e-6);
    }
}

TEST(Elementwise, RmsNorm) {
    for (const auto& [dim, stride] : {std::pair{64, 64}, {90, 128}, {896, 896}, {4096, 4096}, {12288, 12288}}) {
        std::vector<float> x(3 * static_cast<size_t>(stride), 0.0f), weight(stride, 0.0f);
        const std::vector<float> values = random_values(3 * static_cast<size_t>(dim), 2, 3);
        const std::vector<float> w = random_values(dim, 3);
        for (int row = 0; row < 3; row++) {
            std::copy_n(values.begin() + row * dim, dim, x.begin() + row * stride);
        }
        std::copy(w.begin(), w.end(), weight.begin());
        const GpuArray<float> gpu_x(x), gpu_weight(weight);
        const GpuArray<int> rows(std::vector<int>{2, 0});
        const GpuArray<uint16_t> out(2 * static_cast<size_t>(stride));
        launch_rms_norm({gpu_x.get(), rows.get(), gpu_weight.get(), out.get(), stride, dim, 1e-5f}, 2,
                        test_stream().get());
        const std::vector<float> got = as_f32(out.values());
        for (int row = 0; row < 2; row++) {
            const float* from = x.data() + (row == 0 ? 2 : 0) * stride;
            double squares = 0;
            for (int i = 0; i < dim; i++) {
                squares += static_cast<double>(from[i]) * static_cast<double>(from[i]);
            }
            const double scale = 1 / std::sqrt(squares / dim + 1e-5);
            for (int i = 0; i < stride; i++) {
                const double expected = i < dim ? static_cast<double>(from[i]) * scale * static_cast<double>(w[i]) : 0;
                ASSERT_NEAR(got[row * stride + i], expected, 0.0045 * std::fabs(expected)) << dim << " " << i;
            }
        }
    }
}

TEST(Elementwise, RotateAndStore) {
    struct {
        int n_heads, n_kv, head_dim, padded;
        bool norm, bias;
    } const cases[] = {{4, 2, 128, 128, true, false}, {7, 1, 64, 64, false, true},
                       {3, 3, 80, 128, true, true},   {2, 1, 16, 64, false, false},
                       {1, 1, 256, 256, true, true},  {2, 1, 30, 64, true, true},
                       {1, 2, 130, 256, true, false}, {2, 2, 254, 256, false, true}};
    for (const auto& c : cases) {
        constexpr int kTokens = 3, kSlots = 10;
        const int heads = c.n_heads + 2 * c.n_kv;
        const int stride = heads * c.head_dim + 16;
        const int half = c.head_dim / 2;
        const std::vector<float> qkv = random_values(static_cast<size_t>(kTokens * stride), 4);
        const std::vector<float> norms = random_values(static_cast<size_t>(2 * c.head_dim), 5);
        const std::vector<float> bias = random_values(static_cast<size_t>(heads * c.head_dim), 6);
        std::vector<float> rotation;
        for (int token = 0; token < kTokens; token++) {
            for (int i = 0; i < c.head_dim; i++) {
                const double angle = token * 1.7 + (i % half) * 0.3;
                rotation.push_back(static_cast<float>(i < half ? std::cos(angle) : std::sin(angle)));
            }
        }
        const std::vector<int> slots = {9, 0, 4};
        const GpuArray<float> gpu_qkv(qkv), gpu_norms(norms), gpu_bias(bias), gpu_rotation(rotation);
        const GpuArray<int> gpu_slots(slots);
        const GpuArray<uint16_t> query(static_cast<size_t>(kTokens * c.n_heads * c.padded));
        const GpuArray<uint16_t> keys(static_cast<size_t>(c.n_kv * kSlots * c.padded));
        const GpuArray<uint16_t> values(static_cast<size_t>(c.n_kv * kSlots * c.padded));
        launch_rotate_and_store(
            {gpu_qkv.get(), c.bias ? gpu_bias.get() : nullptr, gpu_rotation.get(),
             c.norm ? gpu_norms.get() : nullptr, c.norm ? gpu_norms.get() + c.head_dim : nullptr,
             gpu_slots.get(), keys.get(), values.get(), stride, c.n_heads, c.n_kv, c.head_dim, c.padded,
             kSlots, 1e-6f},
            query.get(), 0, kTokens, test_stream().get());
        const std::vector<uint16_t> raw_keys = keys.values();
        const std::vector<float> got[] = {as_f32(query.values()), as_f32(raw_keys), as_f32(values.values())};
        for (int token = 0; token < kTokens; token++) {
            for (int head = 0; head < heads; head++) {
                const int part = head < c.n_heads ? 0 : head < c.n_heads + c.n_kv ? 1 : 2;
                const float* from = qkv.data() + token * stride + head * c.head_dim;
                std::vector<float> x(from, from + c.head_dim);
                for (size_t i = 0; c.bias && i < x.size(); i++) {
                    x[i] += bias[static_cast<size_t>(head * c.head_dim) + i];
                }
                double squares = 0;
                for (int i = 0; i < c.head_dim; i++) {
                    squares += static_cast<double>(x[static_cast<size_t>(i)]) *
                               static_cast<double>(x[static_cast<size_t>(i)]);
                }
                const double scale = c.norm && part < 2 ? 1 / std::sqrt(squares / c.head_dim + 1e-6) : 1;
                const auto normed = [&](int i) {
                    const double w = c.norm && part < 2 ? static_cast<double>(norms[part * c.head_dim + i]) : 1;
                    return static_cast<double>(x[static_cast<size_t>(i)]) * scale * w;
                };
                const int kv_head = head - c.n_heads - (part == 2 ? c.n_kv : 0);
                const float* out = got[part].data() +
                                   (part == 0 ? (token * c.n_heads + head) * c.padded
                                              : (kv_head * kSlots + slots[token]) * c.padded);
                for (int i = 0; i < c.padded; i++) {
                    double expected = 0;
                    if (i < c.head_dim && part == 2) {
                        expected = static_cast<double>(x[static_cast<size_t>(i)]);
                    } else if (i < c.head_dim) {
                        const double cosine = std::cos(token * 1.7 + (i % half) * 0.3);
                        const double sine = std::sin(token * 1.7 + (i % half) * 0.3);
                        expected = i < half ? normed(i) * cosine - normed(i + half) * sine
                                            : normed(i) * cosine + normed(i - half) * sine;
                    }
                    ASSERT_NEAR(out[i], expected, 0.005 * std::fabs(expected) + 1e-5)
                        << "head " << head << " element " << i << " of " << c.head_dim;
                }
            }
        }
        EXPECT_EQ(raw_keys[1 * c.padded], 0xffff) << "a slot that no token has was written";
    }
}

TEST(Elementwise, SiluMultiplyReadsGateAndUpInTurn) {
    constexpr int kRows = 2;
    for (const auto& [ffn, stride] : {std::pair{120, 128}, {4152, 4160}}) {  // the second of more than one block per row
        const int in_stride = 2 * ffn;
        const std::vector<float> in = random_values(static_cast<size_t>(kRows * in_stride), 6, 2);
        const GpuArray<uint16_t> gpu_in(as_bf16(in));
        const GpuArray<uint16_t> out(static_cast<size_t>(kRows * stride));
        launch_silu_multiply(gpu_in.get(), in_stride, out.get(), stride, kRows, test_stream().get());
        const std::vector<float> got = as_f32(out.values());
        for (int row = 0; row < kRows; row++) {
            for (int i = 0; i < stride; i++) {
                double expected = 0;
                if (i < ffn) {
                    const auto gate = static_cast<double>(in[row * in_stride + i / 8 * 16 + i % 8]);
                    expected = gate / (1 + std::exp(-gate)) * static_cast<double>(in[row * in_stride + i / 8 * 16 + 8 + i % 8]);
                }
                ASSERT_NEAR(got[row * stride + i], expected, 0.005 * std::fabs(expected) + 1e-7) << i;
            }
        }
    }
}

TEST(Elementwise, BiasOfRows) {
    constexpr int kRows = 3, kN = 1040, kStride = 1088;
    const std::vector<float> bias = random_values(kN, 6), before = random_values(kRows * kStride, 7);
    const GpuArray<float> gpu_bias(bias);
    for (const bool add : {false, true}) {
        const GpuArray<float> y(before);
        launch_bias_rows(gpu_bias.get(), y.get(), kN, kStride, kRows, add, test_stream().get());
        const std::vector<float> got = y.values();
        for (int i = 0; i < kRows * kStride; i++) {
            const int column = i % kStride;
            const float expected = column >= kN ? before[i] : add ? before[i] + bias[column] : bias[column];
            ASSERT_EQ(got[i], expected) << i << " " << add;
        }
    }
}

TEST(Elementwise, EveryE4m3ValueIsExact) {
    std::vector<uint8_t> bytes;
    for (int i = 0; i < 256; i++) {
        bytes.push_back(static_cast<uint8_t>((i & 0x7f) == 0x7f ? 0 : i));
    }
    const GpuArray<uint8_t> in(bytes);
    const GpuArray<float> scale(std::vector<float>{1, 0.5f});
    const GpuArray<uint16_t> out(256);
    launch_expand_e4m3(in.get(), scale.get(), 2, 128, out.get(), test_stream().get());
    const std::vector<float> got = as_f32(out.values());
    for (int i = 0; i < 256; i++) {
        const int bits = bytes[i];
        const int exponent = bits >> 3 & 15;
        const double magnitude =
            exponent == 0 ? std::ldexp(bits & 7, -9) : std::ldexp(8 + (bits & 7), exponent - 10);
        EXPECT_EQ(got[i], (bits & 0x80 ? -magnitude : magnitude) * (i < 128 ? 1 : 0.5)) << i;
    }
}

TEST(Elementwise, TableRanges) {
    const GpuArray<int> table(std::vector<int>(1000, -5));
    std::vector<int> values(400);
    for (int i = 0; i < 400; i++) {
        values[i] = i;
    }
    const GpuArray<int> gpu_values(values);
    const GpuArray<TableRange> ranges(std::vector<TableRange>{{10, 0, 1}, {500, 1, 399}});
    launch_update_table(table.get(), ranges.get(), gpu_values.get(), 2, test_stream().get());
    const std::vector<int> got = table.values();
    for (int i = 0; i < 1000; i++) {
        ASSERT_EQ(got[i], i == 10 ? 0 : i >= 500 && i < 899 ? i - 499 : -5) << i;
    }
}

}  // namespace
}  // namespace llm::engine::cuda
