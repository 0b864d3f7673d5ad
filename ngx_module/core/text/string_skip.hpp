// Skipping the body of a JSON string at memory speed, with UTF-8 validation. Internal to core/text.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace llm::core {

struct SkippedText {
    const char* stop;
    bool valid;  // false: an invalid UTF-8 sequence begins at `stop`
};

// Skips from `p`, which must be the beginning of a character, to the first quote, backslash or control byte
// (< 0x20), or to an incomplete but so far valid UTF-8 sequence at the end (at most three bytes), or to the
// end. Reads nothing outside [p, end). The best code for the running CPU is chosen at the first call.
SkippedText skip_text(const char* p, const char* end);

// Whether all of `text` is valid UTF-8; quotes and control bytes are ordinary here.
bool is_valid_utf8(std::string_view text);

// The same as skip_text() by one named implementation, for tests and benchmarks. False if the CPU lacks it.
enum class SkipKernel : uint8_t { scalar, baseline, avx2 };
bool skip_text_with(SkipKernel kernel, const char* p, const char* end, SkippedText& result);

// True for the bytes that end a run of ordinary string bytes.
constexpr bool ends_text(char c) {
    return c == '"' || c == '\\' || static_cast<uint8_t>(c) < 0x20;
}

// Continuation bytes that follow `lead` (0 = it cannot lead a sequence), and the range of the first of them;
// the others are 0x80..0xbf. Unicode standard, table 3-7.
struct Utf8Lead {
    uint8_t need;
    uint8_t low;
    uint8_t high;
};
constexpr Utf8Lead utf8_lead(uint8_t lead) {
    if (lead >= 0xc2 && lead <= 0xdf) {
        return {1, 0x80, 0xbf};
    }
    if (lead >= 0xe0 && lead <= 0xef) {
        return {2, static_cast<uint8_t>(lead == 0xe0 ? 0xa0 : 0x80),
                static_cast<uint8_t>(lead == 0xed ? 0x9f : 0xbf)};
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        return {3, static_cast<uint8_t>(lead == 0xf0 ? 0x90 : 0x80),
                static_cast<uint8_t>(lead == 0xf4 ? 0x8f : 0xbf)};
    }
    return {0, 0, 0};
}

#if defined(__x86_64__)
// Bit i set: byte i of the 16 at `p` ends a run. SSE2 is part of x86-64.
inline uint32_t text_end_mask16(const char* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i quote = _mm_cmpeq_epi8(x, _mm_set1_epi8('"'));
    const __m128i backslash = _mm_cmpeq_epi8(x, _mm_set1_epi8('\\'));
    const __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_or_si128(_mm_or_si128(quote, backslash), control)));
}
// Bit i set: byte i of the 16 at `p` ends a run or is not ASCII.
inline uint32_t special_mask16(const char* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    // Bit 1 turned, the quote is the next after the control bytes (and '"' and ' ' change places); less 0x21,
    // with sign and saturation, they are negative, and bytes beyond ASCII stay so. Only the sign goes into
    // the mask.
    const __m128i low = _mm_subs_epi8(_mm_xor_si128(x, _mm_set1_epi8(2)), _mm_set1_epi8(0x21));
    const __m128i backslash = _mm_cmpeq_epi8(x, _mm_set1_epi8('\\'));
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_or_si128(low, backslash)));
}
#endif

// Skips to the first byte for which ends_text() holds, without looking at UTF-8.
inline const char* find_text_end(const char* p, const char* end) {
#if defined(__x86_64__)
    while (end - p >= 16) {
        const uint32_t mask = text_end_mask16(p);
        if (mask != 0) {
            return p + std::countr_zero(mask);
        }
        p += 16;
    }
#endif
    while (p < end && !ends_text(*p)) {
        ++p;
    }
    return p;
}

}  // namespace llm::core
