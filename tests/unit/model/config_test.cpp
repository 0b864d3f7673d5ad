#include "engine_worker/model/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "shared/json.hpp"
#include "tests/support/model_builder.hpp"

namespace llm::engine {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

json llama() {
    return {{"architectures", {"LlamaForCausalLM"}},
            {"model_type", "llama"},
            {"hidden_size", 2048},
            {"intermediate_size", 8192},
            {"num_hidden_layers", 16},
            {"num_attention_heads", 32},
            {"num_key_value_heads", 8},
            {"vocab_size", 128256},
            {"max_position_embeddings", 131072},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 500000.0},
            {"eos_token_id", {128001, 128008}},
            {"tie_word_embeddings", true},
            {"torch_dtype", "bfloat16"},
            {"hidden_act", "silu"},
            {"bos_token_id", 128000}};
}

ModelConfig parse(const json& config, const std::string& generation = "") {
    return parse_model_config(config.dump(), generation);
}

std::string error_of(const json& config, const std::string& generation = "") {
    try {
        parse(config, generation);
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return "no error";
}

TEST(Config, ReadsLlama32) {
    json config = llama();
    config["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 32.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 8192}};
    const ModelConfig got = parse(config);
    EXPECT_EQ(got.dim, 2048);
    EXPECT_EQ(got.head_dim, 64);
    EXPECT_EQ(got.n_kv_heads, 8);
    EXPECT_EQ(got.max_context, 131072);
    EXPECT_EQ(got.bos_id, 128000);
    EXPECT_TRUE(got.tied_embeddings);
    EXPECT_FALSE(got.qkv_bias);
    EXPECT_EQ(got.rope.kind, RopeScaling::Kind::kLlama3);
    EXPECT_EQ(got.rope.original_max_context, 8192);
    EXPECT_THAT(got.eos_ids, ElementsAre(128001, 128008));
}

TEST(Config, GenerationConfigSaysWhereTextEnds) {
    EXPECT_THAT(parse(llama(), R"({"eos_token_id": 7})").eos_ids, ElementsAre(7));
    EXPECT_THAT(parse(llama(), R"({"temperature": 0.6})").eos_ids, ElementsAre(128001, 128008));
}

TEST(Config, FamiliesDifferWhereTheyDo) {
    json config = llama();
    config["model_type"] = "qwen2";
    config["architectures"] = {"Qwen2ForCausalLM"};
    config["sliding_window"] = 4096;
    config["use_sliding_window"] = false;
    EXPECT_TRUE(parse(config).qkv_bias);
    EXPECT_FALSE(parse(config).o_bias);
    EXPECT_EQ(parse(config).window, std::vector<int32_t>(16, 0));
    config["use_sliding_window"] = true;
    config["max_window_layers"] = 14;
    EXPECT_EQ(parse(config).window[13], 0);
    EXPECT_EQ(parse(config).window[14], 4096);
    config.erase("max_window_layers");
    config.erase("sliding_window");
    config["num_hidden_layers"] = 30;
    EXPECT_EQ(parse(config).window[27], 0);
    EXPECT_EQ(parse(config).window[28], 4096);
    config["num_hidden_layers"] = 16;

    config["model_type"] = "qwen3";
    config["architectures"] = {"Qwen3ForCausalLM"};
    config["use_sliding_window"] = false;
    EXPECT_TRUE(parse(config).qk_norm);
    EXPECT_FALSE(parse(config).qkv_bias);
    EXPECT_EQ(parse(config).head_dim, 128);  // not hidden_size / heads

    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
    EXPECT_EQ(parse(config).window, std::vector<int32_t>(16, 4096));  // absent is not null
    config["sliding_window"] = 1024;
    EXPECT_EQ(parse(config).window, std::vector<int32_t>(16, 1024));
    config["sliding_window"] = nullptr;
    EXPECT_EQ(parse(config).window, std::vector<int32_t>(16, 0));
}

TEST(Config, RopeParametersOfTransformers5) {
    json config = llama();
    config.erase("rope_theta");
    config["rope_parameters"] = {{"rope_type", "linear"}, {"rope_theta", 12345.0}, {"factor", 2.0}};
    const ModelConfig got = parse(config);
    EXPECT_EQ(got.rope_theta, 12345.0);
    EXPECT_EQ(got.rope.kind, RopeScaling::Kind::kLinear);
    const std::vector<double> frequencies = rope_frequencies(got);
    ASSERT_EQ(frequencies.size(), 32u);
    EXPECT_DOUBLE_EQ(frequencies[0], 0.5);
    EXPECT_DOUBLE_EQ(frequencies[16], std::pow(12345.0, -0.5) / 2);
}

TEST(Config, RefusesWhatItCannotCompute) {
    const auto with = [](const char* key, const json& value) {
        json config = llama();
        config[key] = value;
        return error_of(config);
    };
    EXPECT_THAT(with("model_type", "gemma2"),
                HasSubstr("config.json: model_type is \"gemma2\"; supported are"));
    EXPECT_THAT(with("architectures", {"LlamaForSequenceClassification"}),
                HasSubstr("LlamaForSequenceClassification"));
    EXPECT_THAT(with("quantization_config", {{"quant_method", "awq"}}),
                HasSubstr("quantization_config asks for quantisation \"awq\""));
    EXPECT_THAT(with("hidden_act", "gelu"), HasSubstr("hidden_act is \"gelu\""));
    EXPECT_THAT(with("rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}),
                HasSubstr("rope_scaling.type is \"dynamic\""));
    EXPECT_THAT(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}),
                HasSubstr("rope_scaling.rope_type is \"yarn\""));
    EXPECT_THAT(with("rope_scaling", {{"type", "linear"}}), HasSubstr("rope_scaling.factor is missing"));
    EXPECT_THAT(with("partial_rotary_factor", 0.5), HasSubstr("partial_rotary_factor"));
    EXPECT_THAT(with("mlp_bias", true), HasSubstr("mlp_bias"));
    EXPECT_THAT(with("num_local_experts", 8), HasSubstr("mixtures of experts"));
    EXPECT_THAT(with("head_dim", 63), HasSubstr("head_dim"));
    EXPECT_THAT(with("num_key_value_heads", 7), HasSubstr("num_key_value_heads"));
    EXPECT_THAT(with("hidden_size", "big"), HasSubstr("hidden_size is not an integer"));
    EXPECT_THAT(with("hidden_size", 1e30), HasSubstr("hidden_size"));
    EXPECT_THAT(with("hidden_size", 18446744073709551615u), HasSubstr("hidden_size"));
    EXPECT_THAT(with("num_hidden_layers", 0), HasSubstr("num_hidden_layers is 0"));
    EXPECT_THAT(with("vocab_size", nullptr), HasSubstr("vocab_size is missing"));
    EXPECT_THAT(with("rms_norm_eps", -1), HasSubstr("rms_norm_eps"));
    EXPECT_THAT(with("tie_word_embeddings", "yes"), HasSubstr("tie_word_embeddings"));
    EXPECT_THAT(with("eos_token_id", 999999), HasSubstr("eos_token_id"));
    EXPECT_THAT(error_of(llama(), "[]"), HasSubstr("generation_config.json: is not a JSON object"));
    EXPECT_THAT(error_of(json::array()), HasSubstr("config.json: is not a JSON object"));
}

TEST(Config, MissingFileIsNamed) {
    const llm::testing::TempDir dir;
    try {
        load_model_config(dir.path());
        FAIL();
    } catch (const std::runtime_error& error) {
        EXPECT_EQ(error.what(), dir.path() + "/config.json: cannot be read");
    }
}

}  // namespace
}  // namespace llm::engine
