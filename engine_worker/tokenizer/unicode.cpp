#include "engine_worker/tokenizer/unicode.hpp"

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/uchar.h>
#include <algorithm>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

namespace llm::engine::unicode {

size_t sequence_length(std::string_view text, size_t at, size_t* bad) {
    auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
    if (bad)
        *bad = 1;
    const unsigned char lead = byte(at);
    if (lead < 0x80)
        return 1;
    if (lead < 0xC2 || lead > 0xF4)
        return 0;
    const size_t need = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    // Only the second byte has a range of its own (Unicode table 3-7): no overlongs, no surrogates, <=
    // U+10FFFF.
    unsigned char low = 0x80, high = 0xBF;
    if (lead == 0xE0)
        low = 0xA0;
    else if (lead == 0xED)
        high = 0x9F;
    else if (lead == 0xF0)
        low = 0x90;
    else if (lead == 0xF4)
        high = 0x8F;
    for (size_t i = 1; i < need; ++i) {
        if (at + i >= text.size() || byte(at + i) < low || byte(at + i) > high) {
            if (bad)
                *bad = i;
            return 0;
        }
        low = 0x80;
        high = 0xBF;
    }
    return need;
}

char32_t next_code_point(std::string_view text, size_t& at) {
    auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(text[i])); };
    const char32_t lead = byte(at);
    const size_t length = lead_length(static_cast<unsigned char>(lead));
    char32_t code_point = length == 1 ? lead : lead & (0x7Fu >> length);
    for (size_t i = 1; i < length; ++i)
        code_point = code_point << 6 | (byte(at + i) & 0x3F);
    at += length;
    return code_point;
}

void append_utf8(std::string& out, char32_t c) {
    if (c < 0x80) {
        out += static_cast<char>(c);
    } else if (c < 0x800) {
        out += static_cast<char>(0xC0 | c >> 6);
        out += static_cast<char>(0x80 | (c & 0x3F));
    } else if (c < 0x10000) {
        out += static_cast<char>(0xE0 | c >> 12);
        out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
        out += static_cast<char>(0x80 | (c & 0x3F));
    } else {
        out += static_cast<char>(0xF0 | c >> 18);
        out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
        out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
        out += static_cast<char>(0x80 | (c & 0x3F));
    }
}

namespace {

// Bytes at the start of `text` that are ASCII, found eight at a time.
size_t ascii_prefix(std::string_view text) {
    size_t at = 0;
    while (at + 8 <= text.size()) {
        uint64_t word;
        std::memcpy(&word, text.data() + at, 8);
        if (word & 0x8080808080808080u)
            break;
        at += 8;
    }
    while (at < text.size() && static_cast<unsigned char>(text[at]) < 0x80)
        ++at;
    return at;
}

}  // namespace

bool is_ascii(std::string_view text) {
    return ascii_prefix(text) == text.size();
}

bool is_valid_utf8(std::string_view text) {
    size_t at = 0;
    while (true) {
        at += ascii_prefix(text.substr(at));
        if (at == text.size())
            return true;
        const size_t length = sequence_length(text, at);
        if (length == 0)
            return false;
        at += length;
    }
}

std::string to_valid_utf8(std::string_view text) {
    std::string out;
    out.reserve(text.size() + 8);
    for (size_t at = 0; at < text.size();) {
        size_t bad = 1;
        if (size_t length = sequence_length(text, at, &bad)) {
            out.append(text, at, length);
            at += length;
        } else {
            out += "\xEF\xBF\xBD";
            at += bad;
        }
    }
    return out;
}

size_t incomplete_tail(std::string_view text) {
    for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
        const size_t at = text.size() - back;
        const auto byte = static_cast<unsigned char>(text[at]);
        if ((byte & 0xC0) == 0x80)
            continue;
        size_t bad = 1;
        // Ill-formed, yet all of it is one maximal subpart that asks for more bytes: it may still be
        // completed.
        const bool open = byte >= 0xC2 && byte <= 0xF4 && sequence_length(text, at, &bad) == 0 && bad == back;
        return open ? back : 0;
    }
    return 0;
}

