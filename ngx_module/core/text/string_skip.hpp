// Skipping the body of a JSON string at memory speed, with UTF-8 validation. Internal to core/text.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <string_view>

// LLM_MASKS: masks of 16 bytes at a time, from what every processor of the kind has: SSE2, NEON.
#if defined(__x86_64__)
#include <emmintrin.h>
#define LLM_MASKS 1
#elif defined(__aarch64__)
#include <arm_neon.h>
#define LLM_MASKS 1
#else
#define LLM_MASKS 0
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
// Bit i set: byte i of the 16 at `p` ends a run.
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
// Bit i set: byte i of the 16 at `p` is a quote, a bracket, a brace or a line end.
inline uint32_t structural_mask16(const char* p) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m128i folded = _mm_or_si128(x, _mm_set1_epi8(0x20));  // brackets become braces
    const __m128i brackets = _mm_or_si128(_mm_cmpeq_epi8(folded, _mm_set1_epi8('{')),
                                          _mm_cmpeq_epi8(folded, _mm_set1_epi8('}')));
    const __m128i lines =
        _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('\n')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\r')));
    const __m128i found =
        _mm_or_si128(_mm_or_si128(brackets, lines), _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
    return static_cast<uint32_t>(_mm_movemask_epi8(found));
}
#elif defined(__aarch64__)
// Of bytes that are all ones or zero: bit i is byte i.
inline uint32_t mask16(uint8x16_t bytes) {
    constexpr uint8_t kBits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    uint8x16_t sums = vandq_u8(bytes, vld1q_u8(kBits));
    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);
    sums = vpaddq_u8(sums, sums);  // eight bytes each: the first one is the low half
    return vgetq_lane_u16(vreinterpretq_u16_u8(sums), 0);
}
inline uint8x16_t load16(const char* p) {
    return vld1q_u8(reinterpret_cast<const uint8_t*>(p));
}
inline uint8x16_t equal(uint8x16_t x, char to) {
    return vceqq_u8(x, vdupq_n_u8(static_cast<uint8_t>(to)));
}
inline uint32_t text_end_mask16(const char* p) {
    const uint8x16_t x = load16(p);
    return mask16(vorrq_u8(vorrq_u8(equal(x, '"'), equal(x, '\\')), vcltq_u8(x, vdupq_n_u8(0x20))));
}
inline uint32_t special_mask16(const char* p) {
    const uint8x16_t x = load16(p);
    // with a sign, bytes beyond ASCII are below the control bytes
    const uint8x16_t low = vcltq_s8(vreinterpretq_s8_u8(x), vdupq_n_s8(0x20));
    return mask16(vorrq_u8(vorrq_u8(equal(x, '"'), equal(x, '\\')), low));
}
inline uint32_t structural_mask16(const char* p) {
    const uint8x16_t x = load16(p);
    const uint8x16_t folded = vorrq_u8(x, vdupq_n_u8(0x20));
    const uint8x16_t brackets = vorrq_u8(equal(folded, '{'), equal(folded, '}'));
    const uint8x16_t lines = vorrq_u8(equal(x, '\n'), equal(x, '\r'));
    return mask16(vorrq_u8(vorrq_u8(brackets, lines), equal(x, '"')));
}
#endif

// Skips to the first byte for which ends_text() holds, without looking at UTF-8.
inline const char* find_text_end(const char* p, const char* end) {
#if LLM_MASKS
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
