// Events that are nearly like the one before them.
#include "ngx_module/core/text/event_pattern.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "tests/unit/text/sse_events.hpp"

namespace llm::core {
namespace {

TEST(EventPattern, MatchesWhatDiffersByItsTextOnly) {
    const std::string head = R"(data: {"text":")";
    const std::string tail = "\",\"n\":1}\n\n";
    EventPattern pattern;
    EXPECT_EQ(pattern.match(head + "a" + tail), 0u);
    pattern.learn(head + "a" + tail, head.size());
    for (const std::string text : {"a", "another", "\\n", "\\\"", "\\\\", "caf\u00e9"}) {
        const std::string event = head + text + tail;
        EXPECT_EQ(pattern.match(event + "data: "), event.size()) << text;
        for (size_t size = 0; size < event.size(); ++size) {
            EXPECT_EQ(pattern.match(event.substr(0, size)), 0u) << size;
        }
    }
    EXPECT_EQ(pattern.match(head + tail), 0u) << "no text is no token";
    EXPECT_EQ(pattern.match(head + "a\n" + tail), 0u) << "a bare control byte";
    EXPECT_EQ(pattern.match(head + "a\",\"n\":2}\n\n"), 0u);
    pattern.forget();
    EXPECT_EQ(pattern.match(head + "a" + tail), 0u);
}

TEST(EventPattern, LearnsNoEventThatIsTooLong) {
    const std::string head = R"(data: {"id":")" + std::string(EventPattern::kCapacity, 'i') + R"(","text":")";
    const std::string event = head + "a\"}\n\n";
    EventPattern pattern;
    pattern.learn(event, head.size());
    EXPECT_EQ(pattern.match(event), 0u);
}

// Random streams of events that repeat one another, nearly: read in one piece they are compared, byte by byte
// they are read. Each stream is made of two events whose text, and sometimes one other byte, is
// exchanged.
TEST(UsageScanProperty, TellsEventsThatAreNearlyAlikeApart) {
    const std::string heads[] = {
        R"(data: {"id":"c","choices":[{"index":0,"delta":{"content":")",
        R"(data: {"id":"c", "choices": [{"delta": {"tool_calls": [{"function": {"arguments": ")",
        "event: x\r\ndata:{\"text\":\"",
        R"(data: {"usage":null,"delta":")",
        R"(data: {"usage":{"prompt_tokens":3},"delta":")",
        R"(data: {"choices":[],"usage":{"prompt_tokens":5},"role":")",
    };
    const std::string tails[] = {
        "\"},\"finish_reason\":null}],\"usage\":null}\n\n",
        "\"}}]}}]}\r\n\r\n",
        "\"}\ndata: ,\n\n",
        "\",\"usage\":{\"completion_tokens\":7}}\n\n",
        "\",\"error\":{}}\n\n",
        "\":{\"prompt_tokens\":9}}\n\n",
        "\" , \"text\": \"more\"}\n\n",
        "\"}\r\r",
    };
    const std::string texts[] = {" word", "a",     "",       "\\n",
                                 "\\\"",  "\\\\",  "\u00e9", "\\u00e9 and more than sixteen bytes",
                                 "\n",    "usage", "\\\n",   std::string(300, 'x')};
    std::mt19937 random(3);
    const auto one_of = [&](const auto& list) { return list[random() % std::size(list)]; };
    uint64_t contents = 0;
    for (int round = 0; round < 4000; ++round) {
        const std::string head[] = {one_of(heads), one_of(heads)};
        const std::string tail[] = {one_of(tails), one_of(tails)};
        std::string stream;
        for (int event = 0; event < 6; ++event) {
            const size_t kind = random() % 4 == 0;
            std::string bytes = head[kind] + (random() % 3 != 0 ? " word" : one_of(texts)) + tail[kind];
            if (random() % 8 == 0) {
                bytes[random() % bytes.size()] = "\"\\{}[]:, \n\rau9"[random() % 14];
            }
            stream += bytes;
        }
        UsageScan whole;
        const std::vector<Event> events = collect_whole(whole, stream);
        UsageScan bytewise;
        EXPECT_EQ(collect(bytewise, stream, [] { return size_t{1}; }), events) << stream;
        expect_same(whole, bytewise, stream);
        contents += whole.content_events();
    }
    EXPECT_GT(contents, 5000u);
}

}  // namespace
}  // namespace llm::core
