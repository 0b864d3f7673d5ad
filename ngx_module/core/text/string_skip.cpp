#include "ngx_module/core/text/string_skip.hpp"

#include <array>
#include <atomic>

#include "ngx_module/core/text/avx2.hpp"

namespace llm::core {
namespace {

bool is_high(char c) {
    return static_cast<uint8_t>(c) >= 0x80;
}

// One multi-byte character at `p`. Sets `valid` to false if it is none; returns `p` itself then, and also if
// the bytes up to `end` are the beginning of one.
const char* skip_character(const char* p, const char* end, bool& valid) {
    const Utf8Lead lead = utf8_lead(static_cast<uint8_t>(*p));
    uint8_t low = lead.low;
    uint8_t high = lead.high;
    valid = lead.need != 0;
    for (int i = 1; valid && i <= lead.need; ++i) {
        if (p + i == end) {
            return p;
        }
        const auto byte = static_cast<uint8_t>(p[i]);
        valid = byte >= low && byte <= high;
        low = 0x80;
        high = 0xbf;
    }
    return valid ? p + lead.need + 1 : p;
}

SkippedText skip_scalar(const char* p, const char* end) {
    while (p < end && !ends_text(*p)) {
        if (!is_high(*p)) {
            ++p;
            continue;
        }
        bool valid = true;
        const char* const next = skip_character(p, end, valid);
        if (next == p) {
            return {p, valid};
        }
        p = next;
    }
    return {p, true};
}

#if LLM_MASKS

// What is left when fewer than 16 bytes are: they are looked at together with those in front of them, which
// begin at or behind `begin`.
SkippedText skip_last(const char* begin, const char* p, const char* end) {
    if (p < end && end - begin >= 16) {
        const uint32_t special = special_mask16(end - 16) >> (16 - (end - p));
        if (special == 0) {
            return {end, true};
        }
        p += std::countr_zero(special);
        if (!is_high(*p)) {
            return {p, true};
        }
    }
    return skip_scalar(p, end);
}

SkippedText skip_from(const char* begin, const char* p, const char* end) {
    while (end - p >= 16) {
        const uint32_t special = special_mask16(p);
        if (special == 0) {
            p += 16;
            continue;
        }
        p += std::countr_zero(special);
        // Characters beyond ASCII come in groups: stay with them until the next ASCII byte.
        while (p < end && is_high(*p)) {
            bool valid = true;
            const char* const next = skip_character(p, end, valid);
            if (next == p) {
                return {p, valid};
            }
            p = next;
        }
        if (p < end && ends_text(*p)) {
            return {p, true};
        }
    }
    return skip_last(begin, p, end);
}

SkippedText skip_baseline(const char* p, const char* end) {
    return skip_from(p, p, end);
}

#endif  // LLM_MASKS

#if defined(__x86_64__)

// UTF-8 by table look-up: J. Keiser, D. Lemire, "Validating UTF-8 In Less Than One Instruction Per Byte"
// (2021). Every error that two adjacent bytes can show is a rule over three nibbles: both of the first byte,
// the upper one of the second. A rule owns one bit; a nibble's table entry has the bits of the rules it
// satisfies; the AND of the three entries is the set of errors at that place. What remains, a third or fourth
// byte that is missing or too many, is found by comparing kTwoContinuations with where the lead bytes two and
// three places before demand it.
struct PairRule {
    uint16_t first_high;   // bit i: upper nibble i of the first byte
    uint16_t first_low;    // bit i: lower nibble i of the first byte
    uint16_t second_high;  // bit i: upper nibble i of the second byte
};

constexpr uint16_t nibbles(int from, int to) {
    uint16_t set = 0;
    for (int i = from; i <= to; ++i) {
        set = static_cast<uint16_t>(set | 1u << i);
    }
    return set;
}

constexpr uint16_t kAny = 0xffff;
constexpr uint16_t kContinuation = nibbles(0x8, 0xb);
constexpr std::array<PairRule, 8> kPairRules = {{
    {nibbles(0xc, 0xf), kAny, static_cast<uint16_t>(~kContinuation)},  // lead, then no continuation
    {nibbles(0x0, 0x7), kAny, kContinuation},                          // ASCII, then a continuation
    {nibbles(0xc, 0xc), nibbles(0x0, 0x1), kContinuation},             // C0, C1: overlong
    {nibbles(0xe, 0xe), nibbles(0x0, 0x0), nibbles(0x8, 0x9)},         // E0 80..9F: overlong
    {nibbles(0xe, 0xe), nibbles(0xd, 0xd), nibbles(0xa, 0xb)},         // ED A0..BF: surrogate
    {nibbles(0xf, 0xf), nibbles(0x4, 0xf), nibbles(0x9, 0xb)},         // F4 90.., F5..: too large
    {nibbles(0xf, 0xf), static_cast<uint16_t>(nibbles(0, 0) | nibbles(5, 15)),
     nibbles(0x8, 0x8)},                   // F0 8x: overlong; F5.. 8x
    {kContinuation, kAny, kContinuation},  // two continuations: an error unless demanded; must be bit 7
}};

using NibbleTable = std::array<uint8_t, 16>;

constexpr NibbleTable nibble_table(uint16_t PairRule::*part) {
    NibbleTable table{};
    for (size_t nibble = 0; nibble < 16; ++nibble) {
        for (size_t rule = 0; rule < kPairRules.size(); ++rule) {
            if ((kPairRules[rule].*part >> nibble) & 1) {
                table[nibble] = static_cast<uint8_t>(table[nibble] | 1u << rule);
            }
        }
    }
    return table;
}

constexpr NibbleTable kFirstHigh = nibble_table(&PairRule::first_high);
constexpr NibbleTable kFirstLow = nibble_table(&PairRule::first_low);
constexpr NibbleTable kSecondHigh = nibble_table(&PairRule::second_high);

LLM_AVX2 __m256i both_halves(const NibbleTable& table) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table.data())));
}

