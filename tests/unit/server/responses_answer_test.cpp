// What a model wrote, as a response and as the events of its stream.
#include "engine_worker/server/responses_answer.hpp"

#include <gtest/gtest.h>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"

namespace llm::engine {
namespace {

// The events of a stream; each is named as its data says.
std::vector<Json> events_of(const std::string& text) {
    std::vector<Json> out;
    for (size_t at = 0; at < text.size();) {
        const size_t line = text.find('\n', at);
        const size_t end = text.find("\n\n", at);
        EXPECT_EQ(text.substr(at, 7), "event: ");
        EXPECT_EQ(text.substr(line + 1, 6), "data: ");
        out.push_back(Json::parse(text.substr(line + 7, end - line - 7)));
        EXPECT_EQ(out.back()["type"], text.substr(at + 7, line - at - 7));
        EXPECT_EQ(out.back()["sequence_number"], out.size() - 1);
        at = end + 2;
    }
    return out;
}

std::vector<std::string> types_of(const std::vector<Json>& events) {
    std::vector<std::string> out;
    for (const Json& event : events) {
        out.push_back(event["type"].get<std::string>().substr(9));  // behind "response."
    }
    return out;
}

class ResponsesAnswerTest : public ::testing::Test {
  protected:
    ResponsesAnswer make(AnswerShape shape = {}) {
        shape.model = "m";
        shape.response = R"("store":false)";
        Request request;
        request.prompts = {{1, 2, 3}};
        request.sampling.temperature = 0.7f;
        return {std::move(shape), request, "resp_1", 1234, *tokenizer_};
    }

    static Event event(const std::string& text, FinishReason finish = FinishReason::none) {
        Event out;
        out.text = text;
        out.finish = finish;
        out.completion_tokens = 5;
        out.cached_tokens = 2;
        return out;
    }

    // The whole answer; it must also be what a stream ends with, however the text comes in pieces.
    Json whole(const std::string& text, AnswerShape shape = {}, FinishReason finish = FinishReason::stop) {
        ResponsesAnswer answer = make(shape);
        for (const char c : text) {
            answer.take(event(std::string(1, c)));
        }
        answer.take(event("", finish));
        const Json out = Json::parse(answer.json());
        for (const size_t piece : {1, 7}) {
            ResponsesAnswer stream = make(shape);
            std::string bytes;
            for (size_t at = 0; at < text.size(); at += piece) {
                stream.take(event(text.substr(at, piece)));
                stream.drain(bytes);
            }
            stream.take(event("", finish));
            stream.drain(bytes);
            const auto events = events_of(bytes);
            EXPECT_EQ(events.back()["response"], out) << text;
            check_items(events, out["output"]);
        }
        return out;
    }

    // Pieces put together are the whole, and every item begins and ends once, in order.
    static void check_items(const std::vector<Json>& events, const Json& output) {
        size_t begun = 0, ended = 0;
        std::string text;
        for (const Json& one : events) {
            const std::string type = one["type"];
            if (type == "response.output_item.added") {
                EXPECT_EQ(one["output_index"], begun++);
                EXPECT_EQ(one["item"]["status"], "in_progress");
                text.clear();
            } else if (type.ends_with(".delta")) {
                EXPECT_EQ(begun, ended + 1);
                text += one["delta"];
            } else if (type.ends_with("_text.done")) {
                EXPECT_EQ(one["text"], text);
                EXPECT_EQ(one["item_id"], output[ended]["id"]);
            } else if (type == "response.function_call_arguments.done") {
                EXPECT_EQ(one["arguments"], text);
                EXPECT_EQ(one["name"], output[ended]["name"]);
            } else if (type == "response.content_part.done") {
                EXPECT_EQ(one["part"], output[ended]["content"][0]);
            } else if (type == "response.output_item.done") {
                EXPECT_EQ(one["item"], output[ended]);
                EXPECT_EQ(one["output_index"], ended++);
            }
        }
        EXPECT_EQ(begun, output.size());
        EXPECT_EQ(ended, output.size());
    }

