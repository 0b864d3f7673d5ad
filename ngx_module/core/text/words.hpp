// Short texts as numbers, so that names are compared in one or two steps instead of byte by byte. Internal to
// core/text.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

namespace llm::core {

// Eight, four or two bytes, in memory order. A number at compile time, always.
struct Word8 {
    uint64_t value;
    consteval Word8(const char (&text)[9])
        : value(std::bit_cast<uint64_t>(std::array<char, 8>{text[0], text[1], text[2], text[3], text[4],
                                                            text[5], text[6], text[7]})) {}
};
struct Word4 {
    uint32_t value;
    consteval Word4(const char (&text)[5])
        : value(std::bit_cast<uint32_t>(std::array<char, 4>{text[0], text[1], text[2], text[3]})) {}
};
struct Word2 {
    uint16_t value;
    consteval Word2(const char (&text)[3])
        : value(std::bit_cast<uint16_t>(std::array<char, 2>{text[0], text[1]})) {}
};

// Whether the bytes at `p` are these.
inline bool is8(const char* p, Word8 word) {
    uint64_t bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    return bytes == word.value;
}
inline bool is4(const char* p, Word4 word) {
    uint32_t bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    return bytes == word.value;
}
inline bool is2(const char* p, Word2 word) {
    uint16_t bytes;
    std::memcpy(&bytes, p, sizeof(bytes));
    return bytes == word.value;
}

}  // namespace llm::core
