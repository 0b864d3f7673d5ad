#include "ngx_module/core/text/sse_scan.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/json.hpp"
#include "tests/unit/text/sse_events.hpp"

namespace llm::core {
namespace {

using namespace std::string_view_literals;
using Json = nlohmann::json;

// Whole, in two pieces cut at every place, and byte by byte; all must agree.
UsageScan scan_every_way(UsageScan::Framing framing, std::string_view text) {
    UsageScan whole(framing);
    const auto events = collect_whole(whole, text);
    for (size_t cut = 1; cut < text.size(); ++cut) {
        UsageScan scan(framing);
        bool first = true;
        EXPECT_EQ(collect(scan, text, [&] { return std::exchange(first, false) ? cut : text.size(); }),
                  events)
            << cut;
        expect_same(scan, whole, text);
    }
    UsageScan bytewise(framing);
    EXPECT_EQ(collect(bytewise, text, [] { return size_t{1}; }), events);
    expect_same(bytewise, whole, text);
    UsageScan fed(framing);
    fed.feed(text);
    expect_same(fed, whole, text);
    return whole;
}

UsageScan scan_sse(std::string_view text) {
    return scan_every_way(UsageScan::Framing::sse, text);
}
UsageScan scan_json(std::string_view text) {
    return scan_every_way(UsageScan::Framing::json, text);
}

StreamEvent kind_of(std::string_view data) {
    UsageScan scan;
    const auto events = collect_whole(scan, "data: " + std::string(data) + "\n\n");
    EXPECT_EQ(events.size(), 1u);
    return events.empty() ? StreamEvent::other : events[0].kind;
}

constexpr std::string_view kChat =
    R"(data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"\"usage\":{\"prompt_tokens\":9}"},"finish_reason":null}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

data: {"id":"c1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":{"prompt_tokens":12,"total_tokens":15,"completion_tokens":3,"prompt_tokens_details":{"cached_tokens":8}}}

data: [DONE]

)";

TEST(UsageScan, ReadsAChatStream) {
    UsageScan scan;
    const auto events = collect_whole(scan, kChat);
    ASSERT_EQ(events.size(), 6u);
    const StreamEvent expected[] = {StreamEvent::other, StreamEvent::content,    StreamEvent::content,
                                    StreamEvent::other, StreamEvent::usage_only, StreamEvent::done};
    for (size_t i = 0; i < events.size(); ++i) {
        EXPECT_EQ(events[i].kind, expected[i]) << i;
    }
    scan = scan_sse(kChat);
    EXPECT_EQ(scan.content_events(), 2u);
    EXPECT_TRUE(scan.content_seen());
    EXPECT_TRUE(scan.done());
    EXPECT_FALSE(scan.error_seen());
    EXPECT_TRUE(scan.at_event_boundary());
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 12u);
    EXPECT_EQ(scan.usage()->completion_tokens, 3u);
    EXPECT_EQ(scan.usage()->cached_tokens, 8u);
}

TEST(UsageScan, AcceptsEveryLineEnd) {
    for (std::string_view line_end : {"\r\n"sv, "\r"sv}) {
        std::string text;
        for (char c : kChat) {
            text += c == '\n' ? std::string(line_end) : std::string(1, c);
        }
        const UsageScan scan = scan_sse(text);
        EXPECT_EQ(scan.content_events(), 2u);
        EXPECT_TRUE(scan.done());
        EXPECT_TRUE(scan.at_event_boundary());
        EXPECT_EQ(scan.usage()->completion_tokens, 3u);
    }
}

TEST(UsageScan, TellsALoneCrFromHalfOfACrLf) {
    UsageScan scan;
    EXPECT_EQ(collect_whole(scan, "a\rb\n\n\n").size(), 2u);  // the CR is used up by the b
    EXPECT_EQ(collect_whole(scan, "a\r\r").size(), 1u);
    EXPECT_EQ(collect_whole(scan, "\n").size(),
              1u);  // the rest of the CR LF before: dropped or kept with that event
    EXPECT_EQ(collect_whole(scan, "\n").size(), 1u);
    for (std::string_view text : {"a\rb\n\n\n"sv, "\r\r\n\n\r"sv, "a\n\r\r\n\nb\r\n\r\n\n"sv}) {
        scan_sse(text);
    }
}

