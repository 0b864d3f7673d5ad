// UsageScan on answers that are one document: against nlohmann-json, and whole against byte by byte, where
// only the tokenizer sees them.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/core/text/sse_scan.hpp"
#include "shared/json.hpp"
#include "tests/unit/text/guarded_pages.hpp"

namespace llm::core {
namespace {

using namespace std::string_view_literals;
using Json = nlohmann::ordered_json;

struct Findings {
    bool counted = false;
    uint64_t prompt = 0, completion = 0, cached = 0;
    bool error = false;
    bool complete = false;
    bool operator==(const Findings& other) const = default;
};

std::ostream& operator<<(std::ostream& out, const Findings& found) {
    return out << (found.counted ? "usage " : "no usage ") << found.prompt << ' ' << found.completion << ' '
               << found.cached << (found.error ? " error" : "") << (found.complete ? " complete" : "");
}

// Scans in pieces whose sizes `size` tells. Nothing beyond them may be read.
template <typename Size>
Findings scan_pieces(std::string_view text, Size size) {
    static GuardedPages pages(1 << 20);
    UsageScan scan(UsageScan::Framing::json);
    while (!text.empty()) {
        const std::string_view piece = text.substr(0, size());
        scan.feed(pages.at_end(piece));
        text.remove_prefix(piece.size());
    }
    Findings found{scan.usage().has_value(), 0, 0, 0, scan.error_seen(), scan.json_complete()};
    if (found.counted) {
        found.prompt = scan.usage()->prompt_tokens;
        found.completion = scan.usage()->completion_tokens;
        found.cached = scan.usage()->cached_tokens;
    }
    return found;
}

// Whole; in two pieces cut at every place; byte by byte: all the same.
Findings scan_every_way(std::string_view text) {
    const Findings bytewise = scan_pieces(text, [] { return size_t{1}; });
    for (size_t cut = 1; cut <= text.size(); ++cut) {
        bool first = true;
        EXPECT_EQ(scan_pieces(text, [&] { return std::exchange(first, false) ? cut : text.size(); }),
                  bytewise)
            << text << " cut at " << cut;
    }
    return bytewise;
}

Findings usage_of(std::string_view usage) {
    return scan_every_way(
        "{\"id\":\"chatcmpl-0123456789012345678901234567890123456789012345678901234567\",\"usage\":" +
        std::string(usage) + "}");
}

TEST(UsageDocument, ReadsUsageInTheForm) {
    const Findings expected{true, 200, 2, 0, false, true};
    for (
        std::string_view usage : {
            R"({"prompt_tokens":200,"completion_tokens":2,"total_tokens":202})"sv,
            R"({"prompt_tokens": 200, "completion_tokens": 2, "total_tokens": 202})"sv,
            R"({"total_tokens":202,"completion_tokens":2,"prompt_tokens":200})"sv,
            R"({"input_tokens":200,"output_tokens":2})"sv,
            R"( { "prompt_tokens" : 200 , "completion_tokens" : 2 } )"sv,
            R"({"prompt_tokens":200,"completion_tokens":2,"queue_time":0.25,"x":"prompt_tokens","y":[{"prompt_tokens":1}]})"sv,
            R"({"prompt_tokens":200,"completion_tokens":2,"details":{"prompt_tokens":1,"completion_tokens":1,"a":{}}})"sv,
            R"({"a":null,"b":{},"c":{"d":{"e":1}},"prompt_tokens":200,"completion_tokens":2,"total_tokens":null})"sv,
        }) {
        EXPECT_EQ(usage_of(usage), expected) << usage;
    }
    EXPECT_EQ(usage_of(R"({"prompt_tokens":5,"prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0}})"),
              (Findings{true, 5, 0, 4, false, true}));
    EXPECT_EQ(
        usage_of(R"({"input_tokens":36,"input_tokens_details":{"cached_tokens":7},"output_tokens":87})"),
        (Findings{true, 36, 87, 7, false, true}));
    EXPECT_EQ(  // vLLM 0.32, /v1/messages
        usage_of(
            R"({"input_tokens":38,"output_tokens":2,"cache_creation_input_tokens":100,"cache_read_input_tokens":412})"),
        (Findings{true, 550, 2, 412, false, true}));
    for (std::string_view usage :
         {"{}"sv, "null"sv, "7"sv, R"({"total_tokens":3})"sv, R"({"prompt_tokens":null})"sv,
          R"({"prompt_tokens":{}})"sv, R"([{"prompt_tokens":1}])"sv}) {
        EXPECT_EQ(usage_of(usage), (Findings{false, 0, 0, 0, false, true})) << usage;
    }
}

