// Hexadecimal digits, one at a time.
#pragma once

namespace llm {

// 0..15, or -1 when `c` is no hexadecimal digit (either case).
constexpr int hex_value(char c) {
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c = static_cast<char>(c | 0x20);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

// The lower-case digit of the lowest four bits.
constexpr char hex_digit(unsigned value) {
    return "0123456789abcdef"[value & 15];
}

}  // namespace llm
