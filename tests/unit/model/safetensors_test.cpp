#include "engine_worker/model/safetensors.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>

#include "engine_worker/model/weights.hpp"
#include "tests/support/model_builder.hpp"

namespace llm::engine {
namespace {

using llm::testing::TempDir;
using ::testing::HasSubstr;

// A file with this header and so many bytes of data.
std::string file_with(const std::string& header, size_t data_bytes) {
    const uint64_t length = header.size();
    return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\0');
}

TensorIndex parse(const std::string& file) {
    return parse_safetensors_header(std::as_bytes(std::span(file)), file.size(), "f");
}

std::string error_of(const std::string& file) {
    try {
        parse(file);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "no error";
}

TEST(Safetensors, ReadsWhatIsThere) {
    const std::string file = file_with(
        R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
        R"("b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]},"e":{"dtype":"I64","shape":[0],"data_offsets":[26,26]}})",
        26);
    const TensorIndex index = parse(file);
    ASSERT_EQ(index.size(), 3u);
    EXPECT_EQ(index.at("a").shape, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(index.at("a").end - index.at("a").begin, 24u);
    EXPECT_EQ(index.at("b").end, file.size());
    EXPECT_EQ(index.at("e").dtype, DType::kI64);
}

TEST(Safetensors, EveryFaultIsNamed) {
    EXPECT_THAT(error_of("1234567"), HasSubstr("f: is too short"));
    std::string lying = file_with("{}", 0);
    lying[0] = 100;
    EXPECT_THAT(error_of(lying), HasSubstr("header length of 100 bytes"));
    lying.replace(0, 8, std::string(8, '\xff'));
    EXPECT_THAT(error_of(lying), HasSubstr("header length of 18446744073709551615"));
    EXPECT_THAT(error_of(file_with("[1]", 0)), HasSubstr("not a JSON object"));
    EXPECT_THAT(error_of(file_with("{", 0)), HasSubstr("not a JSON object"));
    const auto one = [](const std::string& entry, size_t bytes) {
        return error_of(file_with("{\"a\":" + entry + "}", bytes));
    };
    EXPECT_THAT(one("1", 0), HasSubstr("tensor a is not described"));
    EXPECT_THAT(one(R"({"shape":[1],"data_offsets":[0,4]})", 4), HasSubstr("a has no dtype"));
    EXPECT_THAT(one(R"({"dtype":"F31","shape":[1],"data_offsets":[0,4]})", 4),
                HasSubstr("unknown dtype F31"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4), HasSubstr("malformed shape"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4),
                HasSubstr("malformed shape"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]})", 4),
                HasSubstr("no shape"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})", 4),
                HasSubstr("size overflows"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0,8]})", 8), HasSubstr("spans 8 bytes"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 7),
                HasSubstr("outside the file's 7 bytes"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[1],"data_offsets":[8,4]})", 8), HasSubstr("outside"));
    EXPECT_THAT(one(R"({"dtype":"F32","shape":[1],"data_offsets":[0]})", 4), HasSubstr("no data_offsets"));
    EXPECT_THAT(error_of(file_with(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                                   R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                                   8)),
                HasSubstr("tensors a and b overlap"));
    EXPECT_THAT(error_of(file_with(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
                                   R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                                   8)),
                HasSubstr("names tensor a twice"));
}

constexpr const char* kConfig =
    R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16,
    "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 10,
    "max_position_embeddings": 32})";

