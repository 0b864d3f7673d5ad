// The tables of the adapters against texts that the engines' endpoints give.
#include <gtest/gtest.h>

#include <fstream>
#include <iterator>
#include <map>

#include "engine_worker/reporter/engine_probe.hpp"

namespace llm::reporter {
namespace {

std::string text_of(const std::string& name) {
    std::ifstream file(std::string(LLM_ENDPOINTS "/") + name);
    EXPECT_TRUE(file) << name;
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

const Adapter& adapter(const char* kind) {
    const Adapter* found = find_adapter(kind);
    EXPECT_NE(found, nullptr) << kind;
    return *found;
}

Observation read(const char* kind, const std::string& text, const std::string& expected_reason = "") {
    Observation out;
    const std::string why = read_metrics(adapter(kind), text, out);
    if (expected_reason.empty()) {
        EXPECT_EQ(why, "") << kind;
    } else {
        EXPECT_NE(why.find(expected_reason), std::string::npos) << why;
    }
    return out;
}

// A field that is not named must have no value.
void expect(const Observation& seen, const std::map<Field, double>& fields) {
    for (size_t i = 0; i < kFieldCount; ++i) {
        const auto field = static_cast<Field>(i);
        const auto wanted = fields.find(field);
        if (wanted == fields.end()) {
            EXPECT_FALSE(seen[field]) << "field " << i;
        } else {
            ASSERT_TRUE(seen[field]) << "field " << i;
            EXPECT_NEAR(*seen[field], wanted->second, 1e-9 * wanted->second) << "field " << i;
        }
    }
}

TEST(Adapters, Vllm) {
    expect(read("vllm", text_of("vllm_metrics.txt")), {{Field::running, 12},
                                                       {Field::max_running, 512},  // of two ranks
                                                       {Field::waiting, 2},
                                                       {Field::kv_usage, 0.375},
                                                       {Field::tokens_in, 200},
                                                       {Field::tokens_out, 1000},
                                                       {Field::decode_tokens, 988},
                                                       {Field::user_seconds, 19.76},
                                                       {Field::completed, 12},
                                                       {Field::started, 1763700058.3}});
    expect(read("vllm", text_of("vllm_old_metrics.txt")), {{Field::running, 1},
                                                           {Field::waiting, 0},
                                                           {Field::kv_usage, 0.125},
                                                           {Field::tokens_in, 5},
                                                           {Field::tokens_out, 7},
                                                           {Field::decode_tokens, 6},
                                                           {Field::user_seconds, 0.19016313552856445},
                                                           {Field::completed, 1},
                                                           {Field::started, 1718140558.3}});
    expect(read("vllm", text_of("vllm_0.32_metrics.txt")), {{Field::running, 4},
                                                            {Field::waiting, 3},
                                                            {Field::kv_usage, 0.0019536019536019467},
                                                            {Field::tokens_in, 18690},
                                                            {Field::tokens_out, 3590},
                                                            {Field::decode_tokens, 3492},
                                                            {Field::user_seconds, 38.85619682599645},
                                                            {Field::completed, 90},
                                                            {Field::started, 1795357505.09}});
}

TEST(Adapters, SglangCountsARankOnce) {
    expect(read("sglang", text_of("sglang_metrics.txt")), {{Field::running, 162},
                                                           {Field::waiting, 2826},
                                                           {Field::kv_usage, 0.29},
                                                           {Field::tokens_in, 8128902},
                                                           {Field::tokens_out, 7557572},
                                                           {Field::decode_tokens, 7400757},
                                                           {Field::user_seconds, 866964.5791549598},
                                                           {Field::completed, 14007}});
}

// With --enable-priority-scheduling each request's counters are in the series of its priority alone, without a total.
TEST(Adapters, SglangAddsUpTheCountersOfPriorities) {
    expect(read("sglang",
                "sglang:num_running_reqs{priority=\"\"} 3\n"
                "sglang:num_running_reqs{priority=\"1\"} 2\n"
                "sglang:generation_tokens_total{priority=\"\",is_streaming=\"true\"} 10\n"
                "sglang:generation_tokens_total{priority=\"1\",is_streaming=\"true\"} 20\n"
                "sglang:generation_tokens_total{priority=\"1\",is_streaming=\"false\"} 30\n"
                "sglang:inter_token_latency_seconds_sum{priority=\"1\"} 4\n"
                "sglang:inter_token_latency_seconds_count{priority=\"1\"} 50\n"),
           {{Field::running, 3}, {Field::tokens_out, 60}, {Field::decode_tokens, 50}, {Field::user_seconds, 4}});
}

// With several API servers (vLLM 0.32: --api-server-count, and as many as ranks without it) there is no gauge before the
// first request, and no start time ever.
TEST(Adapters, VllmHasItsUsualSeatsOnEveryRank) {
    const std::string idle =
        "vllm:generation_tokens_total{engine=\"0\",model_name=\"m\"} 0.0\n"
        "vllm:generation_tokens_total{engine=\"1\",model_name=\"m\"} 0.0\n";
    expect(read("vllm", idle), {{Field::tokens_out, 0}, {Field::max_running, 512}});
    expect(read("vllm", idle + "vllm:num_requests_running{engine=\"0\",model_name=\"m\"} 3\n"
                               "vllm:num_requests_running{engine=\"1\",model_name=\"m\"} 4\n"),
           {{Field::running, 7}, {Field::tokens_out, 0}, {Field::max_running, 512}});
}

TEST(Adapters, LlamaCpp) {
    expect(read("llamacpp", text_of("llamacpp_metrics.txt")), {{Field::running, 3},
                                                               {Field::waiting, 1},
                                                               {Field::tokens_in, 1000},
                                                               {Field::tokens_out, 2500},
                                                               {Field::user_seconds, 50.5}});
}

TEST(Adapters, Tgi) {
    expect(read("tgi", text_of("tgi_metrics.txt")), {{Field::running, 5},
                                                     {Field::waiting, 3},
                                                     {Field::tokens_in, 18000},
                                                     {Field::tokens_out, 12500},
                                                     {Field::user_seconds, 875.25},
                                                     {Field::completed, 148}});
}

TEST(Adapters, TensorRtLlm) {
    expect(read("tensorrt-llm", text_of("tensorrt-llm_metrics.txt")), {{Field::running, 8},
                                                                       {Field::waiting, 4},
                                                                       {Field::kv_usage, 0.62},
                                                                       {Field::tokens_in, 1800},
                                                                       {Field::tokens_out, 30155},
                                                                       {Field::decode_tokens, 30000},
                                                                       {Field::user_seconds, 400.5},
                                                                       {Field::completed, 155}});
}

TEST(Adapters, Triton) {
    expect(read("triton", text_of("triton_metrics.txt")), {{Field::running, 4},
                                                           {Field::waiting, 3},
                                                           {Field::max_running, 512},
                                                           {Field::kv_usage, 0.4875},
                                                           {Field::tokens_in, 640},
                                                           {Field::tokens_out, 2000},
                                                           {Field::completed, 20}});
}

TEST(Adapters, Lmdeploy) {
    expect(read("lmdeploy", text_of("lmdeploy_metrics.txt")), {{Field::running, 6},
                                                               {Field::waiting, 1},
                                                               {Field::kv_usage, 0.375},
                                                               {Field::tokens_in, 900},
                                                               {Field::tokens_out, 5010},
                                                               {Field::decode_tokens, 5000},
                                                               {Field::user_seconds, 125},
                                                               {Field::completed, 9}});
}

TEST(Adapters, Lightllm) {
    expect(read("lightllm", text_of("lightllm_metrics.txt")), {{Field::running, 2},
                                                               {Field::waiting, 1},
                                                               {Field::tokens_in, 420},
                                                               {Field::tokens_out, 2020},
                                                               {Field::decode_tokens, 2000},
                                                               {Field::user_seconds, 80},
                                                               {Field::completed, 20}});
}

TEST(Adapters, ReadFactsAndModels) {
    const auto fact = [](const char* kind, const char* path, const std::string& text, Field field) {
        Observation out;
        read_facts(adapter(kind), path, text, out);
        return out[field];
    };
    EXPECT_EQ(fact("vllm", "/v1/models", text_of("vllm_models.json"), Field::max_context), 2048);
    const std::string states = text_of("sglang_get_server_info.json");  // of two data parallel ranks
    EXPECT_EQ(fact("sglang", "/get_server_info", states, Field::max_running), 256);
    EXPECT_EQ(fact("sglang", "/server_info", states, Field::max_running), 256);
    EXPECT_EQ(fact("sglang", "/server_info", R"({"max_running_requests":7,"internal_states":[]})", Field::max_running), 7);
    EXPECT_EQ(fact("sglang", "/server_info", R"({"max_running_requests":7,"internal_states":[{}]})", Field::max_running), 7);
    EXPECT_EQ(fact("llamacpp", "/props", text_of("llamacpp_props.json"), Field::max_running), 4);
    EXPECT_EQ(fact("llamacpp", "/props", text_of("llamacpp_props.json"), Field::max_context), 4096);
    EXPECT_EQ(fact("tgi", "/info", text_of("tgi_info.json"), Field::max_running), 128);
    EXPECT_EQ(fact("tgi", "/info", text_of("tgi_info.json"), Field::max_context), 2048);
    for (const char* odd : {"", "[]", "<html>", "{\"max_total_tokens\":null}", "{\"max_total_tokens\":-1}",
                            "{\"max_total_tokens\":\"9\"}"}) {
        EXPECT_FALSE(fact("tgi", "/info", odd, Field::max_context)) << odd;
    }
    std::vector<std::string> models;
    EXPECT_EQ(read_models(text_of("vllm_models.json"), models), "");
    EXPECT_EQ(models, (std::vector<std::string>{"facebook/opt-125m", "sql-lora"}));
    EXPECT_EQ(read_models(text_of("ollama_models.json"), models), "");
    EXPECT_EQ(models, (std::vector<std::string>{"llama3.2:1b", "qwen3:0.6b"}));
    for (const char* odd :
         {"", "<html>\x1b[31m", "{}", "{\"data\":{}}", "{\"data\":[]}", "{\"data\":[{\"id\":7},\"x\"]}"}) {
        const std::string why = read_models(odd, models);
        EXPECT_NE(why, "") << odd;
        EXPECT_EQ(why.find('\x1b'), std::string::npos);
    }
}

TEST(Adapters, ModelsThatNoReportCanHoldAreLeftOut) {
    std::vector<std::string> models = {"base", std::string(256, 'x'), "a\x01", std::string(255, 'y')};
    EXPECT_EQ(leave_out_models(models).substr(0, 29), "2 of 4 models are left out: a");
    EXPECT_EQ(models, (std::vector<std::string>{"base", std::string(255, 'y')}));
    EXPECT_EQ(leave_out_models(models), "");
    models.assign(70, "lora");
    EXPECT_EQ(leave_out_models(models).substr(0, 27), "6 of 70 models are left out");
    EXPECT_EQ(models.size(), 64u);
}

// What is not there or no number is no value: never a zero that somebody takes for the truth.
TEST(Adapters, NaNAndMissingNamesGiveNothing) {
    const Observation seen = read("vllm",
                                  "vllm:num_requests_running{engine=\"0\"} 3\n"
                                  "vllm:num_requests_waiting{engine=\"0\"} NaN\n"
                                  "vllm:kv_cache_usage_perc{engine=\"0\"} +Inf\n"
                                  "vllm:generation_tokens_total{engine=\"0\"} -4\n"
                                  "vllm:inter_token_latency_seconds_count{engine=\"0\"} 10\n");
    expect(seen, {{Field::running, 3}});  // decode tokens without user seconds are no speed
    const Observation half = read("vllm",
                                  "vllm:generation_tokens_total{engine=\"0\"} 5\n"
                                  "vllm:num_requests_running{engine=\"0\"} 3\n"
                                  "vllm:num_requests_running{engine=\"1\"} NaN\n");
    expect(half, {{Field::tokens_out, 5}});  // the sum of a number and nothing is nothing
}

TEST(Adapters, AnotherEnginesTextIsRefused) {
    const std::string vllm = text_of("vllm_metrics.txt");
    for (const Adapter* other : adapters()) {
        if (other->kind != "vllm" && !other->metrics_path.empty()) {
            Observation out;
            const std::string why = read_metrics(*other, vllm, out);
            EXPECT_NE(why.find(other->signature), std::string::npos) << other->kind << ": " << why;
            expect(out, {});
        }
    }
    read("vllm", "<html><body>502 Bad Gateway</body></html>", "HTML");
    read("vllm", "", "empty");
    read("vllm", "up 1\n", "vllm:generation_tokens_total");
}

// Their counters come into being with the first request; TensorRT-LLM's page is empty until then.
TEST(Adapters, NewEnginesWithoutMetricsOfTheirOwn) {
    for (const char* kind : {"tgi", "tensorrt-llm"}) {
        for (const char* text : {"", "\n", "# HELP x y\n", "python_info 1\n", "trtllm_model_config_info{m=\"x\"} 1\n"}) {
            expect(read(kind, text), {});
        }
        read(kind, "<html></html>", "HTML");
        read(kind, "{}", "JSON");
        read(kind, text_of("sglang_metrics.txt"), "not the metrics");
    }
}

TEST(Adapters, EveryTableIsWhole) {
    for (const Adapter* one : adapters()) {
        EXPECT_EQ(find_adapter(one->kind), one);
        EXPECT_NE(adapter_names().find(one->kind), std::string_view::npos);
        EXPECT_TRUE(one->health_path.starts_with('/')) << one->kind;
        EXPECT_GT(one->max_running, 0u);
        EXPECT_EQ(one->metrics_path.empty(), one->metrics.empty()) << one->kind;
        EXPECT_EQ(one->metrics_path.empty(), one->signature.empty()) << one->kind;
    }
    EXPECT_EQ(find_adapter("vLLM "), nullptr);
}

}  // namespace
}  // namespace llm::reporter
