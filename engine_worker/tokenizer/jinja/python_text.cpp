#include "engine_worker/tokenizer/jinja/python_text.hpp"

#include <unicode/locid.h>
#include <unicode/uchar.h>
#include <unicode/unistr.h>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>

#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine::jinja {
namespace {

using unicode::next_code_point;

size_t previous(std::string_view text, size_t at) {
    do
        --at;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
    return at;
}

bool contains(std::string_view chars, std::string_view character) {
    return chars.find(character) != std::string_view::npos;  // valid UTF-8: found only at a character's start
}

template <class Predicate>
std::string_view strip_left_if(std::string_view text, Predicate drop) {
    size_t at = 0;
    while (at < text.size()) {
        size_t next = at;
        next_code_point(text, next);
        if (!drop(text.substr(at, next - at)))
            break;
        at = next;
    }
    return text.substr(at);
}

template <class Predicate>
std::string_view strip_right_if(std::string_view text, Predicate drop) {
    size_t end = text.size();
    while (end > 0) {
        const size_t begin = previous(text, end);
        if (!drop(text.substr(begin, end - begin)))
            break;
        end = begin;
    }
    return text.substr(0, end);
}

bool space_character(std::string_view character) {
    size_t at = 0;
    return is_python_space(next_code_point(character, at));
}

icu::UnicodeString to_icu(std::string_view text) {
    return icu::UnicodeString::fromUTF8(icu::StringPiece(text.data(), static_cast<int32_t>(text.size())));
}

std::string from_icu(const icu::UnicodeString& text) {
    std::string out;
    return text.toUTF8String(out);
}

bool is_cased(UChar32 c) {
    return u_hasBinaryProperty(c, UCHAR_CASED);
}

}  // namespace

bool is_python_space(char32_t c) {
    // str.isspace(): White_Space by bidirectional class or category; the four separators 0x1C..0x1F are of
    // it.
    return (c >= 0x1C && c <= 0x1F) || unicode::is_white_space(c);
}

std::string_view left_strip(std::string_view text) {
    return strip_left_if(text, space_character);
}
std::string_view right_strip(std::string_view text) {
    return strip_right_if(text, space_character);
}
std::string_view left_strip(std::string_view text, std::string_view chars) {
    return strip_left_if(text, [&](std::string_view c) { return contains(chars, c); });
}
std::string_view right_strip(std::string_view text, std::string_view chars) {
    return strip_right_if(text, [&](std::string_view c) { return contains(chars, c); });
}

