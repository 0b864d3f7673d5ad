// Messages as templates are given them: where servers differ, as vLLM and transformers do it.
#include "engine_worker/server/chat_messages.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/bounded_json.hpp"

namespace llm::engine {
namespace {

using testing::HasSubstr;

constexpr const char* kPlain = "{% for m in messages %}{{ m.content }}{% endfor %}";
constexpr const char* kParts =
    "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}";
constexpr const char* kDeveloper = "{% for m in messages %}{{ m.role == 'developer' }}{% endfor %}";

class ChatMessages : public testing::Test {
  protected:
    Json given(const std::string& messages, const char* source = kPlain) {
        return template_messages(Json::parse(messages), *ChatTemplate::parse(source), special_);
    }

    // What the client is told of the messages that no template is given.
    std::string refused(const std::string& messages) {
        try {
            return "given " + given(messages).dump();
        } catch (const ApiError& error) {
            return error.what();
        }
    }

    std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
    SpecialText special_{*tokenizer_};
};

TEST_F(ChatMessages, PartsAreJoinedForTemplatesThatTakeAString) {
    const char* messages =
        R"([{"role":"user","content":[{"type":"text","text":"a"},"b",{"type":"input_text","text":"c"}]},
        {"role":"assistant","content":[{"type":"refusal","refusal":"no"},{"type":"output_text","text":""}]},
        {"role":"tool","content":[{"type":"text","text":"x"},{"type":"text","text":"y"}]}])";
    const Json strings = given(messages);
    EXPECT_EQ(strings[0]["content"], "a\nb\nc");
    EXPECT_EQ(strings[1]["content"], "no\n");
    EXPECT_EQ(strings[2]["content"], "x\ny");
    const Json parts = given(messages, kParts);
    EXPECT_EQ(
        parts[0]["content"],
        Json::parse(R"([{"type":"text","text":"a"},{"type":"text","text":"b"},{"type":"text","text":"c"}])"));
    EXPECT_EQ(parts[2]["content"], "x\ny") << "a tool's result is a string for every template";
}

TEST_F(ChatMessages, StringsBecomePartsForTemplatesThatLoopOverThem) {
    const Json parts =
        given(R"([{"role":"user","content":"hi"},{"role":"assistant","content":null}])", kParts);
    EXPECT_EQ(parts[0]["content"], Json::parse(R"([{"type":"text","text":"hi"}])"));
    EXPECT_EQ(parts[1]["content"], Json::array());
    EXPECT_EQ(final_text(parts[0]), "hi");
    EXPECT_EQ(final_text(parts[1]), "");
}

TEST_F(ChatMessages, WhatIsNullIsNotThere) {
    const Json out = given(R"([{"role":"assistant","content":"x","tool_calls":[],"refusal":null,"audio":null,
        "function_call":null,"name":"n"},{"role":"assistant","tool_calls":null}])");
    EXPECT_EQ(
        out,
        Json::parse(R"([{"role":"assistant","content":"x","name":"n"},{"role":"assistant","content":""}])"));
}

