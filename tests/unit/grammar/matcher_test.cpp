#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine_worker/grammar/compiled_grammar.hpp"
#include "engine_worker/grammar/json_schema.hpp"
#include "shared/json.hpp"
#include "tests/unit/grammar/grammar_support.hpp"

namespace llm::engine {
namespace {

using testing::Reading;

constexpr const char* kSchemas[] = {
    R"({"type":"object"})",
    R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
        "tags":{"type":"array","items":{"type":"string","maxLength":5},"minItems":1,"maxItems":3},"ok":{"type":"boolean"}},
        "required":["name","age","tags"]})",
    R"({"type":"array","items":{"enum":["a","ab","abc",1,12]},"minItems":2})",
    R"({"type":"object","properties":{"v":{"type":"string","minLength":3,"maxLength":12},
        "next":{"anyOf":[{"$ref":"#"},{"type":"null"}]}},"required":["v","next"]})",
    R"({"type":"string","pattern":"^[a-c]{2,4}-(x|yz)+$"})",
    R"({"type":"string","format":"date-time"})",
    R"({"type":"number","minimum":-3.25,"maximum":1000})",
    R"({"properties":{"a":{"type":"integer"}},"additionalProperties":{"type":"string"}})",
    R"({"anyOf":[{"type":"object","properties":{"kind":{"const":"one"},"n":{"type":"number"}},"required":["kind","n"]},
        {"type":"object","properties":{"kind":{"const":"only"},"s":{"type":"string"}},"required":["kind"]}]})",
};

bool is_set(const std::vector<uint32_t>& mask, int32_t token) {
    return (mask[static_cast<size_t>(token) / 32] >> (token % 32) & 1U) != 0;
}

// At every step of random texts the mask holds exactly the tokens whose bytes the grammar can read.
TEST(GrammarMatcher, MaskIsExact) {
    for (const char* schema : kSchemas) {
        for (uint32_t seed = 0; seed < 2; ++seed) {
            const std::vector<std::string> vocabulary = testing::json_vocabulary(seed, 300);
            const auto trie = std::make_shared<const TokenTrie>(vocabulary);
            const auto end = static_cast<int32_t>(vocabulary.size()) - 1;
            const auto compiled = std::make_shared<CompiledGrammar>(testing::schema_grammar(schema), trie);
            GrammarMatcher matcher(compiled, {end});
            Automaton oracle(compiled->grammar());
            int32_t state = oracle.start();
            std::mt19937 random(seed);
            std::string text;
            for (int step = 0; step < 80 && !matcher.must_end(); ++step) {
                const std::vector<uint32_t> mask = matcher.mask();
                ASSERT_FALSE(mask.empty());
                std::vector<int32_t> allowed;
                for (int32_t token = 0; token < end; ++token) {
                    int32_t at = state;
                    for (const char c : vocabulary[static_cast<size_t>(token)]) {
                        at = at == Automaton::kDead ? at : oracle.next(at, static_cast<uint8_t>(c));
                    }
                    ASSERT_EQ(is_set(mask, token), at != Automaton::kDead)
                        << schema << " behind " << text << " token "
                        << vocabulary[static_cast<size_t>(token)];
                    if (at != Automaton::kDead) {
                        allowed.push_back(token);
                    }
                }
                ASSERT_EQ(is_set(mask, end), oracle.ended(state)) << schema << " behind " << text;
                if (allowed.empty()) {
                    break;
                }
                const int32_t token = allowed[random() % allowed.size()];
                ASSERT_TRUE(matcher.accept(token));
                text += vocabulary[static_cast<size_t>(token)];
                for (const char c : vocabulary[static_cast<size_t>(token)]) {
                    state = oracle.next(state, static_cast<uint8_t>(c));
                }
                ASSERT_EQ(matcher.may_end(), testing::read_with(compiled->grammar(), text) == Reading::whole);
            }
        }
    }
}

// What ends is JSON. (That it also satisfies the schema: the tests with a validator, over HTTP.)
TEST(GrammarMatcher, RandomTextsAreJson) {
    const std::vector<std::string> vocabulary = testing::json_vocabulary(7, 200);
    const auto trie = std::make_shared<const TokenTrie>(vocabulary);
    const auto end = static_cast<int32_t>(vocabulary.size()) - 1;
    std::mt19937 random(11);
    int ended = 0;
    for (const char* schema : kSchemas) {
        const auto compiled = std::make_shared<CompiledGrammar>(testing::schema_grammar(schema), trie);
        for (int round = 0; round < 20; ++round) {
            GrammarMatcher matcher(compiled, {end});
            std::string text;
            for (int step = 0; step < 400 && !(matcher.may_end() && round % 2 == 0) && !matcher.must_end();
                 ++step) {
                const auto& mask = matcher.mask();
                std::vector<int32_t> allowed;
                for (int32_t token = 0; token < end; ++token) {
                    if (is_set(mask, token)) {
                        allowed.push_back(token);
                    }
                }
                ASSERT_FALSE(allowed.empty()) << schema << ": " << text;
                const int32_t token = allowed[random() % allowed.size()];
                ASSERT_TRUE(matcher.accept(token));
                text += vocabulary[static_cast<size_t>(token)];
            }
            if (matcher.may_end()) {
                ++ended;
                EXPECT_TRUE(nlohmann::json::accept(text)) << text;
            }
        }
    }
    EXPECT_GT(ended, 40);
}

