// Random documents, whole and damaged, against nlohmann-json; and what the spans promise: a body can be
// spliced.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ngx_module/core/text/json_scan.hpp"
#include "tests/unit/text/guarded_pages.hpp"
#include "tests/unit/text/json_reference.hpp"

namespace llm::core {
namespace {

class Generator {
  public:
    explicit Generator(uint32_t seed) : random_(seed) {}

    uint32_t below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }

    std::string document() {
        std::string body = blank() + "{";
        const uint32_t members = below(below(4) == 0 ? 20 : 6);
        for (uint32_t i = 0; i < members; ++i) {
            const bool control = below(3) != 0;
            body += (i != 0 ? "," : "") + blank() +
                    (control ? control_member() : string(key()) + ":" + value(0)) + blank();
        }
        return body + "}" + blank();
    }

    // One random edit.
    void damage(std::string& body) {
        static constexpr std::string_view kBytes = "\"\\{}[]:,0-1e.+tfnu \n\x01\x80\xc3\xe2\xed\xf0\xff/d";
        const uint32_t at = below(static_cast<uint32_t>(body.size()));
        switch (below(4)) {
            case 0:
                body.erase(at, 1 + below(3));
                break;
            case 1:
                body.insert(at, 1, kBytes[below(kBytes.size())]);
                break;
            case 2:
                body[at] = kBytes[below(kBytes.size())];
                break;
            default:
                body.insert(at, body.substr(below(static_cast<uint32_t>(body.size())), below(12)));
                break;
        }
        if (body.empty()) {
            body = " ";
        }
    }

  private:
    std::string blank() { return below(4) == 0 ? std::string(below(3), " \n\t\r"[below(4)]) : ""; }

    std::string key() {
        static constexpr const char* kKeys[] = {
            "a",    "messages",  "Model", "",        "include_usage", "prompt", "input",
            "role", "token_ids", "tool",  "content", "temperature",   "stream", "model"};
        // a control key with a value of any kind is mostly refused: seldom
        std::string name = below(6) == 0 ? filler() : kKeys[below(below(8) == 0 ? 14 : 12)];
        if (below(4) == 0 && !name.empty()) {
            name[below(static_cast<uint32_t>(name.size()))] ^=
                static_cast<char>(1 + below(3));  // nearly the same
        }
        return name;
    }

    std::string control_member() {
        static constexpr const char* kKeys[] = {"model",
                                                "stream",
                                                "priority",
                                                "max_tokens",
                                                "max_completion_tokens",
                                                "max_output_tokens",
                                                "n",
                                                "routing-mode",
                                                "stream_options",
                                                "prompt"};
        const uint32_t which = below(10);
        std::string text = string(kKeys[which]) + blank() + ":" + blank();
        if (below(12) == 0) {
            return text + value(0);
        }
        if (below(12) == 0) {
            return text + "null";
        }
        switch (which) {
            case 0:
            case 7:
                return text + string(characters());
            case 1:
                return text + (below(2) ? "true" : "false");
            case 8:
                return text + "{" +
                       (below(2) ? "" : string("include_usage") + ":" + (below(2) ? "true" : "null")) + "}";
            case 9:
                return text + prompts();
            default:
                return text + (which == 2 && below(2) ? "-" : "") +
                       std::to_string(below(2) ? below(100) : random_());
        }
    }

    // About as long as vectors and blocks are.
    std::string filler() {
        static constexpr uint32_t kSizes[] = {13, 14, 15,  16,  30,  31,  32,  33,
                                              63, 64, 126, 127, 128, 129, 160, 290};
        return std::string(kSizes[below(16)], "abm"[below(3)]);
    }

    // Integers mostly, of all lengths, one behind another.
    std::string tokens() {
        std::string text = "[";
        const uint32_t count = below(40);
        for (uint32_t i = 0; i < count; ++i) {
            text += (i != 0 ? (below(8) == 0 ? ", " : ",") : "") +
                    (below(12) == 0 ? number() : std::to_string(random_() >> below(32)));
        }
        return text + "]";
    }

    std::string prompts() {
        if (below(4) == 0) {
            return tokens();
        }
        std::string text = "[";
        const uint32_t count = below(4);
        for (uint32_t i = 0; i < count; ++i) {
            text += (i != 0 ? "," : "") + (below(3) == 0 ? value(2)
                                           : below(2)    ? string(characters())
                                                         : "[" + number() + "]");
        }
        return text + "]";
    }

    std::string number() {
        static constexpr const char* kTails[] = {
            "", "", "", ".5", "e2", "E-3", ".25e+1", ".12345678", ".1234567890123456", ".12345678901234567"};
        return (below(4) == 0 ? "-" : "") + std::to_string(random_() >> below(32)) + kTails[below(10)];
    }

    std::string characters() {
        static constexpr const char* kPieces[] = {"a",
                                                  "data:",
                                                  "hello world ",
                                                  "\u00e9",
                                                  "\u20ac",
                                                  "\U0001f600",
                                                  "\"",
                                                  "\\",
                                                  "\n",
                                                  "\x01",
                                                  "0123456789012345678901234567890123456789",
                                                  "\x7f"};
        std::string text;
        const uint32_t count = below(5);
        for (uint32_t i = 0; i < count; ++i) {
            text += below(8) == 0 ? filler() : kPieces[below(12)];
        }
        return text;
    }

