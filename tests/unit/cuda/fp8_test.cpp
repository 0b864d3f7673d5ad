// FP8 weights (compressed-tensors) in the CUDA backend, against the same numbers as f32 on the CPU.
// Compiled twice, as backend_test.cpp.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "engine_worker/backend/cpu/cpu_backend.hpp"
#include "engine_worker/backend/cuda/cuda_backend.hpp"
#include "shared/json.hpp"
#include "tests/support/model_builder.hpp"
#include "tests/support/step_runner.hpp"
#include "tests/unit/cuda/backend_fixture.hpp"

namespace llm::engine::cuda {
namespace {

// e4m3 nearest to `value`.
uint8_t to_e4m3(float value) {
    int best = 0;
    double error = INFINITY;
    for (int bits = 0; bits < 0x7f; bits++) {
        const int exponent = bits >> 3;
        const double magnitude =
            exponent == 0 ? std::ldexp(bits & 7, -9) : std::ldexp(8 + (bits & 7), exponent - 10);
        if (std::fabs(magnitude - std::fabs(static_cast<double>(value))) < error) {
            error = std::fabs(magnitude - std::fabs(static_cast<double>(value)));
            best = bits;
        }
    }
    return static_cast<uint8_t>(best | (value < 0 ? 0x80 : 0));
}

double e4m3_value(uint8_t bits) {
    const int exponent = bits >> 3 & 15;
    const double magnitude = exponent == 0 ? std::ldexp(bits & 7, -9) : std::ldexp(8 + (bits & 7), exponent - 10);
    return bits & 0x80 ? -magnitude : magnitude;
}

// A model whose projections are e4m3, beside the same numbers as f32 on the CPU: few rows, more than 16, more than 32.
TEST_F(CudaBackendTest, Fp8WeightsOfCompressedTensors) {
    const TempDir quantised, plain;
    auto json = nlohmann::json::parse(kConfig);
    llm::testing::write_text(plain.path() + "/config.json", json.dump());
    const ModelConfig config = load_model_config(plain.path());
    json["quantization_config"] = {
        {"quant_method", "compressed-tensors"},
        {"format", "float-quantized"},
        {"ignore", {"lm_head"}},
        {"config_groups",
         {{"group_0", {{"targets", {"Linear"}}, {"weights", {{"num_bits", 8}, {"type", "float"}, {"strategy", "channel"}}}}}}}};
    llm::testing::write_text(quantised.path() + "/config.json", json.dump());

    std::vector<llm::testing::NamedTensor> dequantised;
    nlohmann::json header = nlohmann::json::object();
    std::string data;
    const auto add = [&](const std::string& name, const char* dtype, const std::vector<int64_t>& shape,
                         const std::string& bytes) {
        header[name] = {{"dtype", dtype}, {"shape", shape}, {"data_offsets", {data.size(), data.size() + bytes.size()}}};
        data += bytes;
    };
    const auto floats = [](const std::vector<float>& values) {
        return std::string(reinterpret_cast<const char*>(values.data()), values.size() * 4);
    };
    for (const auto& [name, shape] : llm::testing::tensor_shapes(config)) {
        llm::testing::NamedTensor tensor = llm::testing::random_tensor(config, 11, name, shape);
        if (name.find("_proj.weight") != std::string::npos) {
            const bool whole = name.find("o_proj") != std::string::npos;  // one scale for the matrix
            const auto k = static_cast<size_t>(shape[1]);
            std::vector<float> scales;
            std::string bytes;
            for (size_t i = 0; i < tensor.values.size(); i++) {
                if (i % k == 0 && (i == 0 || !whole)) {
                    scales.push_back(0.01f * static_cast<float>(1 + i / k % 5));
                }
                bytes.push_back(static_cast<char>(to_e4m3(tensor.values[i] / scales.back())));
                tensor.values[i] = static_cast<float>(e4m3_value(static_cast<uint8_t>(bytes.back()))) * scales.back();
            }
            add(name, "F8_E4M3", shape, bytes);
            const auto count = static_cast<int64_t>(scales.size());
            add(name + "_scale", "F32", whole ? std::vector<int64_t>{1} : std::vector<int64_t>{count, 1}, floats(scales));
        } else {
            add(name, "F32", shape, floats(tensor.values));
        }
        dequantised.push_back(std::move(tensor));
    }
    std::string text = header.dump();
    text.append((8 - text.size() % 8) % 8, ' ');
    const uint64_t length = text.size();
    llm::testing::write_text(quantised.path() + "/model.safetensors",
                             std::string(reinterpret_cast<const char*>(&length), 8) + text + data);
    llm::testing::write_safetensors(plain.path(), dequantised, DType::kF32);

    BackendOptions o = options(quantised.path());
    o.max_step_tokens = 300;
    CudaBackend gpu(o);
    o.model_dir = plain.path();
    o.threads = 1;
    CpuBackend cpu(o);
    StepRunner on_gpu(gpu), on_cpu(cpu);
    Sequence a{prompt(3, 340), {}}, b{prompt(3, 340), {}};
    // one pass over the weights; several; a copy in bf16
    for (const size_t count : {size_t{3}, size_t{20}, size_t{40}, size_t{1}, size_t{260}}) {
        const std::vector<float> mine = on_gpu.run({{&a, count, true}}).logits;
        const std::vector<float> theirs = on_cpu.run({{&b, count, true}}).logits;
        double difference = 0, largest = 0;
        for (size_t i = 0; i < mine.size(); i++) {
            ASSERT_TRUE(std::isfinite(mine[i]));
            difference = std::max(difference, std::fabs(static_cast<double>(mine[i]) - static_cast<double>(theirs[i])));
            largest = std::max(largest, std::fabs(static_cast<double>(theirs[i])));
        }
        EXPECT_LT(difference / largest, 0.03) << count;
    }
    EXPECT_THROW(CpuBackend(options(quantised.path())), std::runtime_error);
}

}  // namespace
}  // namespace llm::engine::cuda
