#include "engine_worker/reporter/options.hpp"

#include <gtest/gtest.h>

namespace llm::reporter {
namespace {

std::string parse(std::vector<std::string> more, Options& out) {
    std::vector<std::string> line = {"--engine", "vllm",     "--url", "http://10.0.0.5:8000/",
                                     "--redis",  "redis://r"};
    line.insert(line.end(), more.begin(), more.end());
    out = Options{};
    return parse_options(line, out);
}

TEST(ReporterOptions, Defaults) {
    Options out;
    EXPECT_EQ(parse({}, out), "");
    EXPECT_EQ(out.url, "http://10.0.0.5:8000");
    EXPECT_EQ(out.advertise_url, out.url);
    EXPECT_EQ(out.id, "10.0.0.5:8000");
    EXPECT_EQ(out.prefix, "llm:");
    EXPECT_EQ(parse_options({"--once", "--engine=vllm", "--url=http://127.0.0.1:8000"}, out = Options{}), "");
    EXPECT_EQ(out.id.find("127.0.0.1"), std::string::npos) << "every host has one of those";
    EXPECT_TRUE(out.id.ends_with(":8000"));
    for (const char* loopback : {"http://127.0.0.1", "https://localhost", "http://[::1]", "http://127.0.0.2:8000"}) {
        EXPECT_EQ(parse({"--url", loopback}, out), "");
        EXPECT_EQ(out.id.find_first_of("[]"), std::string::npos) << out.id;
        EXPECT_FALSE(out.id.starts_with("127.") || out.id == "localhost") << out.id;
    }
    for (const char* other : {"[fd00::1]", "[fd00::1]:8000", "gpu0", "gpu0:80"}) {
        EXPECT_EQ(parse({"--url", "http://" + std::string(other)}, out), "");
        EXPECT_EQ(out.id, other);
    }
}

TEST(ReporterOptions, TakesThemAll) {
    Options out;
    EXPECT_EQ(parse({"--id",
                     "gpu0@a",
                     "--advertise-url=https://e.example",
                     "--org",
                     "cs",
                     "--model",
                     "a,b/c",
                     "--max-running",
                     "8",
                     "--max-context",
                     "4096",
                     "--interval",
                     "0.25",
                     "--timeout",
                     "1",
                     "--fail-after",
                     "0",
                     "--prefix",
                     "x:",
                     "--metrics-url",
                     "http://10.0.0.5:8002/metrics"},
                    out),
              "");
    EXPECT_EQ(out.models, (std::vector<std::string>{"a", "b/c"}));
    EXPECT_EQ(out.max_running, 8u);
    EXPECT_EQ(out.interval_s, 0.25);
    EXPECT_EQ(out.advertise_url, "https://e.example");
}

TEST(ReporterOptions, SayWhatIsAllowed) {
    Options out;
    const auto told = [&](std::vector<std::string> more, const char* text) {
        const std::string why = parse(std::move(more), out);
        EXPECT_NE(why.find(text), std::string::npos) << why;
    };
    told({"--engine", "vlm"},
         "vllm, sglang, llamacpp, tgi, tensorrt-llm, triton, lmdeploy, lightllm, ollama");
    told({"--url", "10.0.0.5:8000"}, "http://");
    told({"--url", "http://h:1/v1"}, "without a path");
    told({"--advertise-url", "http://u:p@h:1"}, "without a path");
    told({"--redis", "http://r"}, "redis://");
    told({"--max-running", "0"}, "from 1");
    told({"--max-running", "1.5"}, "whole");
    told({"--interval", "soon"}, "number");
    told({"--model", "a,,b"}, "names");
    told({"--speed", "1"}, "unknown option --speed");
    told({"--id"}, "needs a value");
    told({"--api-key-file", "/nonexistent"}, "cannot be read");
    told({"--ca-file", "/nonexistent"}, "cannot be read");
    EXPECT_NE(parse_options({"--url", "http://h:1", "--redis", "redis://r"}, out = Options{})
                  .find("--engine is missing"),
              std::string::npos);
    EXPECT_NE(
        parse_options({"--engine", "vllm", "--redis", "redis://r"}, out = Options{}).find("--url is missing"),
        std::string::npos);
    EXPECT_NE(parse_options({"--engine", "vllm", "--url", "http://h:1"}, out = Options{})
                  .find("--redis is missing"),
              std::string::npos);
}

}  // namespace
}  // namespace llm::reporter
