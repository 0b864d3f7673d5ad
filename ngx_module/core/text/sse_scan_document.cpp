// Answers that are one document: most of their bytes mean nothing to us, so they are passed over 64 at a
// time, as bit masks, until a key comes that the tokenizer must see. The masks of quotes and of what lies
// between them are the known ones of G. Langdale, D. Lemire, "Parsing Gigabytes of JSON per Second" (2019).
#include <bit>
#include <cstring>

#include "ngx_module/core/text/avx2.hpp"
#include "ngx_module/core/text/sse_scan.hpp"
#include "ngx_module/core/text/string_skip.hpp"
#include "ngx_module/core/text/words.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace llm::core {

#if defined(__x86_64__)
namespace {

#define LLM_BLOCKS __attribute__((target("avx2,pclmul,popcnt,bmi")))

constexpr Every kQuote = every('"');
constexpr Every kBackslash = every('\\');
constexpr Every kBraceBit = every(0x20);  // turns brackets into braces
constexpr Every kOpening = every('{');
constexpr Every kClosing = every('}');
constexpr Every kLetterBit = every(0x10);  // turns `e` into `u`, and nothing else
constexpr Every kLetter = every('u');

// Where in the 64 bytes `low` and `high` this byte stands.
LLM_BLOCKS inline uint64_t where(__m256i low, __m256i high, __m256i wanted) {
    const auto first = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(low, wanted)));
    const auto second = static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(high, wanted)));
    return uint64_t{second} << 32 | first;
}

LLM_BLOCKS inline bool is_anywhere(__m256i low, __m256i high, __m256i wanted) {
    const __m256i any = _mm256_or_si256(_mm256_cmpeq_epi8(low, wanted), _mm256_cmpeq_epi8(high, wanted));
    return !_mm256_testz_si256(any, any);
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

// Whether a backslash escapes the byte at `p`, which is in a string that begins before.
bool is_escaped(const char* p) {
    bool escaped = false;
    while (*--p == '\\') {
        escaped = !escaped;
    }
    return escaped;
}

// Found out when this library is loaded: skip_blocks() is left without a call that way, and needs no stack.
const bool kHasBlocks = [] {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("pclmul") != 0 &&
           __builtin_cpu_supports("popcnt") != 0 && __builtin_cpu_supports("bmi") != 0;
}();

// Whether the string that begins with the quote at `name` may be `usage` or `error`.
inline bool may_matter(const char* name, const char* end) {
    return end - name < 7 || (is4(name, "\"usa") && is4(name + 3, "age\"")) ||
           (is4(name, "\"err") && is4(name + 3, "ror\""));
}

}  // namespace

// Passes over the document from `p`, outside of strings and of the usage object, to the first top-level key
// that may matter; or as far as whole blocks reach without reaching the document's end. Leaves depth_ and
// token_ as they are at the returned place.
LLM_BLOCKS const char* UsageScan::skip_blocks(const char* p, const char* end) {
    if (!kHasBlocks) {
        return p;
    }
    const __m256i quote = vector_of(kQuote);
    const __m256i backslash = vector_of(kBackslash);
    const __m256i brace_bit = vector_of(kBraceBit);
    const __m256i opening_brace = vector_of(kOpening);
    const __m256i closing_brace = vector_of(kClosing);
    const __m256i letter_bit = vector_of(kLetterBit);
    const __m256i letter = vector_of(kLetter);
    uint32_t depth = depth_;
    uint64_t in_string = 0;  // all bits: the block begins in a string
    uint64_t escape = 0;     // 1: ... and with an escaped byte
    for (; fits(64, p, end); p += 64) {
        const __m256i low = load(p);
        const __m256i high = load(p + 32);
        uint64_t quotes = where(low, high, quote);
        if (is_anywhere(low, high, backslash) || escape != 0) [[unlikely]] {
            const uint64_t backslashes = where(low, high, backslash);
            quotes &= ~escaped_bytes(backslashes, escape);
            if ((backslashes & ~(parity(quotes) ^ in_string)) != 0) {
                break;  // outside of strings: this is no JSON
            }
        }
        const uint64_t text =
            parity(quotes) ^ in_string;  // from each opening quote to before the closing one
        const __m256i low_braces = _mm256_or_si256(low, brace_bit);
        const __m256i high_braces = _mm256_or_si256(high, brace_bit);
        const uint64_t opening = where(low_braces, high_braces, opening_brace) & ~text;
        const uint64_t closing = where(low_braces, high_braces, closing_brace) & ~text;
        const auto closed = static_cast<uint32_t>(std::popcount(closing));
        if (closed >= depth) {
            break;  // the end of the document is near
        }
        // strings that begin with the first letter of `usage` or `error`, or at the block's very end
        const uint64_t letters =
            where(_mm256_or_si256(low, letter_bit), _mm256_or_si256(high, letter_bit), letter);
        uint64_t names = quotes & text & (letters >> 1 | 1ull << 63);
        while (names != 0) {
            const uint64_t before = names ^ (names - 1);  // and the quote itself
            const uint32_t here = depth + static_cast<uint32_t>(std::popcount(opening & before)) -
                                  static_cast<uint32_t>(std::popcount(closing & before));
            if (const char* const name = p + std::countr_zero(names); here == 1 && may_matter(name, end)) {
                depth_ = here;
                return name;
            }
            names &= names - 1;
        }
        depth += static_cast<uint32_t>(std::popcount(opening)) - closed;
        in_string = static_cast<uint64_t>(static_cast<int64_t>(text) >> 63);
    }
    depth_ = depth;
    if (in_string != 0) {
        key_size_ = kNoKey;  // no key that matters: those were looked at where they begin
        token_ = is_escaped(p) ? Token::escape : Token::string;
    }
    return p;
}

