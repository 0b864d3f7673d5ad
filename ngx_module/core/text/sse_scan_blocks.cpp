// Answers that are one document: most of their bytes mean nothing to us, so they are passed over 64 at a
// time, as bit masks, until a key comes that the tokenizer must see. The masks of quotes and of what lies
// between them are the known ones of G. Langdale, D. Lemire, "Parsing Gigabytes of JSON per Second" (2019).
#include <bit>
#include <cstring>

#include "ngx_module/core/text/sse_scan.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llm::core {

#if defined(__x86_64__)
namespace {

#define LLM_BLOCKS __attribute__((target("avx2,pclmul,popcnt,bmi")))

// 64 bytes, and where in them a byte stands.
struct Block {
    __m256i low;
    __m256i high;
};

LLM_BLOCKS inline Block load_block(const char* p) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
            _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}

LLM_BLOCKS inline uint64_t where(const Block& block, char c) {
    const __m256i wanted = _mm256_set1_epi8(c);
    const auto low = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(block.low, wanted)));
    const auto high = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(block.high, wanted)));
    return uint64_t{high} << 32 | low;
}

LLM_BLOCKS inline uint64_t where(const Block& block, char a, char b) {
    const __m256i one = _mm256_set1_epi8(a);
    const __m256i other = _mm256_set1_epi8(b);
    const __m256i low =
        _mm256_or_si256(_mm256_cmpeq_epi8(block.low, one), _mm256_cmpeq_epi8(block.low, other));
    const __m256i high =
        _mm256_or_si256(_mm256_cmpeq_epi8(block.high, one), _mm256_cmpeq_epi8(block.high, other));
    return uint64_t{static_cast<uint32_t>(_mm256_movemask_epi8(high))} << 32 |
           static_cast<uint32_t>(_mm256_movemask_epi8(low));
}

// Bit i set: the number of set bits up to and with i is odd.
LLM_BLOCKS inline uint64_t parity(uint64_t bits) {
    const __m128i product =
        _mm_clmulepi64_si128(_mm_set_epi64x(0, static_cast<long long>(bits)), _mm_set1_epi8('\xff'), 0);
    return static_cast<uint64_t>(_mm_cvtsi128_si64(product));
}

// Bytes that a backslash in front of them escapes. `carry`: the first byte is one; then, whether the next
// block's first is.
inline uint64_t escaped_bytes(uint64_t backslashes, uint64_t& carry) {
    uint64_t escaped = carry;
    backslashes &= ~carry;
    carry = 0;
    while (backslashes != 0) {  // each begins an escape: the one it escapes has been taken away
        const uint64_t first = backslashes & -backslashes;
        escaped |= first << 1;
        carry = first >> 63;
        backslashes &= ~(first | first << 1);
    }
    return escaped;
}

bool has_blocks() {
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("pclmul") != 0 &&
           __builtin_cpu_supports("popcnt") != 0 && __builtin_cpu_supports("bmi") != 0;
}

}  // namespace

// Passes over the document from `p`, outside of strings and of the usage object, to the first top-level key
// that may matter; or as far as whole blocks reach without reaching the document's end. Leaves the depth at
// the returned place, which is outside of strings again.
LLM_BLOCKS const char* UsageScan::skip_blocks(const char* p, const char* end) {
    static const bool usable = has_blocks();
    if (!usable) {
        return p;
    }
    const char* safe = p;  // the latest block that began outside of strings
    uint32_t safe_depth = depth_;
    uint64_t in_string = 0;  // all bits: the block begins in a string
    uint64_t escape = 0;     // 1: ... and with an escaped byte
    for (; end - p >= 64; p += 64) {
        if (in_string == 0) {
            safe = p;
            safe_depth = depth_;
        }
        const Block block = load_block(p);
        const __m256i backslash = _mm256_set1_epi8('\\');
        const __m256i any_backslash = _mm256_or_si256(_mm256_cmpeq_epi8(block.low, backslash),
                                                      _mm256_cmpeq_epi8(block.high, backslash));
        uint64_t backslashes = 0;
        uint64_t escaped = 0;
        if (escape != 0 || !_mm256_testz_si256(any_backslash, any_backslash)) {
            backslashes = where(block, '\\');
            escaped = escaped_bytes(backslashes, escape);
        }
        const uint64_t quotes = where(block, '"') & ~escaped;
        const uint64_t text =
            parity(quotes) ^ in_string;  // from each opening quote to before the closing one
        const Block folded = {_mm256_or_si256(block.low, _mm256_set1_epi8(0x20)),
                              _mm256_or_si256(block.high, _mm256_set1_epi8(0x20))};
        const uint64_t opening = where(folded, '{') & ~text;  // bit 5 turns brackets into braces
        const uint64_t closing = where(folded, '}') & ~text;
        const auto closed = static_cast<uint32_t>(std::popcount(closing));
        if (closed >= depth_ || (backslashes & ~text) != 0) {
            break;  // the end of the document is near, or this is no JSON
        }
        // strings that begin with the first letter of `usage` or `error`, or at the block's very end
        const uint64_t letters = where(block, 'u', 'e');
        for (uint64_t names = quotes & text & (letters >> 1 | 1ull << 63); names != 0; names &= names - 1) {
            const int at = std::countr_zero(names);
            const uint64_t before = (1ull << at) - 1;
            const uint32_t depth = depth_ + static_cast<uint32_t>(std::popcount(opening & before)) -
                                   static_cast<uint32_t>(std::popcount(closing & before));
            const char* const name = p + at;
            if (depth == 1 && (end - name < 7 || std::memcmp(name, "\"usage\"", 7) == 0 ||
                               std::memcmp(name, "\"error\"", 7) == 0)) {
                depth_ = depth;
                return name;
            }
        }
        depth_ += static_cast<uint32_t>(std::popcount(opening)) - closed;
        in_string = static_cast<uint64_t>(static_cast<int64_t>(text) >> 63);
    }
    if (in_string == 0 && end - p < 64) {
        return p;
    }
    depth_ = safe_depth;
    return safe;
}

#undef LLM_BLOCKS

#else

const char* UsageScan::skip_blocks(const char* p, const char*) {
    return p;
}

#endif  // __x86_64__

}  // namespace llm::core
