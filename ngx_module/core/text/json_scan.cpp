#include "ngx_module/core/text/json_scan.hpp"
#include "ngx_module/core/text/json_scan_inline.hpp"

#include <cstring>

#include "ngx_module/core/text/string_skip.hpp"

namespace llm::core {
namespace {

constexpr std::string_view kDataUri = "data:";

bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

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

// Most strings of a request are short: settle those of up to 15 ASCII bytes without a call.
inline SkippedText skip(const char* p, const char* end) {
#if defined(__x86_64__)
    if (end - p >= 16) {
        const uint32_t stop = text_end_mask16(p);
        if (stop != 0 && (high_mask16(p) & ~stop & (stop - 1)) == 0) {
            return {p + std::countr_zero(stop), true};
        }
    }
#endif
    return skip_text(p, end);
}

}  // namespace

// Scans up to the end, or to a token border at or behind `limit`.
const char* JsonScan::scan(const char* p, const char* end, const char* limit) {
    while (p < end && state_ != State::failed) {
        if (state_ >= State::string) {
            p = inside_token(p, end);
            continue;
        }
        if (p >= limit) {
            return p;
        }
        const char* const after = whole_tokens(p, end, limit);
        p = after != p || failed() ? after : between_tokens(p, end);
    }
    return p;
}

void JsonScan::feed(std::string_view chunk) {
    if (failed() || chunk.empty()) {
        return;
    }
    chunk_ = chunk.data();
    const char* p = chunk_;
    const char* const end = p + chunk.size();
    // whole_tokens() reads ahead. What lies too near the end for that is scanned in a copy with room behind
    // it.
    char last[2 * kAhead];
    size_t copied = chunk.size();
    if (chunk.size() > kAhead) {
        p = scan(p, end, end - kAhead);
        if (p == end || failed()) {
            base_ += chunk.size();
            chunk_ = nullptr;
            return;
        }
        copied = kAhead;
        std::memcpy(last, end - kAhead, kAhead);
        std::memset(last + kAhead, 0, kAhead);
    } else {
        std::memset(last, 0, sizeof(last));
        std::memcpy(last, p, copied);
    }
    base_ += chunk.size() - copied;
    chunk_ = last;
    const char* const last_end = last + copied;
    scan(last_end - (end - p), last_end, last_end);
    base_ += copied;
    chunk_ = nullptr;
}

bool JsonScan::finish() {
    if (failed()) {
        return false;
    }
    if (base_ == 0) {
        fail(ErrorKind::empty, "no body", nullptr);
    } else if (state_ != State::done) {
        fail(ErrorKind::truncated, "the document is not complete", nullptr);
    } else if (too_long_ != Key::none) {
        fail(ErrorKind::value_too_long, "value too long", nullptr, too_long_);
    }
    return !failed();
}

// One token, or the beginning of one, with the white space before it.
const char* JsonScan::between_tokens(const char* p, const char* end) {
    while (is_space(*p)) {
        if (++p == end) {
            return p;
        }
    }
    const char c = *p;
    switch (state_) {
        case State::object_first:
            if (c == '}') {
                end_container(p, true);
                return p + 1;
            }
            [[fallthrough]];
        case State::key:
            if (c != '"') {
                fail(ErrorKind::syntax, "a key was expected", p);
                return p;
            }
            begin_key();
            return string_bytes(p + 1, end);
        case State::colon:
            if (c != ':') {
                fail(ErrorKind::syntax, "a colon was expected", p);
                return p;
            }
            state_ = State::value;
            return p + 1;
        case State::array_first:
            if (c == ']') {
                end_container(p, false);
                return p + 1;
            }
            [[fallthrough]];
        case State::value:
            if (c != '"') {
                return begin_value(p);
            }
            begin_text(p);
            return failed() ? p : string_bytes(p + 1, end);
        case State::after:
            if (c == ',') {
                state_ = in_object_ ? State::key : State::value;
            } else if (c == '}' || c == ']') {
                end_container(p, c == '}');
            } else {
                fail(ErrorKind::syntax, "a comma or the end of an object or array was expected", p);
            }
            return p + 1;
        case State::start:
            begin_document(p);
            return p + 1;
        default:
            fail(ErrorKind::syntax, "bytes after the end of the document", p);
            return p;
    }
}

void JsonScan::begin_document(const char* p) {
    const char c = *p;
    if (c == '{') {
        begin_container(p, true);
    } else if (c == '[' || c == '"' || c == '-' || c == 't' || c == 'f' || c == 'n' || is_digit(c)) {
        fail(ErrorKind::not_object, "the top level is not an object", p);
    } else {
        fail(ErrorKind::syntax, c == '\xef' ? "byte order mark" : "not JSON", p);
    }
}

// The rest of a token that is longer than a byte, or as much of it as [p, end) holds.
const char* JsonScan::inside_token(const char* p, const char* end) {
    switch (state_) {
        case State::string:
            return string_bytes(p, end);
        case State::escape:
            escape_byte(p);
            return p + 1;
        case State::hex:
            hex_digit(p);
            return p + 1;
        case State::low_backslash:
        case State::low_u:
            if (*p != (state_ == State::low_u ? 'u' : '\\')) {
                fail(ErrorKind::invalid_utf8, "escape of a lone surrogate", p);
                return p;
            }
            if (state_ == State::low_u) {
                hex_left_ = 4;
                unit_ = 0;
                state_ = State::hex;
            } else {
                state_ = State::low_u;
            }
            return p + 1;
        case State::number:
            return number_bytes(p, end);
        default:
            return literal_bytes(p, end);
    }
}

// ---- strings ----

inline void JsonScan::begin_key() {
    state_ = State::string;
    string_is_key_ = true;
    count_text_ = false;
    capturing_ = depth_ == 1 || (in_stream_options_ && depth_ == 2);
    if (capturing_) {
        overflow_ = false;
        key_size_ = 0;
        (depth_ == 1 ? keys_.object_empty : keys_.stream_options_empty) = false;
    }
}

void JsonScan::end_key(const char* p) {
    state_ = State::colon;
    if (capturing_ && !overflow_) {
        name_key(p, {key_bytes_, key_size_});
    }
}

inline void JsonScan::end_string(const char* p) {
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

const char* JsonScan::string_bytes(const char* p, const char* end) {
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
        // Code and Markdown are full of \n: short escapes stay in this loop where the piece holds them whole.
        const char byte = ++p < end ? short_escape(*p) : '\0';
        if (byte == '\0') {
            state_ = State::escape;
            return p;
        }
        append(&byte, 1);
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
    append(&byte, 1);
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

// ---- the rest ----

void JsonScan::fail(ErrorKind kind, const char* text, const char* p, Key key) {
    state_ = State::failed;
    error_kind_ = kind;
    error_ = text;
    error_key_ = key;
    error_offset_ = p != nullptr ? offset(p) : base_;
}

}  // namespace llm::core
