#include "engine_worker/server/api_response.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string_view>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/server/json_text.hpp"

namespace llm::engine {
namespace {

// The JSON of every event; "[DONE]" as a string.
std::vector<Json> events_of(const std::string& text) {
    std::vector<Json> out;
    for (size_t at = 0; at < text.size();) {
        const size_t end = text.find("\n\n", at);
        EXPECT_NE(end, std::string::npos);
        EXPECT_EQ(text.substr(at, 6), "data: ");
        const std::string data = text.substr(at + 6, end - at - 6);
        out.push_back(data == "[DONE]" ? Json("[DONE]") : Json::parse(data));
        at = end + 2;
    }
    return out;
}

Event event(int32_t choice, const std::string& text, int32_t tokens,
            FinishReason finish = FinishReason::none) {
    Event out;
    out.choice = choice;
    out.text = text;
    out.completion_tokens = tokens;
    out.cached_tokens = 16;
    out.finish = finish;
    return out;
}

class AnswerTest : public ::testing::Test {
  protected:
    CompletionAnswer make(AnswerShape shape, int32_t n = 1, size_t prompts = 1) {
        shape.model = "m";
        Request request;
        request.n = n;
        request.prompts.assign(prompts, {1, 2, 3});
        return CompletionAnswer(shape, request, "id-1", 1234, *tokenizer_);
    }
    std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
};

TEST_F(AnswerTest, StreamsRoleThenTextThenEndThenUsageThenDone) {
    AnswerShape shape;
    shape.stream = shape.include_usage = true;
    CompletionAnswer answer = make(shape);
    std::string out;
    answer.take(event(0, "He", 1));
    answer.drain(out);
    answer.take(event(0, "llo", 2));
    answer.drain(out);
    answer.take(event(0, "", 3, FinishReason::stop));
    answer.drain(out);
    EXPECT_TRUE(answer.complete());
    const auto events = events_of(out);
    ASSERT_EQ(events.size(), 6u);
    EXPECT_EQ(events[0]["choices"][0]["delta"], Json({{"role", "assistant"}, {"content", ""}}));
    EXPECT_EQ(events[1]["choices"][0]["delta"], Json({{"content", "He"}}));
    EXPECT_EQ(events[2]["choices"][0]["delta"], Json({{"content", "llo"}}));
    EXPECT_TRUE(events[2]["choices"][0]["finish_reason"].is_null());
    EXPECT_EQ(events[3]["choices"][0]["delta"], Json::object());
    EXPECT_EQ(events[3]["choices"][0]["finish_reason"], "stop");
    EXPECT_TRUE(events[3]["usage"].is_null());
    EXPECT_TRUE(events[4]["choices"].empty());
    EXPECT_EQ(events[4]["usage"]["prompt_tokens"], 3);
    EXPECT_EQ(events[4]["usage"]["completion_tokens"], 3);
    EXPECT_EQ(events[4]["usage"]["total_tokens"], 6);
    EXPECT_EQ(events[4]["usage"]["prompt_tokens_details"]["cached_tokens"], 16);
    EXPECT_EQ(events[5], "[DONE]");
    EXPECT_EQ(events[0]["object"], "chat.completion.chunk");
    EXPECT_EQ(events[0]["id"], "id-1");
    EXPECT_EQ(events[0]["created"], 1234);
}

TEST_F(AnswerTest, WithoutIncludeUsageThereIsNoUsage) {
    AnswerShape shape;
    shape.stream = true;
    CompletionAnswer answer = make(shape);
    std::string out;
    answer.take(event(0, "x", 1, FinishReason::length));
    answer.drain(out);
    EXPECT_EQ(out.find("usage"), std::string::npos);
    EXPECT_EQ(events_of(out).back(), "[DONE]");
}

// Clients put a call together from its pieces by their index; only the first has the id and the name.
TEST_F(AnswerTest, StreamsTheArgumentsOfCalls) {
    AnswerShape shape;
    shape.stream = true;
    shape.output.tools = true;
    CompletionAnswer answer = make(shape);
    std::string out;
    const auto take = [&](const std::string& text, FinishReason finish = FinishReason::none) {
        answer.take(event(0, text, 1, finish));
        answer.drain(out);
    };
    take("<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":");
    take("\"x");
    take("\"}}</tool_call><tool_call>{\"name\":\"g\",\"arguments\":{");
    take("}}</tool_call>", FinishReason::stop);
    std::vector<Json> pieces;
    for (const Json& one : events_of(out)) {
        if (one.is_object() && one["choices"][0]["delta"].contains("tool_calls")) {
            pieces.insert(pieces.end(), one["choices"][0]["delta"]["tool_calls"].begin(),
                          one["choices"][0]["delta"]["tool_calls"].end());
        }
    }
    ASSERT_EQ(pieces.size(), 5u);
    EXPECT_EQ(pieces[0], Json({{"index", 0},
                               {"id", "call-1-0-0"},
                               {"type", "function"},
                               {"function", {{"name", "f"}, {"arguments", "{\"a\":"}}}}));
    EXPECT_EQ(pieces[1], Json({{"index", 0}, {"function", {{"arguments", "\"x"}}}}));
    EXPECT_EQ(pieces[2], Json({{"index", 0}, {"function", {{"arguments", "\"}"}}}}));
    EXPECT_EQ(pieces[3], Json({{"index", 1},
                               {"id", "call-1-0-1"},
                               {"type", "function"},
                               {"function", {{"name", "g"}, {"arguments", "{"}}}}));
    EXPECT_EQ(pieces[4], Json({{"index", 1}, {"function", {{"arguments", "}"}}}}));
    EXPECT_NE(out.find("\"finish_reason\":\"tool_calls\""), std::string::npos);
}

// What a client makes of the chunks: the choices of an answer that is not streamed.
Json put_together(const std::vector<Json>& events, int32_t n) {
    Json choices = Json::array();
    for (int32_t i = 0; i < n; ++i) {
        choices.push_back({{"content", ""}, {"reasoning_content", ""}, {"tool_calls", Json::array()}});
    }
    for (const Json& one : events) {
        if (!one.is_object() || one["choices"].empty()) {
            continue;
        }
        const Json& piece = one["choices"][0];
        Json& choice = choices[piece["index"].get<size_t>()];
        for (const char* key : {"content", "reasoning_content"}) {
            choice[key] = choice[key].get<std::string>() + piece["delta"].value(key, "");
        }
        for (Json call : piece["delta"].value("tool_calls", Json::array())) {
            const size_t at = call["index"].get<size_t>();
            call.erase("index");
            Json& calls = choice["tool_calls"];
            if (call.contains("id")) {
                EXPECT_EQ(at, calls.size());
                calls.push_back(call);
            } else {
                std::string arguments = calls.at(at)["function"]["arguments"];
                calls[at]["function"]["arguments"] =
                    arguments + call["function"]["arguments"].get<std::string>();
            }
        }
        if (!piece["finish_reason"].is_null()) {
            EXPECT_FALSE(choice.contains("finish_reason"));
            choice["finish_reason"] = piece["finish_reason"];
        }
    }
    return choices;
}

TEST_F(AnswerTest, AStreamSaysWhatAWholeAnswerSays) {
    constexpr std::string_view kParts[] = {"<think>",
                                           "</think>",
                                           "<tool_call>",
                                           "</tool_call>",
                                           "<tool_call>\n{\"name\": \"f\", \"arguments\": ",
                                           R"({"name":"f","arguments":)",
                                           R"({"name": "g", "parameters": )",
                                           R"({"q":"é<东🚀\n\"}","n":[1,{}]})",
                                           R"({"a": "x)",
                                           "{}",
                                           "}",
                                           "\n",
                                           "Wörter, "};
    constexpr FinishReason kEnds[] = {FinishReason::stop, FinishReason::length};
    std::mt19937 random(7);
    size_t n_calls = 0;
    for (int round = 0; round < 3000; ++round) {
        AnswerShape shape;
        shape.output.tools = round % 8 != 0;
        shape.output.one_call = random() % 4 == 0;
        shape.output.thinking = random() % 4 == 0;
        shape.output.names = {"f", "g"};
        AnswerShape streamed = shape;
        streamed.stream = true;
        CompletionAnswer whole = make(shape, 2);
        CompletionAnswer stream = make(streamed, 2);
        std::string texts[2];
        for (std::string& text : texts) {
            for (size_t n = random() % 12; n > 0; --n) {
                text += kParts[random() % std::size(kParts)];
            }
        }
        std::string out;
        bool ended[2] = {};
        while (!ended[0] || !ended[1]) {
            const size_t choice = random() % 2;
            if (ended[choice]) {
                continue;
            }
            std::string& text = texts[choice];
            size_t size = std::min<size_t>(text.size(), random() % 9);
            while (size < text.size() && (text[size] & 0xc0) == 0x80) {
                ++size;  // what the engine sends are whole characters
            }
            ended[choice] = size == text.size();
            const Event one = event(static_cast<int32_t>(choice), text.substr(0, size), 1,
                                    ended[choice] ? kEnds[random() % 2] : FinishReason::none);
            text.erase(0, size);
            whole.take(Event(one));
            stream.take(Event(one));
            if (random() % 3 != 0) {
                stream.drain(out);
            }
        }
        stream.drain(out);
        const Json choices = put_together(events_of(out), 2);
        const Json answer = Json::parse(whole.json());
        for (size_t i = 0; i < 2; ++i) {
            const Json& message = answer["choices"][i]["message"];
            EXPECT_EQ(choices[i]["content"], message["content"].is_null() ? Json("") : message["content"]);
            EXPECT_EQ(choices[i]["reasoning_content"], message.value("reasoning_content", ""));
            EXPECT_EQ(choices[i]["tool_calls"], message.value("tool_calls", Json::array()));
            EXPECT_EQ(choices[i]["finish_reason"], answer["choices"][i]["finish_reason"]);
            n_calls += choices[i]["tool_calls"].size();
        }
        ASSERT_FALSE(HasFailure()) << out << whole.json();
    }
    EXPECT_GT(n_calls, 500u) << "or this test shows nothing";
}

