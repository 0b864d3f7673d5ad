// UTF-8 and the few Unicode properties that tokenizers ask for. Everything here works on bytes; a "char" of
// the reference library is one code point.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace llm::engine::unicode {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

// Length in bytes (1..4) of the well-formed sequence at `text[at]`, or 0 when there is none. On 0, `*bad`
// (when given) is how many bytes one U+FFFD stands for (Unicode 3.9, "maximal subpart"; what Rust and Python
// replace).
size_t sequence_length(std::string_view text, size_t at, size_t* bad = nullptr);

// Bytes of a well-formed sequence by its first byte, for text already known to be valid.
inline size_t lead_length(unsigned char lead) {
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// The code point at `text[at]` of valid text; moves `at` past it.
char32_t next_code_point(std::string_view text, size_t& at);

void append_utf8(std::string& out, char32_t code_point);

bool is_valid_utf8(std::string_view text);

// `text` with every ill-formed maximal subpart replaced by U+FFFD.
std::string to_valid_utf8(std::string_view text);

// How many bytes at the end of `text` are the beginning of a character that later bytes may complete (0..3).
size_t incomplete_tail(std::string_view text);

bool is_ascii(std::string_view text);

// The canonical or compatibility form of valid UTF-8 (ICU). O(text).
std::string normalize(std::string_view text, NormalForm form);

// Code point by code point to lower case, context-free as Rust's char::to_lowercase.
std::string to_lower(std::string_view text);

bool is_white_space(char32_t code_point);  // property White_Space
bool is_word(char32_t code_point);         // \w of UTS #18: Alphabetic, M, Nd, Pc, Join_Control

// Where the white space that ends `text` begins; how many bytes of white space begin `text`.
size_t trailing_space_begin(std::string_view text);
size_t leading_space_length(std::string_view text);

// Whether valid `text` begins / ends with a word character. False when empty.
bool starts_with_word(std::string_view text);
bool ends_with_word(std::string_view text);

}  // namespace llm::engine::unicode