LLM_AVX2 uint32_t text_end_mask32(__m256i x) {
    const __m256i quote = _mm256_cmpeq_epi8(x, _mm256_set1_epi8('"'));
    const __m256i backslash = _mm256_cmpeq_epi8(x, _mm256_set1_epi8('\\'));
    const __m256i control = _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(0x1f)), x);
    return static_cast<uint32_t>(
        _mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(quote, backslash), control)));
}

// The 32 bytes that end N before those of `x`, `before` being the block in front of it.
template <int N>
LLM_AVX2 __m256i shifted(__m256i x, __m256i before) {
    return _mm256_alignr_epi8(x, _mm256_permute2x128_si256(before, x, 0x21), 16 - N);
}

// Not zero where the block `x`, preceded by `before`, breaks UTF-8. An unfinished character at the end of `x`
// shows only in the next block.
LLM_AVX2 __m256i utf8_errors(__m256i x, __m256i before) {
    const __m256i low_nibble = _mm256_set1_epi8(0x0f);
    const __m256i previous = shifted<1>(x, before);
    const __m256i first_high = _mm256_shuffle_epi8(
        both_halves(kFirstHigh), _mm256_and_si256(_mm256_srli_epi16(previous, 4), low_nibble));
    const __m256i first_low =
        _mm256_shuffle_epi8(both_halves(kFirstLow), _mm256_and_si256(previous, low_nibble));
    const __m256i second_high =
        _mm256_shuffle_epi8(both_halves(kSecondHigh), _mm256_and_si256(_mm256_srli_epi16(x, 4), low_nibble));
    const __m256i pair = _mm256_and_si256(_mm256_and_si256(first_high, first_low), second_high);
    // Bit 7 where the byte two before leads three bytes or more, or the byte three before leads four.
    const __m256i third = _mm256_subs_epu8(shifted<2>(x, before), _mm256_set1_epi8(0xe0 - 0x80));
    const __m256i fourth = _mm256_subs_epu8(shifted<3>(x, before), _mm256_set1_epi8(0xf0 - 0x80));
    const __m256i demanded =
        _mm256_and_si256(_mm256_or_si256(third, fourth), _mm256_set1_epi8(static_cast<char>(0x80)));
    return _mm256_xor_si256(pair, demanded);
}

// Where the character begins that is not complete before `p` (at most three bytes before), or `p`. Bytes that
// lead no character (C0, F5, ...) count as incomplete too: what is wrong with them shows only in the pair
// with their successor.
const char* incomplete_start(const char* begin, const char* p) {
    for (int back = 1; back <= 3 && p - back >= begin && is_high(p[-back]); ++back) {
        const auto byte = static_cast<uint8_t>(p[-back]);
        if (byte >= 0xc0) {
            const int size = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
            return size > back ? p - back : p;
        }
    }
    return p;
}

// 32 bytes of ones, then 32 of zeros: loaded at 32 - n it keeps the first n bytes of a block.
constexpr std::array<uint8_t, 64> kKeepMask = [] {
    std::array<uint8_t, 64> mask{};
    for (size_t i = 0; i < 32; ++i) {
        mask[i] = 0xff;
    }
    return mask;
}();

// From the first block with a byte beyond ASCII to the end of the run. Errors are collected, not branched on.
__attribute__((target("avx2"))) SkippedText skip_utf8_avx2(const char* p, const char* end) {
    const char* const begin = p;
    __m256i before = _mm256_setzero_si256();
    __m256i errors = _mm256_setzero_si256();
    while (end - p >= 32) {
        __m256i x = load(p);
        const uint32_t stop = text_end_mask32(x);
        if (stop != 0) {
            const int size = std::countr_zero(stop);
            x = _mm256_and_si256(x, load(reinterpret_cast<const char*>(kKeepMask.data()) + 32 - size));
            errors = _mm256_or_si256(errors, utf8_errors(x, before));
            return _mm256_testz_si256(errors, errors) ? SkippedText{p + size, true} : skip_scalar(begin, end);
        }
        errors = _mm256_or_si256(errors, utf8_errors(x, before));
        before = x;
        p += 32;
    }
    if (!_mm256_testz_si256(errors, errors)) {
        return skip_scalar(begin, end);  // find the place
    }
    return skip_from(begin, incomplete_start(begin, p), end);
}