TEST_F(AnswerTest, WhatPiledUpBecomesOneChunk) {
    AnswerShape shape;
    shape.stream = true;
    CompletionAnswer answer = make(shape);
    std::string out;
    answer.take(event(0, "a", 1));
    answer.take(event(0, "b", 2));
    answer.take(event(0, "c", 3));
    answer.drain(out);
    const auto events = events_of(out);
    ASSERT_EQ(events.size(), 2u);
    EXPECT_EQ(events[1]["choices"][0]["delta"]["content"], "abc");
}

TEST_F(AnswerTest, CollectsChoicesOfSeveralPrompts) {
    AnswerShape shape;
    shape.chat = false;
    shape.echo = {"P0", "P1"};
    CompletionAnswer answer = make(shape, 2, 2);
    for (int32_t i = 0; i < 4; ++i) {
        answer.take(event(i, "t" + std::to_string(i), 1, FinishReason::length));
    }
    ASSERT_TRUE(answer.complete());
    const Json whole = Json::parse(answer.json());
    EXPECT_EQ(whole["object"], "text_completion");
    ASSERT_EQ(whole["choices"].size(), 4u);
    EXPECT_EQ(whole["choices"][1]["text"], "P0t1");
    EXPECT_EQ(whole["choices"][3]["text"], "P1t3");
    EXPECT_EQ(whole["choices"][3]["index"], 3);
    EXPECT_EQ(whole["usage"]["prompt_tokens"], 6);
    EXPECT_EQ(whole["usage"]["completion_tokens"], 4);
    EXPECT_EQ(whole["usage"]["prompt_tokens_details"]["cached_tokens"], 32);  // once per prompt
}