    // Quoted, some characters spelled as escapes.
    std::string string(const std::string& text) {
        std::string quoted = nlohmann::json(text).dump(-1, ' ', below(3) == 0);
        if (below(4) == 0 && quoted.size() > 2 && quoted[1] >= 'a' && quoted[1] <= 'z') {
            char escape[8];
            std::snprintf(escape, sizeof(escape), below(2) ? "\\u%04x" : "\\u%04X",
                          static_cast<unsigned>(quoted[1]));
            quoted.replace(1, 1, escape);
        }
        return quoted;
    }

    std::string value(int depth) {
        switch (below(depth < 4 ? 8 : 5)) {
            case 0:
                return "null";
            case 1:
                return below(2) ? "true" : "false";
            case 2:
                return number();
            case 3:
            case 4:
                return string(characters());
            case 5:
                return prompts();
            default: {
                const bool object = below(2) != 0;
                std::string text = object ? "{" : "[";
                const uint32_t count = below(4);
                for (uint32_t i = 0; i < count; ++i) {
                    text += (i != 0 ? "," : "") + blank() + (object ? string(key()) + blank() + ":" : "") +
                            value(depth + 1) + blank();
                }
                return text + (object ? "}" : "]");
            }
        }
    }

    std::mt19937 random_;
};

// Scans in random pieces, beyond which nothing may be read.
JsonScan scan_in_pieces(std::string_view body, Generator& generator) {
    static GuardedPages pages(1 << 20);
    JsonScan scan;
    static constexpr uint32_t kLargest[] = {4, 100, 200, 1000};
    const uint32_t largest = 1 + generator.below(kLargest[generator.below(4)]);
    while (!body.empty()) {
        const size_t size = std::min<size_t>(body.size(), 1 + generator.below(largest));
        const std::string_view piece = body.substr(0, size);
        scan.feed(generator.below(2) ? pages.at_end(piece) : pages.at_begin(piece));
        body.remove_prefix(size);
    }
    scan.finish();
    return scan;
}

TEST(JsonScanProperty, AgreesWithAnotherParser) {
    Generator generator(20251121);
    int valid = 0;
    int invalid = 0;
    for (int round = 0; round < 30000; ++round) {
        std::string body = generator.document();
        for (uint32_t edits = generator.below(3); edits > 0; --edits) {
            generator.damage(body);
        }
        const JsonReference reference = reference_scan(body);
        ++(reference.valid ? valid : invalid);
        ASSERT_EQ(compare(scan_in_pieces(body, generator), reference), "") << body;
    }
    // The generator must exercise both verdicts.
    EXPECT_GT(valid, 5000);
    EXPECT_GT(invalid, 5000);
}

TEST(JsonScanProperty, SplicedBodiesMeanWhatTheyShould) {
    Generator generator(7);
    int spliced = 0;
    for (int round = 0; round < 5000; ++round) {
        const std::string body = generator.document();
        JsonScan scan;
        scan.feed(body);
        if (!scan.finish()) {
            continue;
        }
        const ControlKeys& keys = scan.keys();
        // From the back to the front, so that the offsets stay right.
        std::string changed = body;
        const bool had_priority = !keys.priority_span.empty();
        std::vector<std::pair<Span, std::string>> edits;
        if (had_priority) {
            edits.push_back({keys.priority_span, "42"});
        } else {
            edits.push_back({{keys.object_end, keys.object_end},
                             keys.object_empty ? "\"priority\":42" : ",\"priority\":42"});
        }
        if (!keys.model_span.empty()) {
            edits.push_back({keys.model_span, "\"other\""});
        }
        if (!keys.include_usage_span.empty()) {
            edits.push_back({keys.include_usage_span, "true"});
        } else if (!keys.stream_options_span.empty()) {
            edits.push_back({keys.stream_options_span, R"({"include_usage":true})"});
        }
        std::sort(edits.begin(), edits.end(),
                  [](const auto& a, const auto& b) { return a.first.begin > b.first.begin; });
        for (const auto& [span, text] : edits) {
            changed.replace(span.begin, span.end - span.begin, text);
        }
        auto expected = nlohmann::json::parse(body);
        expected["priority"] = 42;
        if (!keys.model_span.empty()) {
            expected["model"] = "other";
        }
        if (!keys.stream_options_span.empty()) {
            if (!expected["stream_options"].is_object()) {
                expected["stream_options"] = nlohmann::json::object();
            }
            if (keys.include_usage_span.empty()) {
                expected["stream_options"].clear();
            }
            expected["stream_options"]["include_usage"] = true;
        }
        ASSERT_EQ(nlohmann::json::parse(changed, nullptr, false), expected) << body << "\n" << changed;
        ++spliced;
    }
    EXPECT_GT(spliced, 1000);
}

}  // namespace
}  // namespace llm::core
