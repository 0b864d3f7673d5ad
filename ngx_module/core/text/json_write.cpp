#include "ngx_module/core/text/json_write.hpp"

#include <charconv>
#include <cstring>

#include "shared/hex.hpp"

namespace llm::core {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD

// One step of the escaper: `taken` bytes of the input become `out`.
struct Unit {
    size_t taken;
    std::string_view out;
};

// Length of a valid UTF-8 sequence at the front of `text` (first byte >= 0x80); or, negated, of the maximal
// invalid part that is to be replaced as one. Table 3-7 of the Unicode standard.
int utf8_sequence(std::string_view text) {
    const auto at = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
    const uint8_t lead = at(0);
    uint8_t low = 0x80;
    uint8_t high = 0xbf;
    size_t need;
    if (lead >= 0xc2 && lead <= 0xdf) {
        need = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        need = 2;
        low = lead == 0xe0 ? 0xa0 : 0x80;
        high = lead == 0xed ? 0x9f : 0xbf;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        need = 3;
        low = lead == 0xf0 ? 0x90 : 0x80;
        high = lead == 0xf4 ? 0x8f : 0xbf;
    } else {
        return -1;
    }
    for (size_t i = 1; i <= need; ++i) {
        if (i >= text.size() || at(i) < low || at(i) > high) {
            return -static_cast<int>(i);
        }
        low = 0x80;
        high = 0xbf;
    }
    return static_cast<int>(need + 1);
}

// The escape of the first character of `text` (not empty). `scratch` holds \u00XX where that is needed.
Unit next_unit(std::string_view text, char (&scratch)[6]) {
    const char c = text[0];
    switch (c) {
        case '"':
            return {1, "\\\""};
        case '\\':
            return {1, "\\\\"};
        case '\n':
            return {1, "\\n"};
        case '\r':
            return {1, "\\r"};
        case '\t':
            return {1, "\\t"};
        default:
            break;
    }
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x20 || byte == 0x7f) {
        std::memcpy(scratch, "\\u00", 4);
        scratch[4] = hex_digit(byte >> 4);
        scratch[5] = hex_digit(byte);
        return {1, {scratch, 6}};
    }
    if (byte < 0x80) {
        return {1, text.substr(0, 1)};
    }
    const int size = utf8_sequence(text);
    if (size < 0) {
        return {static_cast<size_t>(-size), kReplacement};
    }
    return {static_cast<size_t>(size), text.substr(0, static_cast<size_t>(size))};
}

}  // namespace

size_t JsonWriter::escaped_size(std::string_view text) {
    char scratch[6];
    size_t size = 2;
    while (!text.empty()) {
        const Unit unit = next_unit(text, scratch);
        size += unit.out.size();
        text.remove_prefix(unit.taken);
    }
    return size;
}

JsonWriter& JsonWriter::raw(std::string_view text) {
    if (!ok_ || text.size() > capacity_ - size_) {
        ok_ = false;
        return *this;
    }
    if (!text.empty()) {
        std::memcpy(buffer_ + size_, text.data(), text.size());
    }
    size_ += text.size();
    return *this;
}

JsonWriter& JsonWriter::string(std::string_view text) {
    if (!ok_ || escaped_size(text) > capacity_ - size_) {
        ok_ = false;
        return *this;
    }
    raw("\"");
    char scratch[6];
    while (!text.empty()) {
        const Unit unit = next_unit(text, scratch);
        raw(unit.out);
        text.remove_prefix(unit.taken);
    }
    return raw("\"");
}

JsonWriter& JsonWriter::number(int64_t value) {
    char digits[20];
    const auto [end, error] = std::to_chars(digits, digits + sizeof(digits), value);
    static_cast<void>(error);  // 20 bytes hold every int64
    return raw({digits, static_cast<size_t>(end - digits)});
}

}  // namespace llm::core