constexpr Every kFlip = every(2);
constexpr Every kText = every(0x21);
constexpr Every kBackslash = every('\\');

// special_mask16() of 32 bytes.
LLM_AVX2 uint32_t special_mask32(const char* p, __m256i flip, __m256i text, __m256i backslash) {
    const __m256i x = load(p);
    const __m256i low = _mm256_subs_epi8(_mm256_xor_si256(x, flip), text);
    return static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_or_si256(_mm256_cmpeq_epi8(x, backslash), low)));
}

__attribute__((target("avx2"))) SkippedText skip_avx2(const char* p, const char* end) {
    if (end - p < 32) {
        return skip_from(p, p, end);
    }
    const __m256i flip = vector_of(kFlip);
    const __m256i text = vector_of(kText);
    const __m256i backslash = vector_of(kBackslash);
    // Long texts, mostly: four vectors at a time while there is nothing but ASCII that needs no look. As in
    // special_mask16(), with the least of four bytes.
    for (; fits(128, p, end); p += 128) {
        const __m256i a = load(p);
        const __m256i b = load(p + 32);
        const __m256i c = load(p + 64);
        const __m256i d = load(p + 96);
        const __m256i least =
            _mm256_min_epi8(_mm256_min_epi8(_mm256_xor_si256(a, flip), _mm256_xor_si256(b, flip)),
                            _mm256_min_epi8(_mm256_xor_si256(c, flip), _mm256_xor_si256(d, flip)));
        const __m256i slash = _mm256_or_si256(
            _mm256_or_si256(_mm256_cmpeq_epi8(a, backslash), _mm256_cmpeq_epi8(b, backslash)),
            _mm256_or_si256(_mm256_cmpeq_epi8(c, backslash), _mm256_cmpeq_epi8(d, backslash)));
        const __m256i special = _mm256_or_si256(slash, _mm256_cmpgt_epi8(text, least));
        if (!_mm256_testz_si256(special, special)) {
            break;
        }
    }
    for (; fits(32, p, end); p += 32) {
        const uint32_t special = special_mask32(p, flip, text, backslash);
        if (special != 0) {
            const char* const first = p + std::countr_zero(special);
            return is_high(*first) ? skip_utf8_avx2(p, end) : SkippedText{first, true};
        }
    }
    if (p == end) {
        return {end, true};
    }
    // the last 32 bytes, of which some were looked at before
    const uint32_t special = special_mask32(end - 32, flip, text, backslash) >> (32 - (end - p));
    if (special == 0) {
        return {end, true};
    }
    const char* const first = p + std::countr_zero(special);
    return is_high(*first) ? skip_from(p, p, end) : SkippedText{first, true};
}

bool has_avx2() {
    return __builtin_cpu_supports("avx2") != 0;
}

#endif  // __x86_64__

using SkipFunction = SkippedText (*)(const char*, const char*);

SkipFunction best_kernel() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    return has_avx2() ? skip_avx2 : skip_baseline;
#elif LLM_MASKS
    return skip_baseline;
#else
    return skip_scalar;
#endif
}

SkippedText choose_and_skip(const char* p, const char* end);

// Replaced by the first call; two threads that race store the same value.
constinit std::atomic<SkipFunction> g_skip{choose_and_skip};

SkippedText choose_and_skip(const char* p, const char* end) {
    const SkipFunction kernel = best_kernel();
    g_skip.store(kernel, std::memory_order_relaxed);
    return kernel(p, end);
}

}  // namespace

SkippedText skip_text(const char* p, const char* end) {
    return g_skip.load(std::memory_order_relaxed)(p, end);
}

bool skip_text_with(SkipKernel kernel, const char* p, const char* end, SkippedText& result) {
    if (kernel == SkipKernel::scalar) {
        result = skip_scalar(p, end);
        return true;
    }
#if LLM_MASKS
    if (kernel == SkipKernel::baseline) {
        result = skip_baseline(p, end);
        return true;
    }
#endif
#if defined(__x86_64__)
    if (has_avx2()) {
        result = skip_avx2(p, end);
        return true;
    }
#endif
    return false;
}

bool is_valid_utf8(std::string_view text) {
    const char* p = text.data();
    const char* const end = p + text.size();
    while (p < end) {
        const SkippedText run = skip_text(p, end);
        if (run.stop == end) {
            break;
        }
        if (!run.valid || !ends_text(*run.stop)) {
            return false;
        }
        p = run.stop + 1;
    }
    return true;
}

}  // namespace llm::core
