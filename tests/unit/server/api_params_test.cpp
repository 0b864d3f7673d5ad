#include "engine_worker/server/api_params.hpp"

#include <gtest/gtest.h>

#include "engine_worker/server/api_error.hpp"

namespace llm::engine {
namespace {

Sampling parse(const char* text) {
    const Json body = Json::parse(text);
    const Params params(body);
    refuse_unsupported(params);
    return parse_sampling(params, {1000, 512, 1, {}}, 77);
}

// The field that a bad request is told about.
std::string blamed(const std::string& text) {
    try {
        parse(text.c_str());
    } catch (const ApiError& error) {
        EXPECT_EQ(error.status, 400) << text;
        EXPECT_FALSE(error.code.empty());
        return error.param;
    }
    return "";
}

TEST(Sampling, DefaultsAreOpenAis) {
    const Sampling s = parse("{}");
    EXPECT_EQ(s.temperature, 1.0f);
    EXPECT_EQ(s.top_p, 1.0f);
    EXPECT_EQ(s.top_k, 0);
    EXPECT_EQ(s.max_tokens, 512);
    EXPECT_EQ(s.seed, 77u);
    EXPECT_TRUE(s.stop.empty());
}

TEST(Sampling, ReadsEveryField) {
    const Sampling s = parse(R"({"temperature":0.5,"top_p":0.9,"top_k":40,"min_p":0.05,"seed":-3,
        "presence_penalty":1,"frequency_penalty":-1,"repetition_penalty":1.2,"logit_bias":{"5":-100,"7":3.5},
        "stop":["a","b"],"max_tokens":7,"min_tokens":2,"ignore_eos":true,"stop_token_ids":[9],
        "include_stop_str_in_output":true})");
    EXPECT_FLOAT_EQ(s.temperature, 0.5f);
    EXPECT_EQ(s.top_k, 40);
    EXPECT_EQ(s.seed, static_cast<uint64_t>(-3));
    EXPECT_EQ(s.logit_bias, (std::vector<std::pair<int32_t, float>>{{5, -100.0f}, {7, 3.5f}}));
    EXPECT_EQ(s.stop, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(s.max_tokens, 7);
    EXPECT_EQ(s.min_tokens, 2);
    EXPECT_TRUE(s.ignore_eos);
    EXPECT_TRUE(s.include_stop);
    EXPECT_EQ(s.stop_tokens, std::vector<int32_t>{9});
}

TEST(Sampling, NullIsAbsentAndWholeFloatsAreIntegers) {
    EXPECT_EQ(parse(R"({"temperature":null,"stop":null,"max_tokens":null,"tools":null})").temperature, 1.0f);
    EXPECT_EQ(parse(R"({"max_tokens":7.0})").max_tokens, 7);
    EXPECT_EQ(parse(R"({"top_k":-1})").top_k, 0);
}

TEST(Sampling, MaxCompletionTokensWins) {
    EXPECT_EQ(parse(R"({"max_tokens":9,"max_completion_tokens":4})").max_tokens, 4);
    EXPECT_EQ(parse(R"({"max_completion_tokens":14,"max_tokens":9})").max_tokens, 14);
    EXPECT_EQ(parse(R"({"max_tokens":100000})").max_tokens, 512);
}

TEST(Sampling, NamesTheFieldAtFault) {
    for (const auto& [text, param] : std::vector<std::pair<std::string, std::string>>{
             {R"({"temperature":2.1})", "temperature"},
             {R"({"temperature":"hot"})", "temperature"},
             {R"({"temperature":true})", "temperature"},
             {R"({"top_p":0})", "top_p"},
             {R"({"top_p":1.01})", "top_p"},
             {R"({"top_k":-2})", "top_k"},
             {R"({"min_p":-0.1})", "min_p"},
             {R"({"presence_penalty":2.5})", "presence_penalty"},
             {R"({"repetition_penalty":0})", "repetition_penalty"},
             {R"({"seed":1.5})", "seed"},
             {R"({"seed":18446744073709551615})", "seed"},
             {R"({"max_tokens":0})", "max_tokens"},
             {R"({"max_tokens":"7"})", "max_tokens"},
             {R"({"max_completion_tokens":-1})", "max_completion_tokens"},
             {R"({"stop":""})", "stop"},
             {R"({"stop":[1]})", "stop"},
             {R"({"stop":{}})", "stop"},
             {R"({"logit_bias":{"1000":1}})", "logit_bias"},
             {R"({"logit_bias":{"x":1}})", "logit_bias"},
             {R"({"logit_bias":{"1":101}})", "logit_bias"},
             {R"({"logit_bias":[]})", "logit_bias"},
             {R"({"stop_token_ids":[1000]})", "stop_token_ids"},
             {R"({"min_tokens":8,"max_tokens":7})", "min_tokens"},
             {R"({"ignore_eos":1})", "ignore_eos"},
         }) {
        EXPECT_EQ(blamed(text), param) << text;
    }
}

TEST(Sampling, RefusesWhatItCannotDoAndNothingElse) {
    for (const auto& [text, param] : std::vector<std::pair<std::string, std::string>>{
             {R"({"guided_json":{"type":"object"}})", "guided_json"},
             {R"({"functions":[{}]})", "functions"},
             {R"({"guided_json":{"type":"object"}})", "guided_json"},
             {R"({"suffix":"x"})", "suffix"},
             {R"({"modalities":["text","audio"]})", "modalities"},
             {R"({"skip_special_tokens":false})", "skip_special_tokens"},
             {R"({"use_beam_search":true})", "use_beam_search"},
             {R"({"prompt_logprobs":1})", "prompt_logprobs"},
             {R"({"prompt_logprobs":0})", "prompt_logprobs"},  // the prompt's tokens, without alternatives
             {R"({"regex":"a+"})", "regex"},
             {R"({"xtc_probability":0.5})", "xtc_probability"},
             {R"({"separate_reasoning":false})", "separate_reasoning"},
         }) {
        EXPECT_EQ(blamed(text), param) << text;
    }
    EXPECT_EQ(blamed(R"({"tools":[],"tool_choice":"auto","response_format":{"type":"text"},"n":2,"best_of":2,
        "user":"u","metadata":{"a":1},"store":false,"service_tier":"auto","anything":{"x":[1]},
        "modalities":["text"],"use_beam_search":false,"length_penalty":1.0,
        "prediction":{"type":"content","content":"saves time, changes nothing"}})"),
              "");
}

TEST(Params, NameThePlaceOfAFieldInAnObject) {
    const Json body = Json::parse(R"({"include_usage":1})");
    try {
        Params(body, "stream_options.").boolean("include_usage");
        FAIL();
    } catch (const ApiError& error) {
        EXPECT_EQ(error.param, "stream_options.include_usage");
    }
}

TEST(Params, TokenIdsAreWholeNumbersOfTheVocabulary) {
    for (const char* good : {"0", "999"}) {
        EXPECT_TRUE(is_token_id(Json::parse(good), 1000)) << good;
    }
    for (const char* bad : {"-1", "1000", "1.0", "\"1\"", "true", "18446744073709551615", "1e30"}) {
        EXPECT_FALSE(is_token_id(Json::parse(bad), 1000)) << bad;
    }
}

}  // namespace
}  // namespace llm::engine