TEST(UsageScan, TellsKindsApart) {
    EXPECT_EQ(kind_of("[DONE]"), StreamEvent::done);
    EXPECT_EQ(kind_of("[DON]"), StreamEvent::other);
    EXPECT_EQ(kind_of("{}"), StreamEvent::other);
    EXPECT_EQ(kind_of(""), StreamEvent::other);
    EXPECT_EQ(kind_of(R"({"error":{"message":"x"}})"), StreamEvent::error);
    EXPECT_EQ(kind_of(R"({"error":"x"})"), StreamEvent::error);
    EXPECT_EQ(kind_of(R"({"error":null,"choices":[{"text":"x"}]})"), StreamEvent::content);
    EXPECT_EQ(kind_of(R"({"a":{"error":{}}})"), StreamEvent::other);
    for (std::string_view key :
         {"content", "text", "reasoning_content", "reasoning", "refusal", "arguments", "delta", "thinking",
          "partial_json"}) {
        const std::string name(key);
        EXPECT_EQ(kind_of("{\"choices\":[{\"delta\":{\"" + name + "\":\"x\"}}]}"), StreamEvent::content)
            << key;
        EXPECT_EQ(kind_of("{\"choices\":[{\"delta\":{\"" + name + "\" : \"\\n\"}}]}"), StreamEvent::content)
            << key;
        EXPECT_EQ(kind_of("{\"choices\":[{\"delta\":{\"" + name + "\":\"\"}}]}"), StreamEvent::other) << key;
        EXPECT_EQ(kind_of("{\"choices\":[{\"delta\":{\"" + name + "\":null}}]}"), StreamEvent::other) << key;
        EXPECT_EQ(kind_of("{\"choices\":[{\"delta\":{\"x\":\"" + name + "\"}}]}"), StreamEvent::other) << key;
        EXPECT_EQ(kind_of("{\"choices\":[{\"delta\":{\"x" + name + "\":\"x\",\"\\\"" + name + "\":\"x\"}}]}"),
                  StreamEvent::other)
            << key;
    }
    EXPECT_EQ(kind_of(R"({"choices":[],"usage":{"prompt_tokens":1}})"), StreamEvent::usage_only);
    EXPECT_EQ(kind_of(R"({ "usage" : { "prompt_tokens" : 1 } , "choices" : [ ] })"), StreamEvent::usage_only);
    EXPECT_EQ(kind_of(R"({"choices":[],"usage":null})"), StreamEvent::other);
    EXPECT_EQ(kind_of(R"({"choices":[{}],"usage":{"prompt_tokens":1}})"), StreamEvent::other);
    EXPECT_EQ(kind_of(R"({"usage":{"prompt_tokens":1}})"), StreamEvent::other);
    // Content and usage in one event (continuous usage) is content, and no chunk to drop.
    EXPECT_EQ(kind_of(R"({"choices":[{"delta":{"content":"x"}}],"usage":{"prompt_tokens":1}})"),
              StreamEvent::content);
}

TEST(UsageScan, IgnoresOtherFieldsAndComments) {
    const UsageScan scan = scan_sse(
        ": data: {\"choices\":[{\"text\":\"x\"}]}\nevent: data\nid: 1\nretry: 5\ndata\ndatax: "
        "{\"text\":\"x\"}\nDATA: {\"text\":\"x\"}\n"
        "data : {\"text\":\"x\"}\n data: {\"text\":\"x\"}\n\n");
    EXPECT_EQ(scan.content_events(), 0u);
    EXPECT_FALSE(scan.content_seen());
    // Without the blank, with a named event, and after a byte order mark.
    EXPECT_EQ(scan_sse("\xef\xbb\xbf"
                       "data:{\"text\":\"x\"}\n\nevent: delta\ndata:{\"delta\":\"y\"}\n\n")
                  .content_events(),
              2u);
    EXPECT_TRUE(scan_sse("data:[DONE]\n\n").done());
    EXPECT_TRUE(scan_sse("data: [DONE]").done());
    EXPECT_FALSE(scan_sse("data: \"[DONE]\"\n\n").done());
    EXPECT_FALSE(scan_sse("x: [DONE]\n\n").done());
}