#undef LLM_BLOCKS

#else

const char* UsageScan::skip_blocks(const char* p, const char*) {
    return p;
}

#endif  // __x86_64__

namespace {

constexpr ptrdiff_t kUsageHead = sizeof("\"usage\":") - 1;
constexpr ptrdiff_t kUsageMember = sizeof("\"completion_tokens\":") - 1;  // the longest key of the usual ones

inline void skip_blank(const char*& p) {
    if (*p == ' ') [[unlikely]] {
        ++p;
    }
}

}  // namespace

// Bytes of an answer that is one document.
void UsageScan::document_bytes(const char* p, const char* end) {
    if (p == end) {
        return;
    }
    if (token_ == Token::outside && !in_usage_) {
        if (depth_ == 0 && *p == '{') {
            depth_ = 1;
            ++p;
        }
        if (depth_ != 0) {
            p = skip_blocks(p, end);
        }
        if (depth_ == 1 && token_ == Token::outside) {
            p = whole_usage(p, end);
            if (p != end && *p == '}') {
                close_bracket();
                ++p;
            }
        }
    }
    if (p != end) {
        document_rest(p, end);
    }
}

// The same, token by token.
[[gnu::noinline]] void UsageScan::document_rest(const char* p, const char* end) {
    constexpr size_t kRoom = 48;
    char copy[256];
    const auto left = static_cast<size_t>(end - p);
    size_t room = 0;
    if (left <= sizeof(copy) - kRoom) {
        // the end, mostly: with room behind it, its short strings are read in one step
        std::memcpy(copy, p, left);
        std::memset(copy + left, 0, kRoom);
        p = copy;
        end = copy + left;
        room = kRoom;
    }
    while (p < end) {
        p = json_bytes(p, end, room);
    }
}

// The member `usage` that begins at `p`, when it is of the usual form: integers and objects of integers, no
// more white space than a blank. Behind it; or `p`, with nothing done.
const char* UsageScan::whole_usage(const char* p, const char* end) {
    const char* const begin = p;
    // With a brace at the very end, digits and the like need no look at where that is.
    if (end - p < kUsageHead + kUsageMember || end[-1] != '}' || !is8(p, "\"usage\":")) {
        return begin;
    }
    p += kUsageHead;
    skip_blank(p);
    if (*p++ != '{') {
        return begin;
    }
    Counts found = usage_.value_or(Counts{});
    bool counted = false;
    uint32_t depth = 1;
    for (;;) {
        Key key = Key::none;
        skip_blank(p);
        p = count_member(p, end, depth == 1, key);
        if (p == nullptr) {
            return begin;
        }
        skip_blank(p);
        const char* const digits = p;
        uint64_t number = 0;
        for (uint32_t digit; (digit = static_cast<uint8_t>(*p) - uint32_t{'0'}) <= 9; ++p) {
            number = number * 10 + digit;
        }
        if (const auto size = static_cast<size_t>(p - digits); size - 1 < 15) [[likely]] {
            if (key != Key::none) {
                counted = true;
                found.put(key, number);
            }
        } else if (size != 0) {
            return begin;  // nonsense, which saturates in count_bytes()
        } else if (*p == '{') {
            ++depth;
            if (*++p != '}') {
                continue;
            }
        } else if (end - p > 4 && is4(p, "null")) {
            p += 4;
        } else {
            return begin;
        }
        while (*p == '}') {
            ++p;
            if (--depth == 0) {
                event_usage_ = true;
                if (counted) {
                    usage_ = found;
                }
                return p;
            }
            if (p == end) {
                return begin;
            }
        }
        if (*p++ != ',') {
            return begin;
        }
    }
}

// The key at `p` in a usage object, and its colon: behind them, and what it means; nullptr if there is none.
inline const char* UsageScan::count_member(const char* p, const char* end, bool innermost, Key& key) const {
    if (p <= end - kUsageMember && innermost) [[likely]] {  // the usual ones, in two or three steps
        if (is8(p, "\"prompt_") && is8(p + 8, "tokens\":")) {
            key = Key::prompt_tokens;
            return p + 16;
        }
        if (is8(p, "\"complet") && is8(p + 8, "ion_toke") && is4(p + 16, "ns\":")) {
            key = Key::completion_tokens;
            return p + 20;
        }
        if (is8(p, "\"total_t") && is8(p + 7, "tokens\":")) {
            return p + 15;
        }
    }
    const char* const stop = *p == '"' ? find_text_end(p + 1, end) : end;
    if (end - stop < 2 || !is2(stop, "\":")) {
        return nullptr;
    }
    key = count_key({p + 1, static_cast<size_t>(stop - (p + 1))}, innermost);
    return stop + 2;
}

}  // namespace llm::core