TEST(GrammarMatcher, RefusesWhatTheMaskForbids) {
    const auto trie = std::make_shared<const TokenTrie>(std::vector<std::string>{"{", "}", "x", ""});
    const auto compiled =
        std::make_shared<CompiledGrammar>(testing::schema_grammar(R"({"type":"object"})"), trie);
    GrammarMatcher matcher(compiled, {3});
    EXPECT_EQ(matcher.mask(), std::vector<uint32_t>{1});
    EXPECT_FALSE(matcher.accept(2));
    EXPECT_FALSE(matcher.accept(3));
    EXPECT_FALSE(matcher.accept(99));
    ASSERT_TRUE(matcher.accept(0));
    EXPECT_EQ(matcher.mask(), std::vector<uint32_t>{2});
    EXPECT_FALSE(matcher.may_end());
    ASSERT_TRUE(matcher.accept(1));
    EXPECT_TRUE(matcher.must_end());
    EXPECT_EQ(matcher.mask(), std::vector<uint32_t>{8}) << "nothing but the end";
}

// A vocabulary that cannot spell the rest: nothing is allowed, and that is said.
TEST(GrammarMatcher, DeadEndIsAnEmptyMask) {
    const auto trie = std::make_shared<const TokenTrie>(std::vector<std::string>{"{", "x"});
    const auto compiled =
        std::make_shared<CompiledGrammar>(testing::schema_grammar(R"({"const":"x"})"), trie);
    GrammarMatcher matcher(compiled, {});
    EXPECT_TRUE(matcher.mask().empty());
}

// Every schema may be any of those behind it, or what `own` makes of it: 2^n ways lead to the last one.
OrderedJson ways_to_one(int n, const std::function<OrderedJson(const OrderedJson& others)>& own) {
    OrderedJson schema = {{"$ref", "#/$defs/0"}};
    for (int i = 0; i <= n; ++i) {
        OrderedJson others = OrderedJson::array({{{"const", i}}});
        for (int later = i + 1; later <= n; ++later) {
            others.push_back({{"$ref", "#/$defs/" + std::to_string(later)}});
        }
        schema["$defs"][std::to_string(i)] = own({{"anyOf", std::move(others)}});
    }
    return schema;
}

TEST(GrammarMatcher, AllWaysToOnePlaceAreOne) {
    const OrderedJson schema = ways_to_one(80, [](const OrderedJson& others) { return others; });
    const Grammar grammar = compile_json_schema(schema);
    EXPECT_EQ(testing::read_with(grammar, "80"), Reading::whole);
    EXPECT_EQ(testing::read_with(grammar, "81"), Reading::no);
}

// Each bracket may be that of many arrays, which are told apart only when they end.
TEST(GrammarMatcher, ATextWithTooManyReadingsCannotGoOn) {
    const auto trie = std::make_shared<const TokenTrie>(std::vector<std::string>{"[", "]", "40"});
    const OrderedJson schema = ways_to_one(40, [](const OrderedJson& others) -> OrderedJson {
        return {{"type", "array"}, {"items", others}};
    });
    const auto compiled = std::make_shared<CompiledGrammar>(compile_json_schema(schema), trie);
    GrammarMatcher matcher(compiled, {});
    int depth = 0;
    while (depth < 40 && !matcher.mask().empty() && matcher.accept(0)) {
        ++depth;
    }
    EXPECT_GE(depth, 3);
    EXPECT_LT(depth, 40);
    EXPECT_FALSE(matcher.accept(0));
}

TEST(GrammarMatcher, DeepNestingStaysSmallAndRight) {
    const std::vector<std::string> vocabulary = testing::json_vocabulary(1, 100);
    const auto trie = std::make_shared<const TokenTrie>(vocabulary);
    const auto compiled = std::make_shared<CompiledGrammar>(testing::schema_grammar("{}"), trie);
    GrammarMatcher matcher(compiled, {});
    for (int i = 0; i < 3000; ++i) {
        ASSERT_TRUE(matcher.accept('['));
    }
    EXPECT_TRUE(is_set(matcher.mask(), ']'));
    for (int i = 0; i < 3000; ++i) {
        ASSERT_FALSE(matcher.may_end());
        ASSERT_TRUE(matcher.accept(']'));
    }
    EXPECT_TRUE(matcher.must_end());
}

}  // namespace
}  // namespace llm::engine
