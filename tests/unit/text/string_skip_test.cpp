// Every implementation against a plain reading of the Unicode standard.
#include "ngx_module/core/text/string_skip.hpp"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <string_view>

#include "tests/unit/text/guarded_pages.hpp"

namespace llm::core {
namespace {

// Size of the character at the front, 0 if it is cut off by the end, -1 if it is invalid. By code point
// arithmetic, so that it shares nothing with the tables under test.
int character(std::string_view text) {
    const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<uint8_t>(text[i])); };
    const uint32_t lead = byte(0);
    const int size = lead < 0x80         ? 1
                     : (lead >> 5) == 6  ? 2
                     : (lead >> 4) == 14 ? 3
                     : (lead >> 3) == 30 ? 4
                                         : -1;
    if (size < 2) {
        return size;
    }
    // Lowest and highest code point that the bytes so far can still become.
    uint32_t low = lead & (0xffu >> (size + 1));
    uint32_t high = low;
    for (int i = 1; i < size; ++i) {
        const bool here = static_cast<size_t>(i) < text.size();
        if (here && (byte(static_cast<size_t>(i)) >> 6) != 2) {
            return -1;
        }
        low = low << 6 | (here ? byte(static_cast<size_t>(i)) & 0x3f : 0);
        high = high << 6 | (here ? byte(static_cast<size_t>(i)) & 0x3f : 0x3f);
    }
    const uint32_t first = size == 2 ? 0x80 : size == 3 ? 0x800 : 0x10000;
    const bool only_surrogates = low >= 0xd800 && high <= 0xdfff;
    if (high < first || low > 0x10ffff || only_surrogates) {
        return -1;
    }
    return static_cast<size_t>(size) <= text.size() ? size : 0;
}

struct Expected {
    size_t stop;
    bool valid;
};

Expected expected_skip(std::string_view text) {
    size_t at = 0;
    while (at < text.size() && text[at] != '"' && text[at] != '\\' &&
           static_cast<uint8_t>(text[at]) >= 0x20) {
        const int size = character(text.substr(at));
        if (size <= 0) {
            return {at, size == 0};
        }
        at += static_cast<size_t>(size);
    }
    return {at, true};
}

void check_placed(std::string_view text, const Expected& expected) {
    const char* const begin = text.data();
    const char* const end = begin + text.size();
    for (SkipKernel kernel : {SkipKernel::scalar, SkipKernel::baseline, SkipKernel::avx2}) {
        SkippedText result{};
        if (!skip_text_with(kernel, begin, end, result)) {
            continue;
        }
        ASSERT_EQ(static_cast<size_t>(result.stop - begin), expected.stop)
            << static_cast<int>(kernel) << ' ' << text;
        ASSERT_EQ(result.valid, expected.valid) << static_cast<int>(kernel) << ' ' << text;
    }
    const SkippedText chosen = skip_text(begin, end);
    ASSERT_EQ(static_cast<size_t>(chosen.stop - begin), expected.stop);
    ASSERT_EQ(chosen.valid, expected.valid);
}

void check(std::string_view text) {
    static GuardedPages pages(1 << 16);
    const Expected expected = expected_skip(text);
    check_placed(pages.at_end(text), expected);
    check_placed(pages.at_begin(text), expected);
}

TEST(StringSkip, StopsAtEveryByteAtEveryPlace) {
    for (size_t size : {1, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100, 127, 128, 129, 160, 193, 290}) {
        for (size_t at = 0; at < size; ++at) {
            std::string text(size, 'a');
            for (int byte = 0; byte < 256; ++byte) {
                text[at] = static_cast<char>(byte);
                check(text);
            }
        }
    }
}

TEST(StringSkip, KnowsEveryPairAndEveryTripleOfLeadBytes) {
    for (int first = 0x80; first < 256; ++first) {
        for (int second = 0x20; second < 256; ++second) {
            for (const char* tail : {"", "a", "\x80", "\xbf\x80", "\x80\x80", "\xbf\xbf\xbf"}) {
                std::string text(29, 'a');  // the sequence crosses a block border
                text += static_cast<char>(first);
                text += static_cast<char>(second);
                text += tail;
                check(text);
                check(text.substr(29));
                check(text + std::string(40, 'b'));
            }
        }
    }
}

TEST(StringSkip, ReadsRandomText) {
    std::mt19937 random(5);
    static constexpr std::string_view kPieces[] = {"a",
                                                   "abcdefgh",
                                                   "\u00e9",
                                                   "\u20ac",
                                                   "\U0001f600",
                                                   "\u4f60\u597d",
                                                   "\xed\x9f\xbf",
                                                   "\xee\x80\x80",
                                                   "\xf4\x8f\xbf\xbf",
                                                   "                                "};
    static constexpr std::string_view kFaults[] = {"\"",       "\\",       "\n",       "\x80",
                                                   "\xc0",     "\xe0\x9f", "\xed\xa0", "\xf0\x8f",
                                                   "\xf4\x90", "\xf5",     "\xe2\x82", "\xf0\x9f\x98"};
    for (int round = 0; round < 20000; ++round) {
        std::string text;
        for (uint32_t i = static_cast<uint32_t>(random() % 40); i > 0; --i) {
            text += random() % 40 == 0 ? kFaults[random() % 12] : kPieces[random() % 10];
        }
        if (!text.empty() && random() % 2 == 0) {
            text.resize(random() % text.size());
        }
        check(text);
    }
}

#if LLM_MASKS
TEST(StringSkip, MarksEverySpecialByteAtEveryPlace) {
    for (int byte = 0; byte < 256; ++byte) {
        for (size_t at = 0; at < 15; ++at) {
            std::string text(16, 'a');
            text[at] = text[15] = static_cast<char>(byte);
            const uint32_t both = 1u << at | 1u << 15;
            const bool structural = std::string_view("\"{}[]\n\r").find(text[at]) != std::string_view::npos;
            EXPECT_EQ(text_end_mask16(text.data()), ends_text(text[at]) ? both : 0u) << byte;
            EXPECT_EQ(special_mask16(text.data()), ends_text(text[at]) || byte >= 0x80 ? both : 0u) << byte;
            EXPECT_EQ(structural_mask16(text.data()), structural ? both : 0u) << byte;
        }
    }
}
#endif

TEST(StringSkip, FindsTheEndOfTextWithoutUtf8) {
    for (size_t size = 0; size < 50; ++size) {
        for (size_t at = 0; at <= size; ++at) {
            std::string text(size, '\xff');
            if (at < size) {
                text[at] = "\"\\\n"[at % 3];
            }
            EXPECT_EQ(static_cast<size_t>(find_text_end(text.data(), text.data() + size) - text.data()), at);
        }
    }
}

}  // namespace
}  // namespace llm::core
