// Strings in all their spellings: escapes, UTF-8, cut by a piece's end.
#include <cstring>

#include "ngx_module/core/text/json_scan.hpp"
#include "ngx_module/core/text/json_scan_inline.hpp"
#include "ngx_module/core/text/string_skip.hpp"

namespace llm::core {
namespace {

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// What a backslash and `c` stand for; NUL if they are no short escape.
constexpr char short_escape(char c) {
    switch (c) {
        case '"':
        case '\\':
        case '/':
            return c;
        case 'b':
            return '\b';
        case 'f':
            return '\f';
        case 'n':
            return '\n';
        case 'r':
            return '\r';
        case 't':
            return '\t';
        default:
            return '\0';
    }
}

// Between two escapes is little, mostly: settle up to 15 ASCII bytes without a call.
inline SkippedText skip(const char* p, const char* end) {
#if LLM_MASKS
    if (end - p >= 16) {
        const uint32_t special = special_mask16(p);
        if (special != 0) {
            const char* const stop = p + std::countr_zero(special);
            if (static_cast<signed char>(*stop) >= 0) {
                return {stop, true};
            }
        }
    }
#endif
    return skip_text(p, end);
}

}  // namespace

void JsonScan::begin_key() {
    state_ = State::string;
    string_is_key_ = true;
    count_text_ = false;
    capturing_ = place_ >= Place::options;
    overflow_ = false;
    key_size_ = 0;
}

void JsonScan::end_key(const char* p) {
    state_ = State::colon;
    if (capturing_ && !overflow_) {
        name_key(p, key_bytes_, key_size_);
    }
}

void JsonScan::end_string(const char* p) {
    if (string_is_key_) {
        end_key(p);
        return;
    }
    state_ = State::after;
    if (key_ == Key::none) {
        return;
    }
    if (Span* span = span_of(key_)) {
        span->end = offset(p);
    }
    if (capturing_) {
        (key_ == Key::model ? keys_.has_model : keys_.has_routing_mode) = true;
        if (overflow_ && too_long_ == Key::none) {
            too_long_ = key_;
        }
    }
    key_ = Key::none;
}

// More of a long text, and its end if the piece has it.
const char* JsonScan::text_bytes(const char* p, const char* end) {
    const char* const stop = skip_text(p, end).stop;
    keys_.text_bytes += count_text_ ? static_cast<size_t>(stop - p) : 0;
    if (stop == end) {
        return end;
    }
    if (*stop == '"') {
        state_ = State::after;
        return stop + 1;
    }
    return escaped_text(stop, end);
}

// The same from an escape on, mostly. Code and Markdown are full of \n: short escapes stay in this loop, and
// string_bytes() sees to all that is rarer.
[[gnu::noinline]] const char* JsonScan::escaped_text(const char* p, const char* end) {
    const char* const begin = p;
    size_t escapes = 0;
    while (end - p >= 2 && *p == '\\' && short_escape(p[1]) != '\0') {
        ++escapes;
        p = skip(p + 2, end).stop;
    }
    keys_.text_bytes += count_text_ ? static_cast<size_t>(p - begin) - escapes : 0;
    if (p != end && *p == '"') {
        state_ = State::after;
        return p + 1;
    }
    return p == end ? end : string_bytes(p, end);
}

const char* JsonScan::string_bytes(const char* p, const char* end) {
    state_ = State::string;
    if (need_ != 0) {
        p = utf8_continuation(p, end);
        if (failed()) {
            return p;
        }
    }
    while (p < end) {
        const SkippedText run = skip(p, end);
        if (run.stop != p) {
            append(p, static_cast<size_t>(run.stop - p));
            p = run.stop;
        }
        if (!run.valid) {
            fail(ErrorKind::invalid_utf8, "invalid UTF-8", p);
            return p;
        }
        if (p == end) {
            return p;
        }
        if (*p == '"') {
            end_string(p + 1);
            return p + 1;
        }
        if (*p != '\\') {
            return cut_character(p, end);
        }
        const char byte = ++p < end ? short_escape(*p) : '\0';
        if (byte == '\0') {
            state_ = State::escape;
            return p;
        }
        append_byte(byte);
        ++p;
    }
    return p;
}

// At `p` stands a byte that no string may hold, or the beginning of a character that this piece cuts.
const char* JsonScan::cut_character(const char* p, const char* end) {
    if (ends_text(*p)) {
        fail(ErrorKind::syntax, "control character in a string", p);
        return p;
    }
    const Utf8Lead lead = utf8_lead(static_cast<uint8_t>(*p));
    need_ = lead.need;
    low_ = lead.low;
    high_ = lead.high;
    append(p, 1);
    return utf8_continuation(p + 1, end);
}

// The rest of a character that began in an earlier piece.
const char* JsonScan::utf8_continuation(const char* p, const char* end) {
    for (; need_ != 0 && p < end; ++p) {
        const auto byte = static_cast<uint8_t>(*p);
        if (byte < low_ || byte > high_) {
            fail(ErrorKind::invalid_utf8, "invalid UTF-8", p);
            return p;
        }
        low_ = 0x80;
        high_ = 0xbf;
        --need_;
        append(p, 1);
    }
    return p;
}

void JsonScan::escape_byte(const char* p) {
    const char c = *p;
    if (c == 'u') {
        hex_left_ = 4;
        unit_ = 0;
        state_ = State::hex;
        return;
    }
    const char byte = short_escape(c);
    if (byte == '\0') {
        fail(ErrorKind::syntax, "unknown escape", p);
        return;
    }
    append_byte(byte);
    state_ = State::string;
}

void JsonScan::hex_digit(const char* p) {
    const char c = *p;
    uint32_t digit;
    if (is_digit(c)) {
        digit = static_cast<uint32_t>(c - '0');
    } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
        digit = static_cast<uint32_t>((c | 0x20) - 'a' + 10);
    } else {
        fail(ErrorKind::syntax, "malformed \\u escape", p);
        return;
    }
    unit_ = static_cast<uint16_t>(unit_ << 4 | digit);
    if (--hex_left_ != 0) {
        return;
    }
    const bool is_high = unit_ >= 0xd800 && unit_ <= 0xdbff;
    const bool is_low = unit_ >= 0xdc00 && unit_ <= 0xdfff;
    if (is_low != (high_surrogate_ != 0)) {
        fail(ErrorKind::invalid_utf8, "escape of a lone surrogate", p);
    } else if (is_high) {
        high_surrogate_ = unit_;
        state_ = State::low_backslash;
    } else {
        const uint32_t code_point = is_low ? 0x10000 + ((high_surrogate_ - 0xd800u) << 10) + (unit_ - 0xdc00u)
                                           : static_cast<uint32_t>(unit_);
        high_surrogate_ = 0;
        append_code_point(code_point);
        state_ = State::string;
    }
}