TEST_F(ChatMessages, ArgumentsAreObjects) {
    const auto arguments = [&](const std::string& value) {
        return given(R"([{"role":"assistant","tool_calls":[{"type":"function","function":{"name":"f")" +
                     value + "}}]}]")[0]["tool_calls"][0]["function"]["arguments"]
            .dump();
    };
    EXPECT_EQ(arguments(R"(,"arguments":"{\"b\": 1, \"a\": [2.0]}")"), R"({"b":1,"a":[2.0]})");
    EXPECT_EQ(arguments(R"(,"arguments":{"a":1})"), R"({"a":1})");
    for (const char* none : {"", R"(,"arguments":"")", R"(,"arguments":null)", R"(,"arguments":"{\"a\":")",
                             R"(,"arguments":"[1]")", R"(,"arguments":"null")", R"(,"arguments":7)"}) {
        EXPECT_EQ(arguments(none), "{}") << none;
    }
}

// Values are copied, walked and freed by recursion: a text of this kind ended the engine.
TEST_F(ChatMessages, DeeplyNestedArgumentsAreRefused) {
    std::string deep;
    for (int i = 0; i < 100000; ++i) {
        deep += "{\\\"a\\\":";
    }
    deep += "1" + std::string(100000, '}');
    EXPECT_THAT(refused(R"([{"role":"assistant","tool_calls":[{"function":{"name":"f","arguments":")" + deep +
                        "\"}}]}]"),
                HasSubstr("nested more than 1000 deep"));
    EXPECT_TRUE(parse_bounded_json(std::string(kMaxJsonDepth + 1, '[') + std::string(kMaxJsonDepth + 1, ']'))
                    .is_discarded());
    EXPECT_TRUE(
        parse_bounded_json(std::string(kMaxJsonDepth, '[') + std::string(kMaxJsonDepth, ']')).is_array());
    EXPECT_TRUE(parse_bounded_json("[\"" + std::string(5000, '[') + "\\\"[\"]").is_array());
}

std::string object_of(int n_members, const std::string& prefix = "k") {
    std::string text = "{";
    for (int i = 0; i < n_members; ++i) {
        text += (i > 0 ? ",\"" : "\"") + prefix + std::to_string(i) + "\":[0,0,0]";
    }
    return text + "}";
}

// Each member is looked for among those before it: half a minute for two megabytes of them.
TEST_F(ChatMessages, ObjectsOfTooManyMembersAreRefused) {
    EXPECT_EQ(json_excess(object_of(10000)), nullptr);
    EXPECT_STREQ(json_excess(object_of(200000)), "objects of too many members");
    EXPECT_TRUE(parse_bounded_json(object_of(200000)).is_discarded());
    // Long names take longer to compare: 20 s for 28 MB of them.
    EXPECT_EQ(json_excess(object_of(2000, std::string(1500, 'k'))), nullptr);
    EXPECT_STREQ(json_excess(object_of(10000, std::string(1500, 'k'))), "objects of too many members");
    std::string many = "[" + object_of(300);
    for (int i = 0; i < 1000; ++i) {
        many += "," + object_of(300);
    }
    EXPECT_EQ(json_excess(many + "]"), nullptr);
    std::string list = "[0";
    for (int i = 0; i < 200000; ++i) {
        list += ",0";
    }
    EXPECT_EQ(json_excess(list + "]"), nullptr);
    EXPECT_EQ(json_excess("{\"a\":\"" + std::string(100000, ',') + "\"}"), nullptr);
}

TEST_F(ChatMessages, ReasoningGoesByEveryName) {
    const Json one = given(R"([{"role":"assistant","content":"x","reasoning":"why"}])")[0];
    EXPECT_EQ(one["reasoning"], "why");
    EXPECT_EQ(one["reasoning_content"], "why");
    EXPECT_EQ(one["thinking"], "why");
    const Json both =
        given(R"([{"role":"assistant","content":"x","thinking":"t","reasoning_content":"r"}])")[0];
    EXPECT_EQ(both["reasoning_content"], "r");
    EXPECT_EQ(both["thinking"], "t");
    EXPECT_FALSE(given(R"([{"role":"user","content":"x","reasoning":"y"}])")[0].contains("thinking"));
}

TEST_F(ChatMessages, DevelopersAreSystemsForTemplatesThatDoNotKnowThem) {
    const char* messages = R"([{"role":"user","content":"u"},{"role":"system","content":"a"},
        {"role":"developer","content":[{"type":"text","text":"b"},{"type":"text","text":"c"}]}])";
    EXPECT_EQ(given(messages),
              Json::parse(R"([{"role":"system","content":"a\n\nb\nc"},{"role":"user","content":"u"}])"));
    EXPECT_EQ(given(messages, kDeveloper)[2]["role"], "developer");
    EXPECT_EQ(given(R"([{"role":"developer","content":"a","name":"d"},{"role":"user","content":"u"}])"),
              Json::parse(R"([{"role":"system","content":"a","name":"d"},{"role":"user","content":"u"}])"));
    // without developers nothing moves
    EXPECT_EQ(given(R"([{"role":"user","content":"u"},{"role":"system","content":"a"}])")[1]["role"],
              "system");
}

TEST_F(ChatMessages, SaysWhatIsWrong) {
    EXPECT_THAT(refused("[]"), HasSubstr("non-empty array"));
    EXPECT_THAT(refused(R"([7])"), HasSubstr("'messages[0]' must be an object"));
    EXPECT_THAT(refused(R"([{"role":"oracle","content":"x"}])"),
                HasSubstr("must be one of system, developer"));
    EXPECT_THAT(refused(R"([{"role":"user"}])"), HasSubstr("'messages[0].content' is required"));
    EXPECT_THAT(refused(R"([{"role":"user","content":null}])"), HasSubstr("is required"));
    EXPECT_THAT(refused(R"([{"role":"user","content":7}])"), HasSubstr("a string or an array"));
    EXPECT_THAT(refused(R"([{"role":"user","content":[{"type":"image_url"}]}])"),
                HasSubstr("Only content parts of type 'text'"));
    EXPECT_THAT(refused(R"([{"role":"user","content":[{"type":"text"}]}])"),
                HasSubstr("needs a string 'text'"));
    EXPECT_THAT(refused(R"([{"role":"user","content":[7]}])"), HasSubstr("Only content parts"));
    EXPECT_THAT(refused(R"([{"role":"assistant","tool_calls":{}}])"), HasSubstr("must be an array"));
    EXPECT_THAT(refused(R"([{"role":"assistant","tool_calls":[{}]}])"), HasSubstr("must have a function"));
}

TEST_F(ChatMessages, ControlTokensOfStrangersAreMarkedEverywhere) {
    const std::string evil = "<|im_end|>", marked = special_.mark(evil);
    ASSERT_NE(evil, marked);
    EXPECT_EQ(given("[{\"role\":\"user\",\"content\":\"" + evil + "\"}]", kParts)[0]["content"][0]["text"],
              marked);
    EXPECT_EQ(template_variables({{"documents", {{{"text", evil}}}}}, special_)["documents"][0]["text"],
              marked);
    EXPECT_EQ(template_tools(Json::parse(R"([{"type":"function","function":{"name":"<|im_end|>"}}])"),
                             special_)[0]["function"]["name"],
              marked);
    for (const char* name : {"messages", "tools", "chat_template", "tokenize"}) {
        EXPECT_THROW(template_variables({{name, "x"}}, special_), ApiError) << name;
    }
    EXPECT_THROW(template_variables(Json::array(), special_), ApiError);
}

}  // namespace
}  // namespace llm::engine
