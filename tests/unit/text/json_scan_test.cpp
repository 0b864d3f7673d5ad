// Control keys: their values, spans, duplicates, types, and the estimates.
#include "ngx_module/core/text/json_scan.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <string_view>

namespace llm::core {
namespace {

using namespace std::string_view_literals;

std::string cut(std::string_view body, Span span) {
    return std::string(body.substr(span.begin, span.end - span.begin));
}

bool same_span(Span a, Span b) {
    return a.begin == b.begin && a.end == b.end;
}

void expect_same(const ControlKeys& a, const ControlKeys& b) {
    EXPECT_EQ(a.stream, b.stream);
    EXPECT_EQ(a.priority, b.priority);
    EXPECT_EQ(a.max_tokens, b.max_tokens);
    EXPECT_EQ(a.max_completion_tokens, b.max_completion_tokens);
    EXPECT_EQ(a.max_output_tokens, b.max_output_tokens);
    EXPECT_EQ(a.n, b.n);
    EXPECT_EQ(a.include_usage, b.include_usage);
    EXPECT_TRUE(same_span(a.model_span, b.model_span));
    EXPECT_TRUE(same_span(a.priority_span, b.priority_span));
    EXPECT_TRUE(same_span(a.stream_options_span, b.stream_options_span));
    EXPECT_TRUE(same_span(a.include_usage_span, b.include_usage_span));
    EXPECT_EQ(a.object_end, b.object_end);
    EXPECT_EQ(a.object_empty, b.object_empty);
    EXPECT_EQ(a.stream_options_empty, b.stream_options_empty);
    EXPECT_EQ(a.has_model, b.has_model);
    EXPECT_EQ(a.has_routing_mode, b.has_routing_mode);
    EXPECT_EQ(a.model(), b.model());
    EXPECT_EQ(a.routing_mode(), b.routing_mode());
    EXPECT_EQ(a.text_bytes, b.text_bytes);
    EXPECT_EQ(a.prompt_tokens_given, b.prompt_tokens_given);
    EXPECT_EQ(a.prompt_count, b.prompt_count);
}

// Scans `body` whole, in two pieces cut at every place, and byte by byte; all must agree.
JsonScan scan_every_way(std::string_view body) {
    JsonScan whole;
    whole.feed(body);
    whole.finish();
    for (size_t at = 0; at <= body.size() + 1; ++at) {
        JsonScan scan;
        if (at <= body.size()) {
            scan.feed(body.substr(0, at));
            scan.feed({});
            scan.feed(body.substr(at));
        } else {
            for (const char& c : body) {
                scan.feed({&c, 1});
            }
        }
        scan.finish();
        EXPECT_EQ(scan.error_kind(), whole.error_kind()) << body << " cut at " << at;
        EXPECT_STREQ(scan.error(), whole.error()) << body << " cut at " << at;
        EXPECT_EQ(scan.error_key(), whole.error_key());
        if (!whole.failed()) {
            expect_same(scan.keys(), whole.keys());
        }
    }
    return whole;
}

ControlKeys keys_of(std::string_view body) {
    const JsonScan scan = scan_every_way(body);
    EXPECT_FALSE(scan.failed()) << body << ": " << scan.error();
    return scan.keys();
}

void expect_refused(std::string_view body, ErrorKind kind, std::string_view key) {
    const JsonScan scan = scan_every_way(body);
    EXPECT_EQ(scan.error_kind(), kind) << body << ": " << scan.error();
    EXPECT_EQ(scan.error_key(), key) << body;
}

TEST(JsonScan, ReadsAllControlKeys) {
    const auto body =
        R"({"model":"m/1","stream":true,"priority":-7,"max_tokens":1,"max_completion_tokens":2,)"
        R"("max_output_tokens":3,"n":4,"routing-mode":"private-first"})"sv;
    const ControlKeys keys = keys_of(body);
    EXPECT_TRUE(keys.has_model);
    EXPECT_EQ(keys.model(), "m/1");
    EXPECT_EQ(keys.stream, true);
    EXPECT_EQ(keys.priority, -7);
    EXPECT_EQ(keys.max_tokens, 1u);
    EXPECT_EQ(keys.max_completion_tokens, 2u);
    EXPECT_EQ(keys.max_output_tokens, 3u);
    EXPECT_EQ(keys.output_limit(), 3u);
    EXPECT_EQ(keys.n, 4u);
    EXPECT_TRUE(keys.has_routing_mode);
    EXPECT_EQ(keys.routing_mode(), "private-first");
    EXPECT_EQ(cut(body, keys.model_span), R"("m/1")");
    EXPECT_EQ(cut(body, keys.priority_span), "-7");
    EXPECT_EQ(body[keys.object_end], '}');
    EXPECT_EQ(keys.object_end, body.size() - 1);
    EXPECT_FALSE(keys.object_empty);
}

TEST(JsonScan, TreatsNullAndMissingAsAbsent) {
    const auto body =
        R"({"model":null,"stream":null,"priority": null ,"max_tokens":null,"max_completion_tokens":null,)"
        R"("max_output_tokens":null,"n":null,"routing-mode":null,"stream_options":null})"sv;
    const ControlKeys nulls = keys_of(body);
    const ControlKeys none = keys_of("{}");
    for (const ControlKeys* keys : {&nulls, &none}) {
        EXPECT_FALSE(keys->has_model);
        EXPECT_FALSE(keys->has_routing_mode);
        EXPECT_FALSE(keys->stream || keys->priority || keys->max_tokens || keys->max_completion_tokens);
        EXPECT_FALSE(keys->max_output_tokens || keys->n || keys->include_usage || keys->output_limit());
        EXPECT_EQ(keys->prompt_count, 1u);
    }
    EXPECT_EQ(cut(body, nulls.model_span), "null");
    EXPECT_EQ(cut(body, nulls.priority_span), "null");
    EXPECT_EQ(cut(body, nulls.stream_options_span), "null");
    EXPECT_TRUE(none.model_span.empty());
    EXPECT_TRUE(none.object_empty);
    EXPECT_EQ(none.object_end, 1u);
}

TEST(JsonScan, KeepsAnEmptyModel) {
    const ControlKeys keys = keys_of(R"({"model":""})");
    EXPECT_TRUE(keys.has_model);
    EXPECT_EQ(keys.model(), "");
}

TEST(JsonScan, DecodesKeysAndStrings) {
    const auto body =
        R"({"\u006dod\u0065l":"a\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00z","strea\u006D":false})"sv;
    const ControlKeys keys = keys_of(body);
    EXPECT_EQ(keys.model(), "a\"\\/\b\f\n\r\t\u00e9\u20ac\U0001f600z");
    EXPECT_EQ(keys.stream, false);
    EXPECT_EQ(keys_of("{\"model\":\"\u00e9\u20ac\U0001f600\"}").model(), "\u00e9\u20ac\U0001f600");
    EXPECT_EQ(keys_of(R"({"model":"a\u0000b"})").model(), "a\0b"sv);
}

TEST(JsonScan, LooksAtTheTopLevelOnlyAndAtCase) {
    const ControlKeys keys = keys_of(
        R"({"Model":"x","MODEL":1,"model ":2,"modelx":3,"mode":4,"max_tokens_":"x","a":{"model":1,"stream":"x","model":2},)"
        R"("b":[{"priority":"x","n":-1}],"model\u0000":1,"include_usage":"x","stream_options.include_usage":"x"})");
    EXPECT_FALSE(keys.has_model);
    EXPECT_FALSE(keys.stream || keys.priority || keys.n || keys.include_usage);
}

TEST(JsonScan, RefusesDuplicates) {
    const std::string_view members[] = {R"("model":"a")",
                                        R"("stream":true)",
                                        R"("priority":1)",
                                        R"("max_tokens":1)",
                                        R"("max_completion_tokens":1)",
                                        R"("max_output_tokens":1)",
                                        R"("n":1)",
                                        R"("routing-mode":"any")",
                                        R"("stream_options":{})"};
    for (std::string_view member : members) {
        const std::string text(member);
        const size_t colon = text.find(':');
        const std::string name = text.substr(1, colon - 2);
        char escaped[8];
        std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(name[0]));
        const std::string spelled = "\"" + std::string(escaped) + name.substr(1) + "\"" + text.substr(colon);
        for (const std::string& other : {text, "\"" + name + "\":null", spelled}) {
            expect_refused("{" + text + "," + other + "}", ErrorKind::duplicate, name);
            expect_refused("{" + other + ",\"x\":[{}]," + text + "}", ErrorKind::duplicate, name);
        }
        // The same name deeper down is another key.
        EXPECT_EQ(scan_every_way("{" + text + ",\"x\":{" + text + "}}").error_kind(), ErrorKind::none);
    }
    expect_refused(R"({"model":null,"model":null})", ErrorKind::duplicate, "model");
    expect_refused(R"({"stream_options":{"include_usage":true,"include_usage":null}})", ErrorKind::duplicate,
                   "stream_options.include_usage");
    expect_refused(R"({"stream_options":{},"stream_options":{"include_usage":true}})", ErrorKind::duplicate,
                   "stream_options");
}

TEST(JsonScan, RefusesWrongTypes) {
    const std::string_view values[] = {"\"x\"", "\"true\"", "\"1\"", "true", "false", "1",
                                       "0",     "-1",       "1.0",   "1e2",  "[]",    "{}"};
    struct Case {
        std::string_view key;
        std::string_view allowed;  // of the values above, each between blanks
    };
    const Case cases[] = {
        {"model", " \"x\" \"true\" \"1\" "},
        {"routing-mode", " \"x\" \"true\" \"1\" "},
        {"stream", " true false "},
        {"priority", " 1 0 -1 "},
        {"max_tokens", " 1 0 -1 "},
        {"max_completion_tokens", " 1 0 -1 "},
        {"max_output_tokens", " 1 0 -1 "},
        {"n", " 1 0 "},
        {"stream_options", " {} "},
    };
    for (const Case& c : cases) {
        for (std::string_view value : values) {
            const std::string body = "{\"" + std::string(c.key) + "\":" + std::string(value) + "}";
            if (c.allowed.find(" " + std::string(value) + " ") != std::string_view::npos) {
                EXPECT_EQ(scan_every_way(body).error_kind(), ErrorKind::none) << body;
            } else {
                const bool is_count = value == "-1" && c.allowed.find(" 1 ") != std::string_view::npos;
                expect_refused(body, is_count ? ErrorKind::wrong_value : ErrorKind::wrong_type, c.key);
            }
        }
    }
    for (std::string_view value : {"\"true\"", "1", "0", "[]", "{}"}) {
        expect_refused("{\"stream_options\":{\"include_usage\":" + std::string(value) + "}}",
                       ErrorKind::wrong_type, "stream_options.include_usage");
    }
}

TEST(JsonScan, BoundsNumbers) {
    EXPECT_EQ(keys_of(R"({"priority":2147483647})").priority, 2147483647);
    EXPECT_EQ(keys_of(R"({"priority":-2147483648})").priority, -2147483647 - 1);
    EXPECT_EQ(keys_of(R"({"priority":-0})").priority, 0);
    for (std::string_view value :
         {"2147483648", "-2147483649", "4294967296", "99999999999999999999999999", "1e400", "-1e0", "0.0"}) {
        expect_refused("{\"priority\":" + std::string(value) + "}", ErrorKind::wrong_type, "priority");
    }
    EXPECT_EQ(keys_of(R"({"max_tokens":-0})").max_tokens, 0u);
    EXPECT_EQ(keys_of(R"({"max_tokens":2147483646})").max_tokens, 2147483646u);
    EXPECT_EQ(keys_of(R"({"max_tokens":2147483648})").max_tokens, ControlKeys::kMaxCount);
    EXPECT_EQ(keys_of(R"({"max_tokens":18446744073709551617})").max_tokens, ControlKeys::kMaxCount);
    expect_refused(R"({"max_tokens":1e400})", ErrorKind::wrong_type, "max_tokens");
    expect_refused(R"({"n":-5})", ErrorKind::wrong_value, "n");
    EXPECT_EQ(keys_of(R"({"max_tokens":-1})").output_limit(), std::nullopt);
    EXPECT_EQ(keys_of(R"({"max_tokens":-1,"max_completion_tokens":7})").output_limit(), 7u);
    expect_refused(R"({"max_tokens":-1,"max_tokens":7})", ErrorKind::duplicate, "max_tokens");
}

TEST(JsonScan, BoundsStrings) {
    const std::string longest(ControlKeys::kMaxModel, 'm');
    EXPECT_EQ(keys_of("{\"model\":\"" + longest + "\"}").model(), longest);
    expect_refused("{\"model\":\"" + longest + "m\"}", ErrorKind::value_too_long, "model");
    expect_refused("{\"routing-mode\":\"" + longest + "\"}", ErrorKind::value_too_long, "routing-mode");
    // Too long is the last thing to be said: a body that is no JSON at all stays that.
    expect_refused("{\"model\":\"" + longest + "m\",}", ErrorKind::syntax, "");
    // Escapes count decoded.
    std::string escaped;
    for (size_t i = 0; i < ControlKeys::kMaxModel; ++i) {
        escaped += "\\u006d";
    }
    EXPECT_EQ(keys_of("{\"model\":\"" + escaped + "\"}").model(), longest);
    // A key longer than any control key matches none.
    EXPECT_FALSE(keys_of("{\"" + std::string(1000, 'm') + "\":1}").has_model);
}

TEST(JsonScan, FindsStreamOptions) {
    const auto body =
        R"({"stream_options" : { "x":{"include_usage":1}, "include_usage" : true } ,"model":"m"})"sv;
    const ControlKeys keys = keys_of(body);
    EXPECT_EQ(keys.include_usage, true);
    EXPECT_EQ(cut(body, keys.stream_options_span), R"({ "x":{"include_usage":1}, "include_usage" : true })");
    EXPECT_EQ(cut(body, keys.include_usage_span), "true");
    EXPECT_FALSE(keys.stream_options_empty);
    EXPECT_EQ(keys.model(), "m");

    const auto empty_body = R"({"stream_options":{ }})"sv;
    const ControlKeys empty = keys_of(empty_body);
    EXPECT_TRUE(empty.stream_options_empty);
    EXPECT_EQ(cut(empty_body, empty.stream_options_span), "{ }");
    EXPECT_TRUE(empty.include_usage_span.empty());

    const auto null_body = R"({"stream_options":{"include_usage":null}})"sv;
    const ControlKeys null = keys_of(null_body);
    EXPECT_FALSE(null.include_usage);
    EXPECT_EQ(cut(null_body, null.include_usage_span), "null");
    EXPECT_EQ(keys_of(R"({"stream_options":{"include_usage":false}})").include_usage, false);
    // Keys of the top level mean nothing inside, and the other way round.
    EXPECT_FALSE(keys_of(R"({"stream_options":{"model":"m","a":[1]},"x":{"include_usage":true}})").has_model);
}

TEST(JsonScan, CountsText) {
    EXPECT_EQ(keys_of(R"({"messages":[{"role":"user","content":"hello"}]})").text_bytes, 9u);
    EXPECT_EQ(keys_of(R"({"key is not text":1})").text_bytes, 0u);
    EXPECT_EQ(keys_of(R"({"a":"\u20ac\n"})").text_bytes, 4u);
    EXPECT_EQ(keys_of(R"({"a":"data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","b":"xy"})")
                  .text_bytes,
              2u);
    EXPECT_EQ(keys_of(R"({"a":"d\u0061ta:abc","b":"xy"})").text_bytes, 2u);
    EXPECT_EQ(
        keys_of(R"({"a":"data","b":"dat\u0061;","c":" data:","d":"Data:","e":"","f":"data:"})").text_bytes,
        4u + 5 + 6 + 5);
}

TEST(JsonScan, CountsPrompts) {
    struct Case {
        std::string_view prompt;
        uint32_t count;
        uint64_t tokens;
    };
    for (const Case& c :
         {Case{R"("one")", 1, 0}, Case{"[]", 1, 0}, Case{R"(["a"])", 1, 0}, Case{R"(["a","b","c"])", 3, 0},
          Case{"[1,2,3]", 1, 3}, Case{"[[1,2],[3]]", 2, 3}, Case{R"(["a",[1]])", 2, 1}, Case{"[[],[]]", 2, 0},
          Case{"[1.5,2e1,-1]", 1, 1}, Case{R"([{"x":[1,2]}])", 1, 0}, Case{"[[[1]]]", 1, 0},
          Case{R"({"a":["b","c"]})", 1, 0}, Case{"null", 1, 0}}) {
        const std::string body =
            "{\"prompt\":" + std::string(c.prompt) + ",\"stop\":[\"x\",\"y\"],\"z\":[1,2]}";
        const ControlKeys keys = keys_of(body);
        EXPECT_EQ(keys.prompt_count, c.count) << body;
        EXPECT_EQ(keys.prompt_tokens_given, c.tokens) << body;
    }
    EXPECT_EQ(keys_of(R"({"token_ids":[5,6,7]})").prompt_tokens_given, 3u);
    EXPECT_EQ(keys_of(R"({"input":[5,6]})").prompt_tokens_given, 2u);
    EXPECT_EQ(keys_of(R"({"input":[{"role":"user","content":[{"n":1}]}]})").prompt_tokens_given, 0u);
    EXPECT_EQ(keys_of(R"({"input":["a","b"]})").prompt_count, 1u);
}

TEST(JsonScan, CanBeUsedAfterCopy) {
    JsonScan first;
    first.feed(R"({"model":"ab)");
    JsonScan second = first;
    first.feed("c\"}");
    second.feed("d\"}");
    EXPECT_TRUE(first.finish());
    EXPECT_TRUE(second.finish());
    EXPECT_EQ(first.keys().model(), "abc");
    EXPECT_EQ(second.keys().model(), "abd");
}

}  // namespace
}  // namespace llm::core
