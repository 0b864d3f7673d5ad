// What Python's str does with text, on UTF-8: positions count code points.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llm::engine::jinja {

// str.isspace(), what strip() and split() go by.
bool is_python_space(char32_t code_point);

std::string_view left_strip(std::string_view text);
std::string_view right_strip(std::string_view text);
// strip(chars): without any of the code points of `chars`.
std::string_view left_strip(std::string_view text, std::string_view chars);
std::string_view right_strip(std::string_view text, std::string_view chars);

size_t length(std::string_view text);
// Byte offset of code point `index` (the size when past the end).
size_t byte_offset(std::string_view text, size_t index);
std::vector<std::string_view> characters(std::string_view text);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title()
std::string swap_case(std::string_view text);

// split() at white space and split(separator), at most `limit` cuts (-1 = all); from the right when asked.
std::vector<std::string_view> split_space(std::string_view text, int64_t limit, bool from_right);
std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t limit,
                                       bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);

// replace(old, new, count); count -1 = all. `limit` bounds the result: nullopt past it.
std::optional<std::string> replace(std::string_view text, std::string_view from, std::string_view to,
                                   int64_t count, size_t limit);

// ljust, rjust and center.
std::string pad(std::string_view text, size_t width, std::string_view fill, char side);

// With & < > ' " as entities, as markupsafe writes them.
std::string escape_html(std::string_view text);

enum class TextClass {
    kAlpha,
    kAlnum,
    kDigit,
    kDecimal,
    kNumeric,
    kSpace,
    kLower,
    kUpper,
    kTitle,
    kAscii,
    kPrintable
};
// isalpha() and its kin.
bool is_class(std::string_view text, TextClass wanted);

// int(text, base) and float(text); nullopt where Python raises ValueError.
std::optional<int64_t> parse_integer(std::string_view text, int base);
std::optional<double> parse_float(std::string_view text);

}  // namespace llm::engine::jinja
