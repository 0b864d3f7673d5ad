#include "ngx_module/core/text/request_id.hpp"

#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace llm::core {
namespace {

bool is_id_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '-';
}

#if defined(__x86_64__)
// Sixteen bytes below 16 as lower-case digits.
__m128i hex_digits(__m128i values) {
    const __m128i letters = _mm_cmpgt_epi8(values, _mm_set1_epi8(9));
    return _mm_add_epi8(_mm_add_epi8(values, _mm_set1_epi8('0')),
                        _mm_and_si128(letters, _mm_set1_epi8('a' - '0' - 10)));
}

void write_all(const uint8_t* bytes, char* text) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
    const __m128i low_bits = _mm_set1_epi8(0x0f);
    const __m128i high = _mm_and_si128(_mm_srli_epi16(x, 4), low_bits);
    const __m128i low = _mm_and_si128(x, low_bits);
    auto* const out = reinterpret_cast<__m128i*>(text);
    _mm_storeu_si128(out, hex_digits(_mm_unpacklo_epi8(high, low)));
    _mm_storeu_si128(out + 1, hex_digits(_mm_unpackhi_epi8(high, low)));
}
#else
// Four bytes as eight lower-case digits, all at once: a byte of `digits` per digit.
void write_hex(const uint8_t* bytes, char* text) {
    const uint64_t spread =
        bytes[0] | uint64_t{bytes[1]} << 16 | uint64_t{bytes[2]} << 32 | uint64_t{bytes[3]} << 48;
    const uint64_t digits = (spread >> 4 & 0x000f000f000f000f) | (spread & 0x000f000f000f000f) << 8;
    const uint64_t letters = (digits + 0x0606060606060606) >> 4 & 0x0101010101010101;  // 10 and more
    const uint64_t out = digits + 0x3030303030303030 + letters * ('a' - '0' - 10);
    static_assert(std::endian::native == std::endian::little);
    std::memcpy(text, &out, sizeof(out));
}

void write_all(const uint8_t* bytes, char* text) {
    for (size_t i = 0; i < 16; i += 4) {
        write_hex(bytes + i, text + 2 * i);
    }
}
#endif

}  // namespace

bool valid_request_id(std::string_view id) {
    if (id.empty() || id.size() > kMaxRequestId) {
        return false;
    }
    for (char c : id) {
        if (!is_id_byte(c)) {
            return false;
        }
    }
    return true;
}

std::array<char, 32> format_request_id(std::span<const uint8_t, 16> random) {
    std::array<char, 32> text;
    write_all(random.data(), text.data());
    return text;
}

}  // namespace llm::core