TEST(UsageScan, JoinsDataLines) {
    const UsageScan scan = scan_sse(
        "data: {\"choices\":[\ndata: ],\ndata: \"usage\":\ndata:{\"prompt_tokens\": 12\ndata: "
        ",\"completion_tokens\":3}}\n\n");
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 12u);
    EXPECT_EQ(scan.usage()->completion_tokens, 3u);
    UsageScan kinds;
    EXPECT_EQ(collect_whole(kinds, "data: {\"choices\":[\ndata: ],\ndata: \"usage\":{}}\n\n")[0].kind,
              StreamEvent::usage_only);
}

TEST(UsageScan, KnowsWhereItIs) {
    UsageScan scan;
    EXPECT_TRUE(scan.at_event_boundary());
    EXPECT_FALSE(scan.mid_line());
    scan.feed("data: {\"choices\":[{\"de");
    EXPECT_FALSE(scan.at_event_boundary());
    EXPECT_TRUE(scan.mid_line());
    scan.feed("lta\":{}}]}\n");
    EXPECT_FALSE(scan.at_event_boundary());
    EXPECT_FALSE(scan.mid_line());
    scan.feed("\n");
    EXPECT_TRUE(scan.at_event_boundary());
    scan.feed("\n: ping\r\n\r");
    EXPECT_TRUE(scan.at_event_boundary());
    scan.feed("\n");
    EXPECT_TRUE(scan.at_event_boundary());
}

TEST(UsageScan, SaysWhenAnEventNeedNotBeHeldBack) {
    UsageScan scan;
    EXPECT_TRUE(scan.may_become_usage_only());
    scan.feed("data: {\"id\":\"x\",\"choices\":[");
    EXPECT_TRUE(scan.may_become_usage_only());
    scan.feed("{");
    EXPECT_FALSE(scan.may_become_usage_only());
    scan.feed("}]}\n\n");
    EXPECT_TRUE(scan.may_become_usage_only());
    scan.feed("data: [DONE]");
    EXPECT_FALSE(scan.may_become_usage_only());
    scan.feed("\n\ndata: {\"choices\":[],\"usage\":{");
    EXPECT_TRUE(scan.may_become_usage_only());
}

TEST(UsageScan, SeesTheFirstTokenBeforeTheEventEnds) {
    UsageScan scan;
    scan.feed("data: {\"choices\":[{\"delta\":{\"content\":\"");
    EXPECT_FALSE(scan.content_seen());
    scan.feed("H");
    EXPECT_TRUE(scan.content_seen());
    EXPECT_EQ(scan.content_events(), 0u);
    scan.feed("\"}}]}\n\n");
    EXPECT_EQ(scan.content_events(), 1u);
}

TEST(UsageScan, KeepsTheLastUsage) {
    const UsageScan scan = scan_sse(
        "data: "
        "{\"choices\":[{}],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":1,\"prompt_tokens_details\":"
        "null}}\n\n"
        "data: {\"choices\":[{}],\"usage\":null}\n\ndata: {\"usage\":{}}\n\n"
        "data: "
        "{\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":20,\"completion_tokens_"
        "details\":{\"prompt_tokens\":9,\"reasoning_tokens\":7}}}\n\n"
        "data: {\"usage\":{\"prompt_tokens\":99,\"completion_tokens\":99");  // cut off: never counted
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 5u);
    EXPECT_EQ(scan.usage()->completion_tokens, 20u);
    EXPECT_EQ(scan.usage()->cached_tokens, 0u);
}

TEST(UsageScan, ReadsTheResponsesApi) {
    const UsageScan scan = scan_sse(
        "event: response.output_text.delta\ndata: "
        "{\"type\":\"response.output_text.delta\",\"delta\":\"Hi\"}\n\n"
        "event: response.completed\ndata: "
        "{\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":36,"
        "\"input_tokens_details\":{\"cached_tokens\":4},\"output_tokens\":87,\"total_tokens\":123}}}\n\n");
    EXPECT_EQ(scan.content_events(), 1u);
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 36u);
    EXPECT_EQ(scan.usage()->completion_tokens, 87u);
    EXPECT_EQ(scan.usage()->cached_tokens, 4u);
}

