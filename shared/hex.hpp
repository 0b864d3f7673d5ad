// The value of one hexadecimal digit.
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

}  // namespace llm