void JsonScan::append_code_point(uint32_t code_point) {
    char bytes[4];
    size_t size = 0;
    const auto put = [&](uint32_t byte) { bytes[size++] = static_cast<char>(byte); };
    if (code_point < 0x80) {
        put(code_point);
    } else if (code_point < 0x800) {
        put(0xc0 | code_point >> 6);
        put(0x80 | (code_point & 0x3f));
    } else if (code_point < 0x10000) {
        put(0xe0 | code_point >> 12);
        put(0x80 | (code_point >> 6 & 0x3f));
        put(0x80 | (code_point & 0x3f));
    } else {
        put(0xf0 | code_point >> 18);
        put(0x80 | (code_point >> 12 & 0x3f));
        put(0x80 | (code_point >> 6 & 0x3f));
        put(0x80 | (code_point & 0x3f));
    }
    append(bytes, size);
}

void JsonScan::capture(const char* p, size_t size) {
    char* buffer = key_bytes_;
    uint8_t* used = &key_size_;
    size_t capacity = sizeof(key_bytes_);
    if (!string_is_key_) {
        const bool is_model = key_ == Key::model;
        buffer = is_model ? keys_.model_bytes : keys_.routing_mode_bytes;
        used = is_model ? &keys_.model_size : &keys_.routing_mode_size;
        capacity = is_model ? ControlKeys::kMaxModel : ControlKeys::kMaxRoutingMode;
    }
    if (size > capacity - *used) {
        overflow_ = true;
        *used = 0;
        return;
    }
    std::memcpy(buffer + *used, p, size);
    *used = static_cast<uint8_t>(*used + size);
}

// The first five decoded bytes of a string value decide whether the rest is text or an encoded file.
void JsonScan::match_data_uri(const char* p, size_t size) {
    for (size_t i = 0; i < size; ++i) {
        if (p[i] != kDataUri[data_match_]) {
            data_match_ = kNoData;
            return;
        }
        if (++data_match_ == kDataUri.size()) {
            data_match_ = kNoData;
            count_text_ = false;
            keys_.text_bytes -= kDataUri.size() - (i + 1);  // those that earlier calls have counted
            return;
        }
    }
}

}  // namespace llm::core