// The Messages API counts what the cache held, and what it took in, beside input_tokens. Bytes of vLLM 0.32.
TEST(UsageScan, ReadsTheMessagesApi) {
    constexpr std::string_view kBegin =
        "event: message_start\ndata: "
        "{\"type\":\"message_start\",\"message\":{\"id\":\"chatcmpl-bce46781d87f005e\",\"type\":\"message\","
        "\"role\":\"assistant\",\"content\":[],\"model\":\"demo\",\"stop_reason\":null,\"stop_sequence\":null,"
        "\"usage\":{\"input_tokens\":550,\"output_tokens\":0}}}\n\n"
        "event: content_block_start\ndata: "
        "{\"type\":\"content_block_start\",\"content_block\":{\"type\":\"text\",\"text\":\"\"},\"index\":0}\n\n"
        "event: content_block_delta\ndata: "
        "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\"11\"},\"index\":0}\n\n"
        "event: content_block_delta\ndata: "
        "{\"type\":\"content_block_delta\",\"delta\":{\"type\":\"text_delta\",\"text\":\" is\"},\"index\":0}\n\n"
        "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n";
    constexpr std::string_view kEnd =
        "event: message_delta\ndata: "
        "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"max_tokens\",\"stop_sequence\":null},"
        "\"usage\":{\"input_tokens\":38,\"output_tokens\":2,\"cache_creation_input_tokens\":100,"
        "\"cache_read_input_tokens\":412}}\n\n"
        "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";
    const UsageScan begun = scan_sse(kBegin);
    EXPECT_EQ(begun.content_events(), 2u);
    ASSERT_TRUE(begun.usage());
    EXPECT_EQ(begun.usage()->prompt_tokens, 550u);
    const UsageScan scan = scan_sse(std::string(kBegin) + std::string(kEnd));
    EXPECT_EQ(scan.content_events(), 2u);
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 550u);
    EXPECT_EQ(scan.usage()->completion_tokens, 2u);
    EXPECT_EQ(scan.usage()->cached_tokens, 412u);
}

// LiteLLM writes both forms into one object: prompt_tokens holds all of them then.
TEST(UsageScan, CountsACacheOnceBesidePromptTokens) {
    const UsageScan scan = scan_sse(
        "data: {\"choices\":[],\"usage\":{\"completion_tokens\":3,\"prompt_tokens\":550,\"total_tokens\":553,"
        "\"prompt_tokens_details\":{\"cached_tokens\":412},\"cache_creation_input_tokens\":100,"
        "\"cache_read_input_tokens\":412}}\n\n");
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 550u);
    EXPECT_EQ(scan.usage()->cached_tokens, 412u);
}

// What came in pieces comes again with every end: of the text, its part, its item, the response.
TEST(UsageScan, CountsThePiecesOfAResponseOnly) {
    const std::string piece = "data: {\"type\":\"response.output_text.delta\",\"sequence_number\":4,\"delta\":\"Hi\"}\n\n";
    const std::string ends =
        "data: {\"type\":\"response.output_text.done\",\"sequence_number\":5,\"text\":\"Hi\"}\n\n"
        "data: {\"part\":{\"text\":\"Hi\"},\"sequence_number\":6,\"type\":\"response.content_part.done\"}\n\n"
        "data: {\"item\":{\"arguments\":\"{}\"},\"sequence_number\":7,\"type\":\"response.output_item.done\"}\n\n"
        "data: {\"response\":{\"output\":[{\"content\":[{\"text\":\"Hi\"}]}],\"usage\":{\"output_tokens\":1}},\"sequence_number\":8}\n\n";
    EXPECT_EQ(scan_sse(piece + piece + ends).content_events(), 2u);
    EXPECT_EQ(scan_sse("data: {\"x\":{\"sequence_number\":5},\"text\":\"Hi\"}\n\n").content_events(), 1u);
    EXPECT_EQ(scan_sse("data: {\"sequence_number\":5,\"delta\":\"\"}\n\n").content_events(), 0u);
}

// It sends no [DONE]: the event that carries the usage is the last.
TEST(UsageScan, KnowsTheEndOfAResponse) {
    const std::string begin =
        "event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"output\":[],\"usage\":null}}\n\n"
        "data: {\"type\":\"response.output_text.done\",\"text\":\"\\\"response\\\":{\\\"usage\\\":{}}\"}\n\n";
    const std::string last =
        "data: {\"type\":\"response.incomplete\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":3}}}\n";
    EXPECT_FALSE(scan_sse(begin).done());
    EXPECT_FALSE(scan_sse(begin + last).done()) << "not ended yet";
    EXPECT_TRUE(scan_sse(begin + last + "\n").done());
    EXPECT_FALSE(scan_sse("data: {\"response\":{\"error\":{}},\"usage\":null}\n\n").done());
    EXPECT_FALSE(scan_sse("data: {\"response\":\"text\",\"usage\":{\"prompt_tokens\":1}}\n\n").done());
    EXPECT_FALSE(scan_sse("data: {\"x\":{\"response\":{}},\"usage\":{\"prompt_tokens\":1}}\n\n").done());
}

