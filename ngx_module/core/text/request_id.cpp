#include "ngx_module/core/text/request_id.hpp"

#include <bit>
#include <cstring>

namespace llm::core {
namespace {

bool is_id_byte(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == ':' || c == '-';
}

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
    for (size_t i = 0; i < random.size(); i += 4) {
        write_hex(random.data() + i, text.data() + 2 * i);
    }
    return text;
}

}  // namespace llm::core