size_t length(std::string_view text) {
    return static_cast<size_t>(std::count_if(
        text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

size_t byte_offset(std::string_view text, size_t index) {
    size_t at = 0;
    while (index-- > 0 && at < text.size())
        at += unicode::lead_length(static_cast<unsigned char>(text[at]));
    return at;
}

std::vector<std::string_view> characters(std::string_view text) {
    std::vector<std::string_view> out;
    for (size_t at = 0; at < text.size();) {
        const size_t begin = at;
        at += unicode::lead_length(static_cast<unsigned char>(text[at]));
        out.push_back(text.substr(begin, at - begin));
    }
    return out;
}

std::string upper(std::string_view text) {
    return from_icu(to_icu(text).toUpper(icu::Locale::getRoot()));
}
std::string lower(std::string_view text) {
    return from_icu(to_icu(text).toLower(icu::Locale::getRoot()));
}

std::string capitalize(std::string_view text) {
    if (text.empty())
        return {};
    const size_t first = unicode::lead_length(static_cast<unsigned char>(text[0]));
    // The first character in title case (full mapping: "\u00DF" gives "Ss"), the rest in lower case.
    icu::UnicodeString head = to_icu(text.substr(0, first));
    head.toTitle(nullptr, icu::Locale::getRoot(), U_TITLECASE_WHOLE_STRING | U_TITLECASE_NO_BREAK_ADJUSTMENT);
    return from_icu(head) + lower(text.substr(first));
}

std::string title(std::string_view text) {
    std::string out;
    bool inside = false;  // after a cased character
    for (std::string_view character : characters(text)) {
        size_t at = 0;
        const bool cased = is_cased(static_cast<UChar32>(next_code_point(character, at)));
        out += !cased ? std::string(character) : inside ? lower(character) : capitalize(character);
        inside = cased;
    }
    return out;
}

std::string swap_case(std::string_view text) {
    std::string out;
    for (std::string_view character : characters(text)) {
        size_t at = 0;
        const auto c = static_cast<UChar32>(next_code_point(character, at));
        out += u_hasBinaryProperty(c, UCHAR_UPPERCASE)   ? lower(character)
               : u_hasBinaryProperty(c, UCHAR_LOWERCASE) ? upper(character)
                                                         : std::string(character);
    }
    return out;
}

std::vector<std::string_view> split_space(std::string_view text, int64_t limit, bool from_right) {
    std::vector<std::string_view> out;
    auto word_end = [](std::string_view rest) {
        size_t at = 0;
        while (at < rest.size()) {
            size_t next = at;
            if (is_python_space(next_code_point(rest, next)))
                break;
            at = next;
        }
        return at;
    };
    auto word_begin = [](std::string_view rest) {
        size_t at = rest.size();
        while (at > 0) {
            const size_t before = previous(rest, at);
            if (space_character(rest.substr(before, at - before)))
                break;
            at = before;
        }
        return at;
    };
    for (text = from_right ? right_strip(text) : left_strip(text); !text.empty();
         text = from_right ? right_strip(text) : left_strip(text)) {
        if (limit >= 0 && out.size() >= static_cast<size_t>(limit)) {
            out.push_back(text);  // the rest, trimmed on the side already passed
            break;
        }
        if (from_right) {
            const size_t begin = word_begin(text);
            out.push_back(text.substr(begin));
            text = text.substr(0, begin);
        } else {
            const size_t end = word_end(text);
            out.push_back(text.substr(0, end));
            text = text.substr(end);
        }
    }
    if (from_right)
        std::reverse(out.begin(), out.end());
    return out;
}

std::vector<std::string_view> split_at(std::string_view text, std::string_view separator, int64_t limit,
                                       bool from_right) {
    std::vector<std::string_view> out;
    while (limit < 0 || out.size() < static_cast<size_t>(limit)) {
        const size_t at = from_right ? text.rfind(separator) : text.find(separator);
        if (at == std::string_view::npos)
            break;
        if (from_right) {
            out.push_back(text.substr(at + separator.size()));
            text = text.substr(0, at);
        } else {
            out.push_back(text.substr(0, at));
            text = text.substr(at + separator.size());
        }
    }
    out.push_back(text);
    if (from_right)
        std::reverse(out.begin(), out.end());
    return out;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
    std::vector<std::string_view> out;
    size_t begin = 0;
    for (size_t at = 0; at < text.size();) {
        const size_t end = at;
        const char32_t c = next_code_point(text, at);
        const bool ends =
            (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029;
        if (!ends)
            continue;
        if (c == '\r' && at < text.size() && text[at] == '\n')
            ++at;
        out.push_back(text.substr(begin, (keep_ends ? at : end) - begin));
        begin = at;
    }
    if (begin < text.size())
        out.push_back(text.substr(begin));
    return out;
}

std::optional<std::string> replace(std::string_view text, std::string_view from, std::string_view to,
                                   int64_t count, size_t limit) {
    std::string out;
    size_t done = 0;
    auto left = [&] { return count != 0; };
    auto put = [&](std::string_view piece) {
        out += piece;
        return out.size() <= limit;
    };
    if (from.empty()) {  // before every character and at the end
        while (left()) {
            if (!put(to))
                return std::nullopt;
            --count;
            if (done == text.size())
                break;
            const size_t next = done + unicode::lead_length(static_cast<unsigned char>(text[done]));
            out += text.substr(done, next - done);
            done = next;
        }
    }
    while (!from.empty() && left()) {
        const size_t at = text.find(from, done);
        if (at == std::string_view::npos)
            break;
        if (!put(text.substr(done, at - done)) || !put(to))
            return std::nullopt;
        done = at + from.size();
        --count;
    }
    return put(text.substr(done)) ? std::optional(std::move(out)) : std::nullopt;
}

std::string pad(std::string_view text, size_t width, std::string_view fill, char side) {
    const size_t have = length(text);
    const size_t missing = width > have ? width - have : 0;
    // str.center puts the odd one to the left when the width is odd (CPython, unicode_center).
    const size_t left = side == 'l' ? 0 : side == 'r' ? missing : missing / 2 + (missing & width & 1);
    std::string out;
    for (size_t i = 0; i < left; ++i)
        out += fill;
    out += text;
    for (size_t i = left; i < missing; ++i)
        out += fill;
    return out;
}

std::string escape_html(std::string_view text) {
    std::string out;
    for (char c : text) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '\'':
                out += "&#39;";
                break;
            case '"':
                out += "&#34;";
                break;
            default:
                out += c;
        }
    }
    return out;
}

bool is_class(std::string_view text, TextClass wanted) {
    if (wanted == TextClass::kAscii)
        return unicode::is_ascii(text);
    if (text.empty())
        return wanted == TextClass::kPrintable;
    bool seen = false, inside = false;
    for (size_t at = 0; at < text.size();) {
        const char32_t code_point = next_code_point(text, at);
        const auto c = static_cast<UChar32>(code_point);
        const auto mask = U_GET_GC_MASK(c);
        const int numeric = u_getIntPropertyValue(c, UCHAR_NUMERIC_TYPE);
        const bool decimal = numeric == U_NT_DECIMAL, digit = decimal || numeric == U_NT_DIGIT;
        const bool number = numeric != U_NT_NONE;
        const bool low = u_hasBinaryProperty(c, UCHAR_LOWERCASE),
                   high = u_hasBinaryProperty(c, UCHAR_UPPERCASE);
        bool good = true;
        switch (wanted) {
            case TextClass::kAlpha:
                good = (mask & U_GC_L_MASK) != 0;
                break;
            case TextClass::kAlnum:
                good = (mask & U_GC_L_MASK) != 0 || number;
                break;
            case TextClass::kDigit:
                good = digit;
                break;
            case TextClass::kDecimal:
                good = decimal;
                break;
            case TextClass::kNumeric:
                good = number;
                break;
            case TextClass::kSpace:
                good = is_python_space(code_point);
                break;
            case TextClass::kLower:
                good = !high && !(mask & U_GC_LT_MASK);
                seen = seen || low;
                break;
            case TextClass::kUpper:
                good = !low && !(mask & U_GC_LT_MASK);
                seen = seen || high;
                break;
            case TextClass::kTitle: {
                const bool starts = high || (mask & U_GC_LT_MASK) != 0;
                good = starts ? !inside : !low || inside;
                seen = seen || starts || low;
                inside = starts || low;
                break;
            }
            case TextClass::kPrintable:
                good = c == ' ' || (mask & (U_GC_C_MASK | U_GC_Z_MASK)) == 0;
                break;
            case TextClass::kAscii:
                break;
        }
        if (!good)
            return false;
    }
    const bool needs_case =
        wanted == TextClass::kLower || wanted == TextClass::kUpper || wanted == TextClass::kTitle;
    return seen || !needs_case;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
    text = left_strip(right_strip(text));
    const bool negative = !text.empty() && text[0] == '-';
    if (!text.empty() && (text[0] == '-' || text[0] == '+'))
        text.remove_prefix(1);
    auto prefixed = [&](char mark) { return text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == mark; };
    const int marked = prefixed('x') ? 16 : prefixed('o') ? 8 : prefixed('b') ? 2 : 0;
    if (marked && (base == 0 || base == marked)) {
        base = marked;
        text.remove_prefix(text[2] == '_' ? 3 : 2);
    } else if (base == 0) {
        base = 10;
    }
    int64_t value = 0;
    bool digit_before = false;
    for (char c : text) {
        if (c == '_' && digit_before) {
            digit_before = false;
            continue;
        }
        const int digit = c >= '0' && c <= '9'                     ? c - '0'
                          : (c | 0x20) >= 'a' && (c | 0x20) <= 'z' ? (c | 0x20) - 'a' + 10
                                                                   : 99;
        if (digit >= base || __builtin_mul_overflow(value, base, &value) ||
            __builtin_sub_overflow(value, digit,
                                   &value))  // grows downwards: the smallest integer has no positive
            return std::nullopt;
        digit_before = true;
    }
    if (!digit_before || (!negative && value == INT64_MIN))
        return std::nullopt;
    return negative ? value : -value;
}

std::optional<double> parse_float(std::string_view text) {
    std::string plain(left_strip(right_strip(text)));
    for (size_t at; (at = plain.find('_')) != std::string::npos;) {
        const bool between = at > 0 && at + 1 < plain.size() &&
                             std::isdigit(static_cast<unsigned char>(plain[at - 1])) &&
                             std::isdigit(static_cast<unsigned char>(plain[at + 1]));
        if (!between)
            return std::nullopt;
        plain.erase(at, 1);
    }
    std::string bare = lower(plain);
    if (!bare.empty() && (bare[0] == '-' || bare[0] == '+'))
        bare.erase(0, 1);
    const bool word = bare == "inf" || bare == "infinity" || bare == "nan";
    // strtod also takes hexadecimal and "nan(…)", which Python does not.
    if (!word && (bare.empty() || bare.find_first_not_of("0123456789.e+-") != std::string::npos))
        return std::nullopt;
    char* end = nullptr;
    const double value = std::strtod(plain.c_str(), &end);
    return end == plain.c_str() + plain.size() ? std::optional(value) : std::nullopt;
}

}  // namespace llm::engine::jinja