TEST_F(AnswerTest, ChatLogprobsHaveTokensBytesAndTheBest) {
    AnswerShape shape;
    shape.logprobs = true;
    CompletionAnswer answer = make(shape);
    Event one = event(0, "A", 1, FinishReason::length);
    one.logprobs = {{65, -0.5f}, {65, -0.5f}, {0xC3, -1e30f}};
    answer.take(std::move(one));
    const Json entry = Json::parse(answer.json())["choices"][0]["logprobs"]["content"][0];
    EXPECT_EQ(entry["token"], "A");
    EXPECT_EQ(entry["bytes"], Json::array({65}));
    EXPECT_EQ(entry["logprob"], -0.5);
    ASSERT_EQ(entry["top_logprobs"].size(), 2u);
    EXPECT_EQ(entry["top_logprobs"][1]["bytes"], Json::array({0xC3}));
    EXPECT_EQ(entry["top_logprobs"][1]["logprob"], -9999.0);
}

TEST_F(AnswerTest, CompletionLogprobsCountCharacters) {
    AnswerShape shape;
    shape.chat = false;
    shape.logprobs = shape.stream = true;
    CompletionAnswer answer = make(shape);
    std::string out;
    for (int32_t i = 0; i < 3; ++i) {
        Event one = event(0, "x", i + 1, i == 2 ? FinishReason::length : FinishReason::none);
        one.logprobs = {{'x', -0.25f}};
        answer.take(std::move(one));
        answer.drain(out);
    }
    const auto events = events_of(out);
    EXPECT_EQ(events[2]["choices"][0]["logprobs"]["text_offset"], Json::array({2}));
    EXPECT_EQ(events[2]["choices"][0]["logprobs"]["top_logprobs"][0], Json({{"x", -0.25}}));
    EXPECT_EQ(events[2]["choices"][0]["finish_reason"], "length");
}