// Responses repeat the tools of the request, which may say anything.
TEST(UsageScan, WhatAClientWroteIsNoUsage) {
    const UsageScan scan = scan_sse(
        "data: {\"response\":{\"tools\":[{\"usage\":{\"output_tokens\":0},\"parameters\":{\"usage\":{\"output_tokens\":0}}}],"
        "\"text\":{\"format\":{\"usage\":{\"output_tokens\":0}}}}}\n\n");
    EXPECT_FALSE(scan.usage());
    EXPECT_FALSE(scan.done());
    EXPECT_TRUE(scan_sse("data: {\"choices\":[{\"usage\":{\"prompt_tokens\":1}}]}\n\n").usage()) << "Moonshot writes it there";
}

TEST(UsageScan, BoundsNumbers) {
    EXPECT_EQ(scan_sse("data: {\"usage\":{\"prompt_tokens\":1.5}}\n\n").usage()->prompt_tokens, 1u);
    EXPECT_FALSE(
        scan_sse("data: {\"usage\":{\"prompt_tokens\":-1,\"completion_tokens\":\"2\"}}\n\n").usage());
    EXPECT_GE(scan_sse("data: {\"usage\":{\"prompt_tokens\":99999999999999999999999999999}}\n\n")
                  .usage()
                  ->prompt_tokens,
              1ull << 53);
}

TEST(UsageScan, ReadsJsonAnswers) {
    const UsageScan scan = scan_json(
        R"({"id":"x","choices":[{"message":{"content":"\"usage\":{\"prompt_tokens\":1}}","usage":{"prompt_tokens":2}}}],)"
        "\n"
        R"( "usage" : {"prompt_tokens": 10,"completion_tokens":20 ,"prompt_tokens_details":{"cached_tokens":3}},"x":[1.5,-2e3]})");
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 10u);
    EXPECT_EQ(scan.usage()->completion_tokens, 20u);
    EXPECT_EQ(scan.usage()->cached_tokens, 3u);
    EXPECT_TRUE(scan.json_complete());
    EXPECT_FALSE(scan.error_seen());
    EXPECT_EQ(scan.content_events(), 0u);
    EXPECT_TRUE(scan_json(R"({"error":{"message":"x"}})").error_seen());
    EXPECT_FALSE(scan_json(R"({"error":{"message":"x"})").json_complete());
    EXPECT_FALSE(scan_json(R"({"usage":null})").usage());
    EXPECT_FALSE(scan_json(R"({"usage":{"prompt_tokens":1)").usage());
    EXPECT_FALSE(scan_json("]}}]\"\\").usage());
}

TEST(UsageScan, PassesOverLongNumberArrays) {
    std::string text = R"({"data":[{"embedding":[)";
    for (int i = 0; i < 200; ++i) {
        text += "-0.0123456789e-5,";
    }
    text += R"(0]}],"usage":{"prompt_tokens":7}})";
    UsageScan scan(UsageScan::Framing::json);
    scan.feed(text);
    ASSERT_TRUE(scan.usage());
    EXPECT_EQ(scan.usage()->prompt_tokens, 7u);
    EXPECT_TRUE(scan.json_complete());
}

TEST(UsageScan, ForgetsOnReset) {
    UsageScan scan;
    scan.feed(kChat);
    scan.feed("data: {\"usage\":{");
    scan.reset(UsageScan::Framing::sse);
    expect_same(scan, UsageScan(), "");
    scan.feed(kChat);
    EXPECT_EQ(scan.content_events(), 2u);
}

// ---- random streams against a plain reading of the standard -----------------------------------------------

bool has_text(const Json& value) {
    static const std::vector<std::string> kNames = {
        "content",   "text",  "reasoning_content", "reasoning",   "refusal",
        "arguments", "delta", "thinking",          "partial_json"};
    if (value.is_object()) {
        for (const auto& [key, member] : value.items()) {
            const bool named = std::find(kNames.begin(), kNames.end(), key) != kNames.end();
            if (named && member.is_string() && !member.get<std::string>().empty()) {
                return true;
            }
            if (key != "usage" && has_text(member)) {
                return true;
            }
        }
    } else if (value.is_array()) {
        return std::any_of(value.begin(), value.end(), has_text);
    }
    return false;
}