TEST(UsageDocument, BoundsNumbers) {
    EXPECT_EQ(usage_of(R"({"prompt_tokens":123456789012345})").prompt, 123456789012345u);
    for (const char* digits :
         {"99999999999999999999", "18446744073709551617", "100000000000000000000000000000000000"}) {
        EXPECT_GE(usage_of("{\"prompt_tokens\":" + std::string(digits) + "}").prompt, 1ull << 53) << digits;
    }
    EXPECT_EQ(usage_of(R"({"prompt_tokens":0000000000000000000007})").prompt, 7u);
}

TEST(UsageDocument, EndsAnywhere) {
    const std::string text =
        R"({"id":"chatcmpl-0123456789012345678901234567890123456789012345678901234567","usage":)"
        R"({"prompt_tokens": 200,"a":{"b":null},"completion_tokens":2,"total_tokens":202},"z":[{}],"y":"\\\"}"})";
    for (size_t size = 0; size < text.size(); ++size) {
        EXPECT_FALSE(scan_every_way(text.substr(0, size)).complete) << size;
        scan_every_way(text.substr(0, size) + "}");
    }
    EXPECT_EQ(scan_every_way(text), (Findings{true, 200, 2, 0, false, true}));
}

// ---- random documents

class Generator {
  public:
    explicit Generator(uint32_t seed) : random_(seed) {}

    uint32_t below(uint32_t limit) { return static_cast<uint32_t>(random_() % limit); }

    Json document() {
        Json result = Json::object();
        for (uint32_t count = below(8); count > 0; --count) {
            result[key()] = value(0);
        }
        if (below(3) != 0) {
            result["usage"] = below(8) == 0 ? Json() : usage();
        }
        for (uint32_t count = below(3); count > 0; --count) {
            result[key()] = value(0);
        }
        return result;
    }

    void damage(std::string& text) {
        static constexpr std::string_view kBytes = "\"\\{}[]:,0 \nue";
        const uint32_t at = below(static_cast<uint32_t>(text.size()));
        switch (below(3)) {
            case 0:
                text.erase(at, 1 + below(3));
                break;
            case 1:
                text.insert(at, 1, kBytes[below(kBytes.size())]);
                break;
            default:
                text[at] = kBytes[below(kBytes.size())];
                break;
        }
        text += text.empty() ? " " : "";
    }

  private:
    std::string key() {
        static constexpr const char* kKeys[] = {"usage", "error",  "id",      "u",  "e",
                                                "Usage", "usages", "choices", "\"u"};
        return below(6) == 0 ? string() : kKeys[below(9)];
    }

    std::string string() {
        static constexpr const char* kPieces[] = {
            "usage", "error", "\"usage\":{\"prompt_tokens\":1}}]", "\\",    "\\\\\\", "\"",
            "\n",    "{[",    "some words of an answer ",          "\u20ac"};
        std::string text(below(4) == 0 ? below(150) : below(4), 'x');
        for (uint32_t count = below(6); count > 0; --count) {
            text += kPieces[below(10)];
        }
        return text;
    }

    Json usage() {
        static constexpr const char* kKeys[] = {"prompt_tokens",
                                                "completion_tokens",
                                                "total_tokens",
                                                "input_tokens",
                                                "output_tokens",
                                                "cached_tokens",
                                                "cache_read_input_tokens",
                                                "cache_creation_input_tokens",
                                                "prompt_tokens_details",
                                                "a",
                                                "a_very_long_key_of_a_usage_object"};
        Json result = Json::object();
        for (uint32_t count = below(6); count > 0; --count) {
            const char* const name = kKeys[below(11)];
            result[name] = below(8) == 0 ? Json()
                           : name == "prompt_tokens_details"sv
                               ? Json{{"cached_tokens", below(100)}, {"x", below(9)}}
                               : Json(random_() >> below(32));
        }
        return result;
    }

