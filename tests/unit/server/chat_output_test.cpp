#include "engine_worker/server/chat_output.hpp"

#include <gtest/gtest.h>

namespace llm::engine {
namespace {

// The message, the same however the text is cut.
ChatDelta parse(const std::string& text, ChatOutput::Options options = {}) {
    ChatDelta whole;
    for (size_t piece = 1; piece <= text.size(); ++piece) {
        ChatOutput output(options);
        ChatDelta got;
        for (size_t at = 0; at < text.size(); at += piece) {
            output.push(std::string_view(text).substr(at, piece), got);
        }
        output.finish(got);
        if (piece > 1) {
            EXPECT_EQ(got.content, whole.content) << piece;
            EXPECT_EQ(got.reasoning, whole.reasoning) << piece;
            EXPECT_EQ(got.calls.size(), whole.calls.size()) << piece;
        }
        whole = got;
    }
    return whole;
}

constexpr ChatOutput::Options kTools = {.tools = true};

TEST(ChatOutput, PlainTextIsContent) {
    EXPECT_EQ(parse(" a < b, {\"x\":1} <tool_call> ").content, " a < b, {\"x\":1} <tool_call> ");
    EXPECT_EQ(parse("<thin").content, "<thin");
}

TEST(ChatOutput, SplitsReasoning) {
    const ChatDelta got = parse("<think>\nhm < </thin ok\n</think>\n\nThe answer.");
    EXPECT_EQ(got.reasoning, "\nhm < </thin ok\n");
    EXPECT_EQ(got.content, "The answer.");
    EXPECT_EQ(parse("I say <think>no</think>").content, "I say <think>no</think>");
}

TEST(ChatOutput, ThePromptMayHaveOpenedTheReasoning) {
    ChatOutput::Options options;
    options.thinking = true;
    const ChatDelta got = parse("so</think>yes", options);
    EXPECT_EQ(got.reasoning, "so");
    EXPECT_EQ(got.content, "yes");
    EXPECT_EQ(parse("never ends", options).reasoning, "never ends");
}

TEST(ChatOutput, FindsTaggedCalls) {
    const ChatDelta got = parse(
        "Let me see.<tool_call>\n{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": \"x</\"}}\n</tool_call>\n"
        "<tool_call>{\"name\":\"g\",\"arguments\":\"{}\"}</tool_call>\n",
        kTools);
    EXPECT_EQ(got.content, "Let me see.");
    ASSERT_EQ(got.calls.size(), 2u);
    EXPECT_EQ(got.calls[0].name, "f");
    EXPECT_EQ(got.calls[0].arguments, R"({"b":1,"a":"x</"})");
    EXPECT_EQ(got.calls[1].arguments, "{}");
}

TEST(ChatOutput, ACallMayEndWithTheText) {
    EXPECT_EQ(parse("<tool_call>{\"name\":\"f\",\"arguments\":{}}", kTools).calls.size(), 1u);
}

TEST(ChatOutput, OneCallIfOnlyOneIsWanted) {
    ChatOutput::Options options = kTools;
    options.one_call = true;
    const std::string call = "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>";
    EXPECT_EQ(parse(call + call, options).calls.size(), 1u);
}

TEST(ChatOutput, FindsAWholeTextThatIsACall) {
    const ChatDelta got = parse("{\"name\":\"f\",\"parameters\":{\"q\":\"x\"}}", kTools);
    ASSERT_EQ(got.calls.size(), 1u);
    EXPECT_EQ(got.calls[0].arguments, R"({"q":"x"})");
    EXPECT_EQ(got.content, "");
}

TEST(ChatOutput, WhatOnlyLooksLikeACallStaysText) {
    for (const char* text : {"{\"name\":1}", "{\"a\":\"b\"}", "{ not json", "<tool_call>nothing</tool_call>",
                             "<tool_call>{\"name\":\"f\",\"arguments\":3}</tool_call>", "<tool_call>{\"na"}) {
        const ChatDelta got = parse(text, kTools);
        EXPECT_EQ(got.content, text);
        EXPECT_TRUE(got.calls.empty()) << text;
    }
}

// What a client has of a call whose arguments are long: the beginning is there long before the end.
TEST(ChatOutput, ArgumentsComeAsTheyAreWritten) {
    for (const std::string open :
         {"Well. <tool_call>\n{\"name\": \"f\", \"arguments\": ", "{\"name\": \"f\", \"parameters\":"}) {
        ChatOutput output(kTools);
        ChatDelta got;
        output.push(open, got);
        EXPECT_TRUE(got.calls.empty()) << "until it is sure to be one";
        output.push("{ \"text\" :\"a {", got);
        ASSERT_EQ(got.calls.size(), 1u);
        EXPECT_EQ(got.calls[0].name, "f");
        EXPECT_FALSE(got.calls[0].continues);
        EXPECT_EQ(got.calls[0].arguments, "{\"text\":\"a {");
        ChatDelta next;
        output.push(" b\\\"} \\\\\", \"n\": [1, {}]", next);
        ASSERT_EQ(next.calls.size(), 1u);
        EXPECT_TRUE(next.calls[0].continues);
        EXPECT_EQ(next.calls[0].arguments, " b\\\"} \\\\\",\"n\":[1,{}]");
    }
}

TEST(ChatOutput, ACallThatIsCutOffIsStillACall) {
    const ChatDelta tagged = parse("<tool_call>{\"name\":\"f\",\"arguments\":{\"q\": \"x y", kTools);
    ASSERT_EQ(tagged.calls.size(), 1u);
    EXPECT_EQ(tagged.calls[0].arguments, "{\"q\":\"x y");
    EXPECT_EQ(tagged.content, "");
    EXPECT_EQ(parse("{\"name\":\"f\",\"parameters\":{", kTools).calls.size(), 1u);
    // A brace too few, as small models write it: the tag ends the call all the same.
    const ChatDelta got = parse(
        "<tool_call>{\"name\":\"f\",\"arguments\":{\"q\":1}</tool_call>\n"
        "<tool_call>{\"name\":\"g\",\"arguments\":{\"q\":{\"r\":1}</tool_call> ok",
        kTools);
    ASSERT_EQ(got.calls.size(), 2u);
    EXPECT_EQ(got.calls[0].arguments, "{\"q\":1}");
    EXPECT_EQ(got.calls[1].arguments, "{\"q\":{\"r\":1}");
    EXPECT_EQ(got.content, "ok");
}

TEST(ChatOutput, TheNextCallEndsOneThatWasNotClosed) {
    const ChatDelta got = parse(
        R"(<tool_call>{"name":"f","arguments":{"q":1}})"
        "\n"
        R"(<tool_call>{"name":"g","arguments":{"q":2}})"
        "\n"
        R"(<tool_call>{"name":"h","arguments":{}}</tool_call>)",
        kTools);
    ASSERT_EQ(got.calls.size(), 3u);
    EXPECT_EQ(got.calls[0].arguments, "{\"q\":1}");
    EXPECT_EQ(got.calls[1].name, "g");
    EXPECT_EQ(got.calls[1].arguments, "{\"q\":2}");
    EXPECT_EQ(got.calls[2].name, "h");
    EXPECT_EQ(got.content, "");
}

TEST(ChatOutput, LineBreaksInsideAnArgumentAreEscaped) {
    const ChatDelta got =
        parse("<tool_call>{\"name\":\"f\",\"arguments\":{\"code\":\"a\n\tb\\n\"}}</tool_call>", kTools);
    ASSERT_EQ(got.calls.size(), 1u);
    EXPECT_EQ(got.calls[0].arguments, "{\"code\":\"a\\u000a\\u0009b\\n\"}");
}

TEST(ChatOutput, AWholeTextIsACallOfAFunctionThatExists) {
    ChatOutput::Options options = kTools;
    options.names = {"f"};
    EXPECT_EQ(parse("{\"name\":\"f\",\"parameters\":{}} ", options).calls.size(), 1u);
    const ChatDelta other = parse("{\"name\":\"Ada\",\"parameters\":{}}", options);
    EXPECT_TRUE(other.calls.empty());
    EXPECT_EQ(other.content, "{\"name\":\"Ada\",\"parameters\":{}}");
    const ChatDelta reversed = parse("{\"parameters\": {\"q\": 1}, \"name\": \"f\"}", options);
    ASSERT_EQ(reversed.calls.size(), 1u);
    EXPECT_EQ(reversed.calls[0].arguments, "{\"q\":1}");
}

TEST(ChatOutput, CallsFollowReasoning) {
    const ChatDelta got =
        parse("<think>I need f</think>\n\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", kTools);
    EXPECT_EQ(got.reasoning, "I need f");
    EXPECT_EQ(got.content, "");
    EXPECT_EQ(got.calls.size(), 1u);
    const ChatDelta whole = parse("<think>I need f</think>\n\n{\"name\":\"f\",\"parameters\":{}}", kTools);
    EXPECT_EQ(whole.content, "");
    EXPECT_EQ(whole.calls.size(), 1u);
}

}  // namespace
}  // namespace llm::engine