namespace {

const icu::Normalizer2& normalizer_of(NormalForm form) {
    UErrorCode status = U_ZERO_ERROR;
    const icu::Normalizer2* normalizer = nullptr;
    switch (form) {
        case NormalForm::kNfc:
            normalizer = icu::Normalizer2::getNFCInstance(status);
            break;
        case NormalForm::kNfd:
            normalizer = icu::Normalizer2::getNFDInstance(status);
            break;
        case NormalForm::kNfkc:
            normalizer = icu::Normalizer2::getNFKCInstance(status);
            break;
        case NormalForm::kNfkd:
            normalizer = icu::Normalizer2::getNFKDInstance(status);
            break;
    }
    if (U_FAILURE(status))
        throw std::runtime_error(std::string("Unicode normalisation failed: ") + u_errorName(status));
    return *normalizer;
}

// Decomposed and in canonical order.
void append_ordered(std::string& out, std::string_view marks, const icu::Normalizer2& decomposer) {
    std::vector<std::pair<uint8_t, UChar32>> all;  // combining class, mark
    icu::UnicodeString parts;
    for (size_t at = 0; at < marks.size();) {
        const auto c = static_cast<UChar32>(next_code_point(marks, at));
        if (!decomposer.getDecomposition(c, parts))
            parts = icu::UnicodeString(c);
        for (int32_t i = 0; i < parts.length(); i = parts.moveIndex32(i, 1))
            all.emplace_back(u_getCombiningClass(parts.char32At(i)), parts.char32At(i));
    }
    const auto is_starter = [](const auto& one) { return one.first == 0; };
    for (auto begin = all.begin(); begin != all.end();) {
        const auto end = std::find_if(begin, all.end(), is_starter);
        std::stable_sort(begin, end, [](const auto& a, const auto& b) { return a.first < b.first; });
        begin = end == all.end() ? end : end + 1;
    }
    for (const auto& one : all)
        append_utf8(out, static_cast<char32_t>(one.second));
}

// `text` with its long runs of marks in canonical order, as far as it has any. ICU puts each mark at its
// place among those before it, which is quadratic.
std::optional<std::string> order_long_runs(std::string_view text, const icu::Normalizer2& decomposer) {
    constexpr size_t kLongRun = 128;            // bytes
    constexpr unsigned char kFirstLead = 0xCC;  // of U+0300, the first mark
    std::string out;
    size_t done = 0;  // of `text` in `out`
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        size_t next = at;
        while (next < text.size() && static_cast<unsigned char>(text[next]) >= kFirstLead &&
               !decomposer.hasBoundaryBefore(static_cast<UChar32>(next_code_point(text, next))))
            at = next;
        if (at - begin >= kLongRun) {
            out.append(text, done, begin - done);
            append_ordered(out, text.substr(begin, at - begin), decomposer);
            done = at;
        }
        if (at < text.size())  // what begins anew
            at += lead_length(static_cast<unsigned char>(text[at]));
    }
    if (done == 0)
        return std::nullopt;
    return out.append(text, done);
}

}  // namespace

std::string normalize(std::string_view text, NormalForm form) {
    if (is_ascii(text))
        return std::string(text);
    const bool compatible = form == NormalForm::kNfkc || form == NormalForm::kNfkd;
    const std::optional<std::string> ordered =
        order_long_runs(text, normalizer_of(compatible ? NormalForm::kNfkd : NormalForm::kNfd));
    if (ordered)
        text = *ordered;
    std::string out;
    UErrorCode status = U_ZERO_ERROR;
    icu::StringByteSink<std::string> sink(&out, static_cast<int32_t>(text.size()));
    normalizer_of(form).normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<int32_t>(text.size())),
                                      sink, nullptr, status);
    if (U_FAILURE(status))
        throw std::runtime_error(std::string("Unicode normalisation failed: ") + u_errorName(status));
    return out;
}

std::string to_lower(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    for (size_t at = 0; at < text.size();) {
        const char32_t c = next_code_point(text, at);
        if (c == 0x130)
            out += "i\xCC\x87";  // the only code point whose context-free lower case is two
        else
            append_utf8(out, static_cast<char32_t>(u_tolower(static_cast<UChar32>(c))));
    }
    return out;
}

bool is_white_space(char32_t c) {
    if (c < 0x80)
        return c == ' ' || (c >= 9 && c <= 13);
    return u_isUWhiteSpace(static_cast<UChar32>(c)) != 0;
}

bool is_word(char32_t code_point) {
    const auto c = static_cast<UChar32>(code_point);
    return u_isUAlphabetic(c) || (U_GET_GC_MASK(c) & (U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK)) != 0 ||
           u_hasBinaryProperty(c, UCHAR_JOIN_CONTROL);
}

namespace {

// Start of the last character of valid, non-empty text.
size_t last_char(std::string_view text) {
    size_t at = text.size() - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80)
        --at;
    return at;
}

}  // namespace

size_t trailing_space_begin(std::string_view text) {
    while (!text.empty()) {
        const size_t begin = last_char(text);
        size_t at = begin;
        if (!is_white_space(next_code_point(text, at)))
            break;
        text = text.substr(0, begin);
    }
    return text.size();
}

size_t leading_space_length(std::string_view text) {
    size_t end = 0;
    for (size_t at = 0; at < text.size() && is_white_space(next_code_point(text, at));)
        end = at;
    return end;
}

bool starts_with_word(std::string_view text) {
    size_t at = 0;
    return !text.empty() && is_word(next_code_point(text, at));
}

bool ends_with_word(std::string_view text) {
    if (text.empty())
        return false;
    size_t at = last_char(text);
    return is_word(next_code_point(text, at));
}

}  // namespace llm::engine::unicode
