#include "shared/engine_report.hpp"

#include <gtest/gtest.h>

namespace llm {
namespace {

const std::string kMinimal =
    R"({"v":1,"id":"e","url":"http://h:1","models":["m"],"state":"ready","boot":7,"seq":1,"ttl_ms":3000})";

std::string replace(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
}

TEST(EngineReport, MinimalReportHasDefaults) {
    EngineReport report;
    ASSERT_EQ(parse_engine_report(kMinimal, report), "");
    EXPECT_EQ(report.id, "e");
    EXPECT_EQ(report.max_running, 64u);
    EXPECT_FALSE(report.has_counters);
    EXPECT_EQ(report.state, EngineState::ready);
}

TEST(EngineReport, RoundTrip) {
    EngineReport report;
    report.id = "gpu0@host-a";
    report.url = "https://[::1]:8000";
    report.models = {"a/b", "c"};
    report.org = "cs";
    report.state = EngineState::draining;
    report.boot = 1763700000123;
    report.seq = 42;
    report.ttl_ms = 3000;
    report.max_running = 256;
    report.max_context = 8192;
    report.preempts = true;
    report.running = 12;
    report.kv_usage = 0.41;
    report.uptime_s = 345.5;
    report.tokens_in = 81234;
    report.tokens_out = 123456;
    report.decode_tokens = 123001;
    report.user_seconds = 4567.75;
    report.completed = 455;
    report.has_counters = true;
    EngineReport back;
    ASSERT_EQ(parse_engine_report(to_json(report), back), "");
    EXPECT_EQ(to_json(back), to_json(report));
    EXPECT_TRUE(back.has_counters);
    EXPECT_EQ(back.models, report.models);
}

TEST(EngineReport, IntegersMayBeWrittenAsFloats) {
    EngineReport report;
    ASSERT_EQ(parse_engine_report(R"({"v":1.0,"id":"e","url":"http://h:1","models":["m"],"state":"ready",)"
                                  R"("boot":1.763700000123e12,"seq":42.0,"ttl_ms":3e3,"max_running":8.0,"running":0.0})",
                                  report),
              "");
    EXPECT_EQ(report.boot, 1763700000123u);
    EXPECT_EQ(report.seq, 42u);
    EXPECT_EQ(report.ttl_ms, 3000u);
    EXPECT_EQ(report.max_running, 8u);
}

TEST(EngineReport, EachRequiredFieldIsNamedWhenItIsMissing) {
    for (const char* name : {"v", "id", "url", "models", "state", "boot", "seq", "ttl_ms"}) {
        EngineReport report;
        const std::string text = replace(kMinimal, "\"" + std::string(name) + "\":", "\"x\":");
        EXPECT_EQ(parse_engine_report(text, report), "\"" + std::string(name) + "\": missing");
    }
}

TEST(EngineReport, LyingValuesAreRefused) {
    const std::pair<const char*, const char*> lies[] = {
        {"\"seq\":1", "\"seq\":-1"},
        {"\"seq\":1", "\"seq\":1.5"},
        {"\"seq\":1", "\"seq\":-1.0"},
        {"\"seq\":1", "\"seq\":1e17"},
        {"\"seq\":1", "\"seq\":\"1\""},
        {"\"seq\":1", "\"seq\":1,\"user_seconds\":-3"},
        {"\"seq\":1", "\"seq\":1,\"tokens_out\":1e30"},
        {"\"seq\":1", "\"seq\":1,\"kv_usage\":1e400"},
        {"\"seq\":1", "\"seq\":1,\"kv_usage\":2"},
        {"\"seq\":1", "\"seq\":1,\"running\":4294967296"},
        {"\"seq\":1", "\"seq\":1,\"preempts\":1"},
        {"\"v\":1", "\"v\":2"},
        {"\"ready\"", "\"READY\""},
        {"[\"m\"]", "[]"},
        {"[\"m\"]", "[\"\"]"},
        {"[\"m\"]", "\"m\""},
        {"http://h:1", "ftp://h"},
        {"http://h:1", "http://h/path"},
        {"http://h:1", "http://"},
        {"http://h:1", "http://:1"},
        {"http://h:1", "http://h:"},
        {"http://h:1", "http://h:0"},
        {"http://h:1", "http://h:65536"},
        {"http://h:1", "http://h:1x"},
        {"http://h:1", "http://h:-1"},
        {"http://h:1", "http://::1"},
        {"http://h:1", "http://[::1"},
        {"http://h:1", "http://[]:1"},
        {"http://h:1", "http://[::1]1"},
        {"\"e\"", "\"a\\nb\""},
        {"\"ttl_ms\":3000", "\"ttl_ms\":0"},
    };
    for (const auto& [from, to] : lies) {
        EngineReport report;
        EXPECT_NE(parse_engine_report(replace(kMinimal, from, to), report), "") << to;
    }
}

TEST(EngineReport, WhatIsRefusedSaysWhatIsAllowed) {
    EngineReport report;
    EXPECT_EQ(parse_engine_report(replace(kMinimal, "\"seq\":1", "\"seq\":1,\"kv_usage\":1.01"), report),
              "\"kv_usage\": must be in 0..1");
}

TEST(EngineReport, Urls) {
    for (const char* url :
         {"http://h", "https://h:65535", "http://[::1]", "http://[fe80::1]:8000", "http://10.0.0.5:8000"}) {
        EngineReport report;
        EXPECT_EQ(parse_engine_report(replace(kMinimal, "http://h:1", url), report), "") << url;
        EXPECT_EQ(report.url, url);
    }
}

TEST(EngineReport, NotAReport) {
    EngineReport report;
    EXPECT_EQ(parse_engine_report("", report), "not JSON");
    EXPECT_EQ(parse_engine_report("[1]", report), "not a JSON object");
    EXPECT_EQ(parse_engine_report(kMinimal + "x", report), "not JSON");
    EXPECT_EQ(parse_engine_report(std::string(70000, ' '), report), "longer than 64 KiB");
}

TEST(EngineReport, DecodeTokensFallBackToTokensOut) {
    EngineReport report;
    ASSERT_EQ(parse_engine_report(
                  replace(kMinimal, "\"seq\":1", "\"seq\":1,\"tokens_out\":9,\"user_seconds\":2,\"future\":{}"), report),
              "");
    EXPECT_EQ(report.decode_tokens, 9);
    EXPECT_TRUE(report.has_counters);
}

}  // namespace
}  // namespace llm
