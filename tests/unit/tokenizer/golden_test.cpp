// Ids and texts equal to the reference library's on every family (tools/make_tokenizer_goldens.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "engine_worker/tokenizer/tokenizer.hpp"
#include "shared/json.hpp"

namespace llm::engine {
namespace {

using nlohmann::json;

const std::string kRoot = LLM_GOLDEN_DIR "/tokenizer";

std::vector<std::string> families() {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(kRoot))
        names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
}

json golden(const std::string& family, const char* part) {
    std::ifstream in(kRoot + "/" + family + "/golden.json");
    return json::parse(in)[part];
}

class TokenizerGolden : public testing::TestWithParam<std::string> {};

TEST_P(TokenizerGolden, EncodesAndDecodesAsTheReference) {
    const auto tokenizer = Tokenizer::load(kRoot + "/" + GetParam());
    size_t cases = 0;
    for (const json& one : golden(GetParam(), "cases")) {
        const auto text = one["text"].get<std::string>();
        SCOPED_TRACE(one["text"].dump());
        const json bare = one.value("bare", one["ids"]);
        const auto ids = tokenizer->encode(text, {});
        EXPECT_EQ(json(ids), one["ids"]);
        const auto without_frame = tokenizer->encode(text, {.add_special = false, .parse_special = true});
        EXPECT_EQ(json(without_frame), bare);
        EXPECT_EQ(json(tokenizer->encode(text, {.add_special = false, .parse_special = false})),
                  one.value("plain", bare));
        EXPECT_EQ(tokenizer->decode(without_frame, true), one["decoded"].get<std::string>());
        EXPECT_EQ(tokenizer->decode(ids, false), one.value("whole", one["decoded"].get<std::string>()));
        ++cases;
        if (testing::Test::HasFailure() && cases > 200)
            return;
    }
    EXPECT_GE(cases, 200u);
}

TEST_P(TokenizerGolden, DecodesAnyIdsAsTheReference) {
    const auto tokenizer = Tokenizer::load(kRoot + "/" + GetParam());
    for (const json& one : golden(GetParam(), "streams")) {
        SCOPED_TRACE(one["ids"].dump());
        EXPECT_EQ(tokenizer->decode(one["ids"].get<std::vector<int32_t>>(), true),
                  one["decoded"].get<std::string>());
    }
}

TEST_P(TokenizerGolden, StreamsTheSameTextAsItDecodes) {
    const auto tokenizer = Tokenizer::load(kRoot + "/" + GetParam());
    for (const json& one : golden(GetParam(), "cases")) {
        SCOPED_TRACE(one["text"].dump());
        const auto ids = tokenizer->encode(one["text"].get<std::string>(), {});
        StreamDecoder stream(*tokenizer);
        std::string text;
        for (int32_t id : ids)
            text += stream.push(id);
        text += stream.flush();
        EXPECT_EQ(text, tokenizer->decode(ids, true));
    }
}

INSTANTIATE_TEST_SUITE_P(Families, TokenizerGolden, testing::ValuesIn(families()),
                         [](const auto& family) { return family.param; });

}  // namespace
}  // namespace llm::engine