TEST_F(AnswerTest, CompletionLogprobsNameTheTokenBesideTheBest) {
    AnswerShape shape;
    shape.chat = false;
    shape.logprobs = true;
    for (const bool ids : {false, true}) {
        shape.token_ids = ids;
        CompletionAnswer answer = make(shape);
        Event one = event(0, "x", 1, FinishReason::length);
        one.logprobs = {{'x', -2.0f}, {'y', -0.25f}};
        answer.take(std::move(one));
        const Json logprobs = Json::parse(answer.json())["choices"][0]["logprobs"];
        EXPECT_EQ(logprobs["tokens"], ids ? Json({"token_id:120"}) : Json({"x"}));
        EXPECT_EQ(logprobs["top_logprobs"][0], ids ? Json({{"token_id:121", -0.25}, {"token_id:120", -2.0}})
                                                   : Json({{"y", -0.25}, {"x", -2.0}}));
    }
}

TEST_F(AnswerTest, TellsTheUsageInEveryChunkThatIsAskedForIt) {
    AnswerShape shape;
    shape.stream = shape.include_usage = shape.continuous_usage = true;
    CompletionAnswer answer = make(shape);
    std::string out;
    for (int32_t i = 1; i <= 2; ++i) {
        answer.take(event(0, "x", i, i == 2 ? FinishReason::length : FinishReason::none));
        answer.drain(out);
    }
    const auto events = events_of(out);
    EXPECT_EQ(events[1]["usage"]["completion_tokens"], 1);
    EXPECT_EQ(events[2]["usage"]["total_tokens"], 5);
}

TEST_F(AnswerTest, KeepsThoughtsToItselfIfAsked) {
    AnswerShape shape;
    shape.reasoning = false;
    CompletionAnswer answer = make(shape);
    answer.take(event(0, "<think>hm</think>yes", 3, FinishReason::stop));
    const Json message = Json::parse(answer.json())["choices"][0]["message"];
    EXPECT_EQ(message["content"], "yes");
    EXPECT_FALSE(message.contains("reasoning_content"));
}

TEST(JsonString, EscapesAndReplaces) {
    std::string out;
    append_json_string(out, std::string("a\"\\\n\x01\xC3\xA9\xFF\xED\xA0\x80\xF0\x9F\x98\x80\0z", 17));
    const std::string back = Json::parse(out).get<std::string>();
    EXPECT_EQ(back.substr(0, 7), "a\"\\\n\x01\xC3\xA9");
    EXPECT_NE(back.find("\xF0\x9F\x98\x80"), std::string::npos);
    EXPECT_EQ(back.back(), 'z');
}

}  // namespace
}  // namespace llm::engine
