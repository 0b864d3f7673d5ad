#include "engine_worker/server/generation_defaults.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>

#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/api_params.hpp"

namespace llm::engine {
namespace {

class GenerationConfig : public testing::Test {
  protected:
    void SetUp() override {
        dir_ = testing::TempDir() + "generation_config_" +
               testing::UnitTest::GetInstance()->current_test_info()->name();
        std::filesystem::create_directories(dir_);
    }
    void TearDown() override { std::filesystem::remove_all(dir_); }

    GenerationDefaults load(const std::string& text) {
        std::ofstream(dir_ + "/generation_config.json") << text;
        return load_generation_defaults(dir_);
    }

    std::string refused(const std::string& text) {
        try {
            load(text);
        } catch (const std::runtime_error& error) {
            return error.what();
        }
        return "";
    }

    std::string dir_;
};

TEST_F(GenerationConfig, WithoutOneEverythingIsNeutral) {
    EXPECT_EQ(load_generation_defaults(dir_).text(), "");
    EXPECT_EQ(load("{}").text(), "");
    EXPECT_EQ(load(R"({"temperature":null,"top_k":-1,"top_p":1.0,"do_sample":false,"eos_token_id":2})").text(), "");
}

// One range for both: what a file may say, a request may say.
TEST_F(GenerationConfig, TheFileAndRequestsAreHeldToTheSame) {
    const auto request_takes = [](const Json& body) {
        try {
            parse_sampling(Params(body), {1000, 512, 1, {}}, 1);
            return true;
        } catch (const ApiError&) {
            return false;
        }
    };
    for (const char* name : {"temperature", "top_p", "min_p", "repetition_penalty", "top_k"}) {
        for (const char* value : {"-2", "-1", "-1e-9", "0", "1e-60", "1e-9", "1", "1.0000001", "2", "2.1", "10", "11", "1e300", "\"1\""}) {
            const std::string text = std::string("{\"") + name + "\":" + value + "}";
            EXPECT_EQ(refused(text).empty(), request_takes(Json::parse(text))) << text;
        }
    }
}

TEST_F(GenerationConfig, RequestsThatSayNothingTakeTheModels) {
    const GenerationDefaults defaults = load(
        R"({"do_sample":true,"temperature":0.7,"top_p":0.8,"top_k":20,"min_p":0.05,"repetition_penalty":1.05,
            "max_new_tokens":100})");
    EXPECT_EQ(defaults.text(),
              "temperature 0.7, top_p 0.8, top_k 20, min_p 0.05, repetition_penalty 1.05, max_tokens 100");
    const SamplingLimits limits{1000, 512, 1, defaults};
    const Json nothing = Json::object();
    const Sampling models = parse_sampling(Params(nothing), limits, 1);
    EXPECT_FLOAT_EQ(models.temperature, 0.7f);
    EXPECT_FLOAT_EQ(models.top_p, 0.8f);
    EXPECT_EQ(models.top_k, 20);
    EXPECT_FLOAT_EQ(models.min_p, 0.05f);
    EXPECT_FLOAT_EQ(models.repetition_penalty, 1.05f);
    EXPECT_EQ(models.max_tokens, 100);

    const Json all = Json::parse(R"({"temperature":0,"top_p":1,"top_k":0,"min_p":0,"repetition_penalty":1,
                                     "max_tokens":300})");
    const Sampling own = parse_sampling(Params(all), limits, 1);
    EXPECT_EQ(own.temperature, 0);
    EXPECT_EQ(own.top_p, 1);
    EXPECT_EQ(own.top_k, 0);
    EXPECT_EQ(own.min_p, 0);
    EXPECT_EQ(own.repetition_penalty, 1);
    EXPECT_EQ(own.max_tokens, 300) << "a default, not a limit";
}

TEST_F(GenerationConfig, AnAnswerThatMustBeLongerThanUsualMayBe) {
    const SamplingLimits limits{1000, 512, 1, load(R"({"max_new_tokens":100})")};
    const Json body = Json::parse(R"({"min_tokens":200})");
    const Sampling sampling = parse_sampling(Params(body), limits, 1);
    EXPECT_EQ(sampling.min_tokens, 200);
    EXPECT_EQ(sampling.max_tokens, 200);
}

TEST_F(GenerationConfig, NamesWhatIsWrong) {
    for (const auto& [text, word] : std::initializer_list<std::pair<const char*, const char*>>{
             {R"({"temperature":2.5})", "\"temperature\" is 2.5, not a number from 0.0 to 2.0"},
             {R"({"temperature":"0.7"})", "\"temperature\" is \"0.7\""},
             {R"({"top_p":0})", "\"top_p\" is 0, not a number above 0.0 to 1.0"},
             {R"({"top_k":-2})", "\"top_k\" is -2, not a whole number from -1 to"},
             {R"({"top_k":1.5})", "\"top_k\" is 1.5"},
             {R"({"top_k":18446744073709551615})", "\"top_k\" is 18446744073709551615"},
             {R"({"min_p":-0.1})", "\"min_p\""},
             {R"({"repetition_penalty":0})", "\"repetition_penalty\""},
             {R"({"max_new_tokens":0})", "\"max_new_tokens\" is 0, not a whole number from 1 to"},
             {"[]", "is not a JSON object"},
             {"{", "is not a JSON object"}}) {
        EXPECT_NE(refused(text).find(word), std::string::npos) << text << ": " << refused(text);
        EXPECT_NE(refused(text).find("generation_config.json"), std::string::npos) << text;
    }
}

}  // namespace
}  // namespace llm::engine