    Json value(int depth) {
        switch (below(depth < 4 ? 8 : 4)) {
            case 0:
                return Json();
            case 1:
                return below(2) != 0;
            case 2:
                return below(1000) / 8.0;
            case 3:
            case 4:
                return string();
            case 5: {
                Json result = Json::array();
                for (uint32_t count = below(below(8) == 0 ? 60 : 4); count > 0; --count) {
                    result.push_back(value(depth + 1));
                }
                return result;
            }
            case 6:
                return usage();
            default: {
                Json result = Json::object();
                for (uint32_t count = below(4); count > 0; --count) {
                    result[key()] = value(depth + 1);
                }
                return result;
            }
        }
    }

    std::mt19937 random_;
};

struct Counts {
    Findings found;
    uint64_t read = 0, created = 0;
    bool beside = false;  // input_tokens leaves out these two
};

// cached_tokens counts however deep in the usage object it stands, the others at its top.
void take_counts(const Json& value, bool top, Counts& counts) {
    if (value.is_array()) {
        for (const Json& element : value) {
            take_counts(element, false, counts);
        }
    } else if (value.is_object()) {
        for (const auto& [name, member] : value.items()) {
            const bool prompt = top && (name == "prompt_tokens" || name == "input_tokens");
            uint64_t* const field =
                name == "cached_tokens"                                           ? &counts.found.cached
                : prompt                                                          ? &counts.found.prompt
                : top && (name == "completion_tokens" || name == "output_tokens") ? &counts.found.completion
                : top && name == "cache_read_input_tokens"                        ? &counts.read
                : top && name == "cache_creation_input_tokens"                    ? &counts.created
                                                                                  : nullptr;
            if (field != nullptr && member.is_number()) {
                *field = member.get<uint64_t>();
                counts.found.counted = true;
                counts.beside = prompt ? name == "input_tokens" : counts.beside;
            } else {
                take_counts(member, false, counts);
            }
        }
    }
}

Findings reference(const Json& document) {
    Counts counts;
    Findings& found = counts.found;
    found.complete = true;
    found.error =
        document.contains("error") && (document["error"].is_object() || document["error"].is_string());
    if (document.contains("usage") && document["usage"].is_object()) {
        take_counts(document["usage"], true, counts);
        if (counts.beside) {
            found.prompt += counts.read + counts.created;
            found.cached += counts.read;
        }
    }
    return found;
}

TEST(UsageDocumentProperty, AgreesWithAnotherParser) {
    Generator generator(5);
    int counted = 0;
    for (int round = 0; round < 20000; ++round) {
        const Json document = generator.document();
        const std::string text =
            document.dump(generator.below(3) == 0 ? static_cast<int>(generator.below(3)) : -1, ' ',
                          generator.below(2) == 0);
        const Findings expected = reference(document);
        ASSERT_EQ(scan_pieces(text, [&] { return text.size(); }), expected) << text;
        const uint32_t largest = 1 + generator.below(300);
        ASSERT_EQ(scan_pieces(text, [&] { return size_t{1} + generator.below(largest); }), expected) << text;
        counted += expected.counted ? 1 : 0;
    }
    EXPECT_GT(counted, 5000);
}

TEST(UsageDocumentProperty, ReadsDamageTheSameInEveryPiece) {
    Generator generator(6);
    for (int round = 0; round < 20000; ++round) {
        std::string text = generator.document().dump(-1, ' ', true);
        for (uint32_t edits = 1 + generator.below(3); edits > 0; --edits) {
            generator.damage(text);
        }
        const Findings bytewise = scan_pieces(text, [] { return size_t{1}; });
        ASSERT_EQ(scan_pieces(text, [&] { return text.size(); }), bytewise) << text;
        const uint32_t largest = 1 + generator.below(300);
        ASSERT_EQ(scan_pieces(text, [&] { return size_t{1} + generator.below(largest); }), bytewise) << text;
    }
}

}  // namespace
}  // namespace llm::core