class Weights : public ::testing::Test {
  protected:
    void SetUp() override {
        llm::testing::write_random_model(dir_.path(), kConfig, 1, DType::kF32, 2);
        config_ = load_model_config(dir_.path());
        for (const auto& [name, shape] : llm::testing::tensor_shapes(config_)) {
            tensors_.push_back(llm::testing::random_tensor(config_, 1, name, shape));
        }
    }
    // What loading says after `tensors_` were written to one file of `type`.
    std::string error(DType type = DType::kF32) {
        std::filesystem::remove(dir_.path() + "/model.safetensors.index.json");
        llm::testing::write_safetensors(dir_.path(), tensors_, type);
        return load_error();
    }
    std::string load_error() {
        try {
            load_model_tensors(config_);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
        return "no error";
    }
    llm::testing::NamedTensor& tensor(const std::string& name) {
        return *std::find_if(tensors_.begin(), tensors_.end(), [&](const auto& t) { return t.name == name; });
    }
    TempDir dir_;
    ModelConfig config_;
    std::vector<llm::testing::NamedTensor> tensors_;
};

TEST_F(Weights, ShardsAreFoundByTheirIndex) {
    EXPECT_EQ(load_error(), "no error");
    const ModelTensors tensors = load_model_tensors(config_);
    float first;
    std::memcpy(&first, tensors.layers[0].down.data, 4);
    EXPECT_EQ(first, tensor("model.layers.0.mlp.down_proj.weight").values[0]);
}

// Embedding models are saved without the class that gives names their "model.".
TEST_F(Weights, TheDecoderMayStandAlone) {
    for (auto& one : tensors_) {
        if (one.name.starts_with("model.")) {
            one.name.erase(0, 6);
        }
    }
    EXPECT_EQ(error(), "no error");
    const ModelTensors tensors = load_model_tensors(config_);
    float first;
    std::memcpy(&first, tensors.layers[0].down.data, 4);
    EXPECT_EQ(first, tensor("layers.0.mlp.down_proj.weight").values[0]);
    tensor("layers.0.mlp.down_proj.weight").name = "model.layers.0.mlp.down_proj.weight";
    EXPECT_THAT(error(), HasSubstr("tensor layers.0.mlp.down_proj.weight is missing"));
}

TEST_F(Weights, FaultsNameFileAndTensor) {
    EXPECT_EQ(error(), "no error");
    tensor("model.norm.weight").shape = {4, 4};
    EXPECT_THAT(error(),
                HasSubstr("/model.safetensors: tensor model.norm.weight has shape [4, 4], but config.json "
                          "implies [16]"));
    tensor("model.norm.weight").shape = {16};
    tensor("model.norm.weight").name = "model.final.weight";
    EXPECT_THAT(error(), HasSubstr("/model.safetensors: tensor model.norm.weight is missing"));
    tensor("model.final.weight").name = "model.norm.weight";
    tensors_.push_back({"model.layers.0.self_attn.q_proj.bias", {16}, std::vector<float>(16)});
    EXPECT_THAT(error(), HasSubstr("q_proj.bias is not part of the llama model"));
    tensors_.back().name = "model.layers.0.self_attn.rotary_emb.inv_freq";  // harmless, in old checkpoints
    EXPECT_EQ(error(), "no error");
    EXPECT_EQ(error(DType::kF16), "no error");
}

TEST_F(Weights, UnsupportedDtypeIsNamed) {
    std::filesystem::remove(dir_.path() + "/model.safetensors.index.json");
    std::string bytes = llm::testing::safetensors_bytes(tensors_, DType::kBf16);
    for (size_t at = bytes.find("\"BF16\""); at != std::string::npos; at = bytes.find("\"BF16\"")) {
        bytes.replace(at, 6, "\"I16\" ");
    }
    llm::testing::write_text(dir_.path() + "/model.safetensors", bytes);
    EXPECT_THAT(load_error(), HasSubstr("has dtype I16; only F32, F16 and BF16 are supported"));
}

TEST_F(Weights, BadIndexIsNamed) {
    const std::string index = dir_.path() + "/model.safetensors.index.json";
    const std::string shard = "model-00001-of-00002.safetensors";
    llm::testing::write_text(index, "{}");
    EXPECT_THAT(load_error(), HasSubstr("index.json: has no weight_map"));
    llm::testing::write_text(index, R"({"weight_map": {"x": "../x.safetensors"}})");
    EXPECT_THAT(load_error(), HasSubstr("weight_map.x is not a file name"));
    llm::testing::write_text(index, R"({"weight_map": {"x": "gone.safetensors"}})");
    EXPECT_THAT(load_error(), HasSubstr("gone.safetensors: cannot be opened"));
    llm::testing::write_text(index, R"({"weight_map": {"x": ")" + shard + R"("}})");
    EXPECT_THAT(load_error(), HasSubstr(shard + ": has no tensor x"));
}

TEST(DTypes, ConversionsRoundToNearestEven) {
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        const auto half = static_cast<uint16_t>(bits);
        const float value = f16_to_f32(half);
        if (std::isnan(value)) {
            EXPECT_TRUE(std::isnan(f16_to_f32(f32_to_f16(value))));
        } else {
            ASSERT_EQ(f32_to_f16(value), half) << bits;
        }
        const float wide = bf16_to_f32(half);
        if (!std::isnan(wide)) {
            ASSERT_EQ(f32_to_bf16(wide), half) << bits;
        }
    }
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, to even
    EXPECT_EQ(f32_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
    EXPECT_EQ(f32_to_f16(65519.0f), 0x7bff);
    EXPECT_EQ(f32_to_f16(65520.0f), 0x7c00);
    EXPECT_EQ(f32_to_f16(1.0f + 0x1p-11f), 0x3c00);
    EXPECT_EQ(f32_to_f16(1.0f + 0x3p-11f), 0x3c02);
    EXPECT_EQ(f32_to_f16(0x1p-25f), 0);
    EXPECT_EQ(f32_to_f16(0x1.8p-25f), 1);
    EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(NAN))));
}

}  // namespace
}  // namespace llm::engine