    static AnswerShape with_tools() {
        AnswerShape shape;
        shape.output.tools = true;
        return shape;
    }

    std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
};

TEST_F(ResponsesAnswerTest, WholeText) {
    const Json answer = whole("Hello");
    EXPECT_EQ(answer["id"], "resp_1");
    EXPECT_EQ(answer["object"], "response");
    EXPECT_EQ(answer["created_at"], 1234);
    EXPECT_EQ(answer["model"], "m");
    EXPECT_EQ(answer["status"], "completed");
    EXPECT_EQ(answer["temperature"], 0.7);
    EXPECT_EQ(answer["store"], false);
    EXPECT_TRUE(answer["error"].is_null() && answer["incomplete_details"].is_null());
    EXPECT_EQ(answer["output"],
              Json::parse(R"([{"id":"msg_1_0","type":"message","status":"completed","role":"assistant",
        "content":[{"type":"output_text","text":"Hello","annotations":[],"logprobs":[]}]}])"));
    EXPECT_EQ(
        answer["usage"],
        Json::parse(R"({"input_tokens":3,"input_tokens_details":{"cached_tokens":2,"cache_write_tokens":0},
        "output_tokens":5,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":8})"));
    EXPECT_EQ(answer.back(), answer["usage"]) << "readers of streams take the last that they find";
}

TEST_F(ResponsesAnswerTest, StreamsText) {
    ResponsesAnswer answer = make();
    std::string out;
    answer.take(event("He"));
    answer.drain(out);
    answer.take(event("l"));
    answer.take(event("lo"));
    answer.drain(out);
    answer.take(event("", FinishReason::stop));
    answer.drain(out);
    const auto events = events_of(out);
    EXPECT_EQ(types_of(events),
              (std::vector<std::string>{"created", "in_progress", "output_item.added", "content_part.added",
                                        "output_text.delta", "output_text.delta", "output_text.done",
                                        "content_part.done", "output_item.done", "completed"}));
    EXPECT_EQ(events[0]["response"]["status"], "in_progress");
    EXPECT_EQ(events[0]["response"]["output"], Json::array());
    EXPECT_TRUE(events[0]["response"]["usage"].is_null());
    EXPECT_EQ(events[5],
              Json::parse(R"({"type":"response.output_text.delta","sequence_number":5,"item_id":"msg_1_0",
        "output_index":0,"content_index":0,"delta":"llo","logprobs":[]})"));
    EXPECT_EQ(events.back()["response"]["usage"]["output_tokens"], 5);
}

TEST_F(ResponsesAnswerTest, AnAnswerThatComesAtOnceBeginsAsAnyOther) {
    ResponsesAnswer answer = make();
    answer.take(event("x", FinishReason::stop));
    std::string out;
    answer.drain(out);
    const auto events = events_of(out);
    EXPECT_EQ(events[0]["response"]["output"], Json::array());
    EXPECT_TRUE(events[0]["response"]["usage"].is_null());
    EXPECT_EQ(events.size(), 9u);
}

TEST_F(ResponsesAnswerTest, ReasoningMessageAndCallsAreItemsInTheirOrder) {
    const Json answer = whole(
        "<think>which?</think>\n\nI ask.<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":\"x\"}}</tool_call>"
        "<tool_call>{\"name\":\"g\",\"arguments\":{}}</tool_call> So.",
        with_tools());
    const Json& output = answer["output"];
    ASSERT_EQ(output.size(), 5u);
    EXPECT_EQ(output[0], Json::parse(R"({"id":"rs_1_0","type":"reasoning","status":"completed","summary":[],
        "content":[{"type":"reasoning_text","text":"which?"}]})"));
    EXPECT_EQ(output[1]["content"][0]["text"], "I ask.");
    EXPECT_EQ(output[2],
              Json::parse(R"({"id":"fc_1_2","type":"function_call","status":"completed","call_id":"call_1_2",
        "name":"f","arguments":"{\"a\":\"x\"}"})"));
    EXPECT_EQ(output[3]["arguments"], "{}");
    EXPECT_EQ(output[4]["content"][0]["text"], "So.");
}

TEST_F(ResponsesAnswerTest, WhatIsCutOffIsIncomplete) {
    const Json text = whole("Hel", {}, FinishReason::length);
    EXPECT_EQ(text["status"], "incomplete");
    EXPECT_EQ(text["incomplete_details"], Json::parse(R"({"reason":"max_output_tokens"})"));
    EXPECT_EQ(text["output"][0]["status"], "incomplete");
    const Json calls =
        whole("a<tool_call>{\"name\":\"f\",\"arguments\":{\"a\":", with_tools(), FinishReason::length);
    EXPECT_EQ(calls["output"][0]["status"], "completed");
    EXPECT_EQ(calls["output"][1]["status"], "incomplete");
    EXPECT_EQ(calls["output"][1]["arguments"], "{\"a\":");
}

TEST_F(ResponsesAnswerTest, SilenceIsAnEmptyMessage) {
    EXPECT_EQ(whole("")["output"][0]["content"][0]["text"], "");
    EXPECT_EQ(whole("<think>hm</think>")["output"].size(), 2u);
    EXPECT_EQ(whole("<think>hm", {}, FinishReason::length)["output"].size(), 1u);
    AnswerShape silent;
    silent.reasoning = false;
    EXPECT_EQ(whole("<think>hm</think>yes", silent)["output"].size(), 1u);
}

// Those of reasoning and calls are left out, and so are those of the tags; none of a message gets lost.
TEST_F(ResponsesAnswerTest, LogprobsBelongToTheMessage) {
    const auto tokens = [](const Json& entries) {
        std::string out;
        for (const Json& one : entries) {
            EXPECT_EQ(one["top_logprobs"].size(), 1u);
            out += one["token"];
        }
        return out;
    };
    AnswerShape shape = with_tools();
    shape.logprobs = true;
    for (const std::string text :
         {"<think>a</think>No, <i>you</i>.", "<b>No, <i>you</i>.", "{\"No, <i>you</i>."}) {
        ResponsesAnswer answer = make(shape);
        std::string out;
        for (const char c : text) {
            Event one = event(std::string(1, c));
            one.logprobs = {{c, -1.0f}, {'e', -0.5f}};
            answer.take(std::move(one));
            answer.drain(out);
        }
        answer.take(event("<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", FinishReason::stop));
        answer.drain(out);
        std::string streamed;
        for (const Json& one : events_of(out)) {
            if (one["type"] == "response.output_text.delta") {
                streamed += tokens(one["logprobs"]);
            }
        }
        const std::string message = text.substr(text.starts_with("<think>") ? text.find("No") : 0);
        if (text.front() != '{') {  // which may be a call till the end, and its tokens with it
            EXPECT_EQ(streamed, message);
        }
        const Json output = Json::parse(answer.json())["output"];
        for (const Json& item : output) {
            if (item["type"] == "message") {
                EXPECT_EQ(tokens(item["content"][0]["logprobs"]), streamed);
            }
        }
    }
}

TEST_F(ResponsesAnswerTest, AFailureEndsTheStream) {
    ResponsesAnswer answer = make();
    std::string out;
    answer.take(event("Hel"));
    answer.drain(out);
    answer.fail(ApiError(500, "server_error", "engine_failed", "The engine has failed: \"x\""), out);
    const auto events = events_of(out);
    const Json& response = events.back()["response"];
    EXPECT_EQ(events.back()["type"], "response.failed");
    EXPECT_EQ(response["status"], "failed");
    EXPECT_EQ(response["error"],
              Json::parse(R"({"code":"server_error","message":"The engine has failed: \"x\""})"));
    EXPECT_EQ(response["output"][0]["status"], "incomplete");
    EXPECT_TRUE(response["usage"].is_null());
}

}  // namespace
}  // namespace llm::engine