StreamEvent reference_kind(const std::string& data, ReportedUsage& usage, bool& counted) {
    if (data.substr(0, 6) == "[DONE]") {
        return StreamEvent::done;
    }
    const Json event = Json::parse(data, nullptr, false);
    if (!event.is_object()) {
        return StreamEvent::other;
    }
    bool has_usage = false;
    if (event.contains("usage") && event["usage"].is_object()) {
        has_usage = true;
        const Json& counts = event["usage"];
        const auto take = [&](const char* name, uint64_t& field) {
            if (counts.contains(name)) {
                field = counts[name].get<uint64_t>();
                counted = true;
            }
        };
        take("prompt_tokens", usage.prompt_tokens);
        take("completion_tokens", usage.completion_tokens);
    }
    if (event.contains("error") && (event["error"].is_object() || event["error"].is_string())) {
        return StreamEvent::error;
    }
    if (has_text(event)) {
        return StreamEvent::content;
    }
    const bool no_choices =
        event.contains("choices") && event["choices"].is_array() && event["choices"].empty();
    return no_choices && has_usage ? StreamEvent::usage_only : StreamEvent::other;
}

TEST(UsageScanProperty, AgreesWithThePlainReading) {
    std::mt19937 random(11);
    const auto below = [&](uint32_t limit) { return static_cast<uint32_t>(random() % limit); };
    const char* const texts[] = {"",
                                 "x",
                                 "\"usage\":{\"prompt_tokens\":1}",
                                 "\u20ac",
                                 "\\",
                                 "[DONE]",
                                 "data: ",
                                 "a long text that goes over several blocks of bytes \" and on"};
    for (int round = 0; round < 3000; ++round) {
        std::string stream;
        std::vector<Event> expected;
        ReportedUsage usage;
        bool counted = false;
        for (uint32_t count = 1 + below(5); count > 0; --count) {
            std::string data;
            Json event = Json::object();
            switch (below(6)) {
                case 0:
                    data = "[DONE]";
                    break;
                case 1:
                    event["error"] = below(2) ? Json{{"message", texts[below(8)]}} : Json();
                    break;
                case 2:
                    event["choices"] = Json::array();
                    event["usage"] = {{"prompt_tokens", below(1000)},
                                      {"completion_tokens", below(1000)},
                                      {"prompt_tokens_details", nullptr}};
                    break;
                default: {
                    const char* const names[] = {"content", "reasoning_content", "role", "text", "arguments"};
                    event["choices"] = {{{"index", 0}, {"delta", {{names[below(5)], texts[below(8)]}}}}};
                    if (below(3) == 0) {
                        event["usage"] = below(2) ? Json() : Json{{"prompt_tokens", below(50)}};
                    }
                    break;
                }
            }
            if (data.empty()) {
                data = event.dump(below(3) == 0 ? static_cast<int>(below(3)) : -1, ' ', below(2) == 0);
            }
            const std::string line_end = std::vector<std::string>{"\n", "\r\n", "\r"}[below(3)];
            std::string bytes = below(3) == 0 ? "event: x" + line_end + ": comment" + line_end : "";
            std::string_view rest = data;
            while (true) {
                const size_t newline = rest.find('\n');
                bytes += (below(4) ? "data: " : "data:") + std::string(rest.substr(0, newline)) + line_end;
                if (newline == std::string_view::npos) {
                    break;
                }
                rest.remove_prefix(newline + 1);
            }
            bytes += line_end;
            expected.push_back({bytes, reference_kind(data, usage, counted)});
            stream += bytes;
        }
        UsageScan scan;
        const uint32_t largest = below(2) ? 3 : 300;
        ASSERT_EQ(collect(scan, stream, [&] { return 1 + below(largest); }), expected) << stream;
        ASSERT_EQ(scan.usage().has_value(), counted) << stream;
        if (counted) {
            ASSERT_EQ(scan.usage()->prompt_tokens, usage.prompt_tokens) << stream;
            ASSERT_EQ(scan.usage()->completion_tokens, usage.completion_tokens) << stream;
        }
        ASSERT_TRUE(scan.at_event_boundary());
    }
}

}  // namespace
}  // namespace llm::core
