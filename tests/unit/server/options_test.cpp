#include "engine_worker/server/options.hpp"

#include <gtest/gtest.h>

namespace llm::engine {
namespace {

std::string why(const std::vector<std::string>& arguments) {
    Options options;
    return parse_options(arguments, options);
}

TEST(Options, ReadsBothForms) {
    Options options;
    ASSERT_EQ(parse_options({"--model", "m", "--listen=unix:/tmp/x", "--served-model-name", "a,b",
                             "--max-running=3", "--redis", "redis://h:1/2", "--sim", "base=1.5,reply=7"},
                            options),
              "");
    EXPECT_EQ(options.model, "m");
    EXPECT_EQ(options.listen, "unix:/tmp/x");
    EXPECT_EQ(options.served_names, (std::vector<std::string>{"a", "b"}));
    EXPECT_EQ(options.max_running, 3);
    EXPECT_EQ(options.redis_url.port, 1);
    EXPECT_EQ(options.sim.base_ms, 1.5);
    EXPECT_EQ(options.sim.reply_tokens, 7);
}

TEST(Options, NamesTheOptionAtFault) {
    for (const auto& [arguments, named] : std::vector<std::pair<std::vector<std::string>, std::string>>{
             {{}, "--model"},
             {{"--model"}, "--model"},
             {{"--modle", "x"}, "--modle"},
             {{"--max-running", "0"}, "--max-running"},
             {{"--max-running", "1x"}, "--max-running"},
             {{"--backend", "tpu"}, "--backend"},
             {{"--redis", "http://x"}, "--redis"},
             {{"--redis", "rediss://"}, "--redis"},
             {{"--served-model-name", "a,,b"}, "--served-model-name"},
             {{"--sim", "base"}, "--sim"},
             {{"--sim", "speed=1"}, "--sim"},
             {{"--sim-text", "/nowhere"}, "--sim-text"},
             {{"--step-ms", "-1"}, "--step-ms"},
             {{"--allowed-origins", "chat.example.org"}, "--allowed-origins"},
             {{"--allowed-origins", "https://a.org,"}, "--allowed-origins"},
             {{"--allowed-origins", "https://a.org/path"}, "--allowed-origins"},
             {{"--allowed-origins", "*,https://a.org"}, "--allowed-origins"},
         }) {
        EXPECT_NE(why(arguments).find(named), std::string::npos) << why(arguments);
    }
}

TEST(Options, UsageNamesThemAll) {
    EXPECT_NE(usage_text().find("--served-model-name"), std::string::npos);
    EXPECT_NE(usage_text().find("--sim-text"), std::string::npos);
}

}  // namespace
}  // namespace llm::engine
