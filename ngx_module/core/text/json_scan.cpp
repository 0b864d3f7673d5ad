#include "ngx_module/core/text/json_scan.hpp"

#include <array>
#include <cstring>

#include "ngx_module/core/text/string_skip.hpp"

namespace llm::core {
namespace {

constexpr std::string_view kDataUri = "data:";
constexpr uint8_t kNoData = 0xff;
constexpr uint64_t kSaturated = 1ull << 32;

// Order of JsonScan::Key.
constexpr std::array<std::string_view, 14> kKeyNames = {"",
                                                        "model",
                                                        "stream",
                                                        "priority",
                                                        "max_tokens",
                                                        "max_completion_tokens",
                                                        "max_output_tokens",
                                                        "n",
                                                        "routing-mode",
                                                        "stream_options",
                                                        "include_usage",
                                                        "prompt",
                                                        "input",
                                                        "token_ids"};

bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
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

void JsonScan::feed(std::string_view chunk) {
    if (failed() || chunk.empty()) {
        return;
    }
    chunk_ = chunk.data();
    const char* p = chunk_;
    const char* const end = p + chunk.size();
    while (p < end && state_ != State::failed) {
        p = step(p, end);
    }
    base_ += chunk.size();
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

std::string_view JsonScan::error_key() const {
    return error_key_ == Key::include_usage ? "stream_options.include_usage"
                                            : kKeyNames[static_cast<size_t>(error_key_)];
}

// One token, or as much of it as [p, end) holds. Returns where to go on.
const char* JsonScan::step(const char* p, const char* end) {
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
        case State::literal:
            if (*p != *literal_) {
                fail(ErrorKind::syntax, "unknown literal", p);
                return p;
            }
            if (*++literal_ == '\0') {
                end_literal(p + 1);
            }
            return p + 1;
        default:
            break;
    }
    // Between tokens.
    while (is_space(*p)) {
        if (++p == end) {
            return p;
        }
    }
    const char c = *p;
    switch (state_) {
        case State::start:
            if (c == '{') {
                begin_container(p, true);
            } else if (c == '[' || c == '"' || c == '-' || c == 't' || c == 'f' || c == 'n' || is_digit(c)) {
                fail(ErrorKind::not_object, "the top level is not an object", p);
            } else {
                fail(ErrorKind::syntax, c == '\xef' ? "byte order mark" : "not JSON", p);
            }
            return p + 1;
        case State::array_first:
            if (c == ']') {
                end_container(p, false);
                return p + 1;
            }
            return begin_value(p);
        case State::value:
            return begin_value(p);
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
            begin_string(p, true);
            return p + 1;
        case State::colon:
            if (c != ':') {
                fail(ErrorKind::syntax, "a colon was expected", p);
                return p;
            }
            state_ = State::value;
            return p + 1;
        case State::after:
            if (c == ',') {
                state_ = in_object() ? State::key : State::value;
            } else if (c == '}' || c == ']') {
                end_container(p, c == '}');
            } else {
                fail(ErrorKind::syntax, "a comma or the end of an object or array was expected", p);
            }
            return p + 1;
        default:
            fail(ErrorKind::syntax, "bytes after the end of the document", p);
            return p;
    }
}

// ---- values
// ---------------------------------------------------------------------------------------------------

const char* JsonScan::begin_value(const char* p) {
    if (Span* span = span_of(key_)) {
        span->begin = offset(p);
    }
    const char c = *p;
    switch (c) {
        case '"':
            begin_string(p, false);
            return p + 1;
        case '{':
        case '[':
            begin_container(p, c == '{');
            return p + 1;
        case 't':
        case 'f':
            if (key_ != Key::none && key_ < Key::prompt && key_ != Key::stream &&
                key_ != Key::include_usage) {
                wrong_type(p);
                return p;
            }
            [[fallthrough]];
        case 'n':
            literal_ = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
            literal_kind_ = static_cast<uint8_t>(c);
            state_ = State::literal;
            return p + 1;
        default:
            break;
    }
    if (c != '-' && !is_digit(c)) {
        fail(ErrorKind::syntax, "a value was expected", p);
        return p;
    }
    if (key_ != Key::none && (key_ < Key::priority || key_ > Key::n) && key_ < Key::prompt) {
        wrong_type(p);
        return p;
    }
    negative_ = c == '-';
    integer_ = true;
    magnitude_ = negative_ ? 0 : static_cast<uint64_t>(c - '0');
    number_ = negative_ ? Number::minus : c == '0' ? Number::zero : Number::digits;
    state_ = State::number;
    return p + 1;
}

// After the value of a member or an element.
void JsonScan::end_value() {
    key_ = Key::none;
    state_ = State::after;
}

void JsonScan::begin_container(const char* p, bool object) {
    if (key_ != Key::none && key_ < Key::prompt && !(object && key_ == Key::stream_options)) {
        wrong_type(p);
        return;
    }
    if (depth_ == kMaxDepth) {
        fail(ErrorKind::depth, "nested too deep", p);
        return;
    }
    if (depth_ == 1) {
        in_stream_options_ = key_ == Key::stream_options;
        in_tokens_ = key_ >= Key::prompt && !object;
        count_prompts_ = key_ == Key::prompt && !object;
    } else if (depth_ == 2) {
        count_prompt();
    }
    key_ = Key::none;
    const uint64_t bit = 1ull << (depth_ & 63);
    uint64_t& word = object_bits_[depth_ >> 6];
    word = object ? word | bit : word & ~bit;
    ++depth_;
    state_ = object ? State::object_first : State::array_first;
}

void JsonScan::end_container(const char* p, bool object) {
    if (in_object() != object) {
        fail(ErrorKind::syntax, "brackets do not match", p);
        return;
    }
    --depth_;
    if (depth_ == 0) {
        keys_.object_end = offset(p);
        state_ = State::done;
        return;
    }
    if (depth_ == 1) {
        if (in_stream_options_) {
            keys_.stream_options_span.end = offset(p) + 1;
        }
        in_stream_options_ = false;
        in_tokens_ = false;
        count_prompts_ = false;
    }
    end_value();
}

// An element of an array `prompt` begins that is a prompt of its own.
void JsonScan::count_prompt() {
    if (!count_prompts_) {
        return;
    }
    if (prompts_counted_ && keys_.prompt_count < ControlKeys::kMaxCount) {
        ++keys_.prompt_count;
    }
    prompts_counted_ = true;
}

void JsonScan::end_literal(const char* p) {
    if (Span* span = span_of(key_)) {
        span->end = offset(p);
    }
    if (literal_kind_ != 'n') {
        const bool value = literal_kind_ == 't';
        if (key_ == Key::stream) {
            keys_.stream = value;
        } else if (key_ == Key::include_usage) {
            keys_.include_usage = value;
        }
    }
    end_value();
}

// ---- numbers
// --------------------------------------------------------------------------------------------------

const char* JsonScan::number_bytes(const char* p, const char* end) {
    for (; p < end; ++p) {
        const char c = *p;
        const bool digit = is_digit(c);
        switch (number_) {
            case Number::minus:
            case Number::digits:
                if (digit) {
                    if (magnitude_ < kSaturated) {
                        magnitude_ = magnitude_ * 10 + static_cast<uint64_t>(c - '0');
                    }
                    number_ = number_ == Number::minus && c == '0' ? Number::zero : Number::digits;
                    continue;
                }
                break;
            case Number::dot:
            case Number::fraction:
                if (digit) {
                    number_ = Number::fraction;
                    continue;
                }
                break;
            case Number::exponent:
                if (c == '+' || c == '-') {
                    number_ = Number::exponent_sign;
                    continue;
                }
                [[fallthrough]];
            case Number::exponent_sign:
            case Number::exponent_digits:
                if (digit) {
                    number_ = Number::exponent_digits;
                    continue;
                }
                break;
            case Number::zero:
                break;
        }
        const bool whole = number_ == Number::zero || number_ == Number::digits;
        if (c == '.' && whole) {
            number_ = Number::dot;
        } else if ((c == 'e' || c == 'E') && (whole || number_ == Number::fraction)) {
            number_ = Number::exponent;
        } else if (whole || number_ == Number::fraction || number_ == Number::exponent_digits) {
            end_number(p);  // `after` refuses a wrong byte, as in 01 or 1x
            return p;
        } else {
            fail(ErrorKind::syntax, "malformed number", p);
            return p;
        }
        integer_ = false;
    }
    return p;
}

void JsonScan::end_number(const char* p) {
    if (Span* span = span_of(key_)) {
        span->end = offset(p);
    }
    switch (key_) {
        case Key::priority: {
            const uint64_t limit = negative_ ? 1ull << 31 : (1ull << 31) - 1;
            if (!integer_ || magnitude_ > limit) {
                wrong_type(p);
                return;
            }
            const auto magnitude = static_cast<int64_t>(magnitude_);
            keys_.priority = static_cast<int32_t>(negative_ ? -magnitude : magnitude);
            break;
        }
        case Key::max_tokens:
            set_count(keys_.max_tokens, p);
            break;
        case Key::max_completion_tokens:
            set_count(keys_.max_completion_tokens, p);
            break;
        case Key::max_output_tokens:
            set_count(keys_.max_output_tokens, p);
            break;
        case Key::n:
            set_count(keys_.n, p);
            break;
        default:
            if (in_tokens_ && depth_ <= 3 && integer_ && !in_object()) {
                ++keys_.prompt_tokens_given;
            }
            break;
    }
    if (!failed()) {
        end_value();
    }
}

void JsonScan::set_count(std::optional<uint32_t>& field, const char* p) {
    if (!integer_) {
        wrong_type(p);
    } else if (negative_ && magnitude_ != 0) {
        fail(ErrorKind::wrong_value, "a count is negative", p, key_);
    } else {
        field =
            static_cast<uint32_t>(magnitude_ < ControlKeys::kMaxCount ? magnitude_ : ControlKeys::kMaxCount);
    }
}

// ---- strings
// --------------------------------------------------------------------------------------------------

void JsonScan::begin_string(const char* p, bool is_key) {
    string_is_key_ = is_key;
    count_text_ = !is_key;
    data_match_ = 0;
    overflow_ = false;
    if (is_key) {
        capture_ = depth_ == 1 || (in_stream_options_ && depth_ == 2);
        key_size_ = 0;
        if (depth_ == 1) {
            keys_.object_empty = false;
        } else if (in_stream_options_ && depth_ == 2) {
            keys_.stream_options_empty = false;
        }
    } else {
        if (depth_ == 2) {
            count_prompt();
        }
        capture_ = key_ == Key::model || key_ == Key::routing_mode;
        if (!capture_ && key_ != Key::none && key_ < Key::prompt) {
            wrong_type(p);
            return;
        }
    }
    state_ = State::string;
}

const char* JsonScan::string_bytes(const char* p, const char* end) {
    if (need_ != 0) {
        p = utf8_continuation(p, end);
        if (p == end || failed()) {
            return p;
        }
    }
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
    if (*p == '\\') {
        state_ = State::escape;
        return p + 1;
    }
    if (ends_text(*p)) {
        fail(ErrorKind::syntax, "control character in a string", p);
        return p;
    }
    // A character that this piece cuts.
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

void JsonScan::end_string(const char* p) {
    if (string_is_key_) {
        end_key(p);
        return;
    }
    if (Span* span = span_of(key_)) {
        span->end = offset(p);
    }
    if (capture_) {
        (key_ == Key::model ? keys_.has_model : keys_.has_routing_mode) = true;
        if (overflow_ && too_long_ == Key::none) {
            too_long_ = key_;
        }
    }
    end_value();
}

void JsonScan::end_key(const char* p) {
    state_ = State::colon;
    if (!capture_ || overflow_) {
        return;
    }
    const std::string_view name{key_bytes_, key_size_};
    if (depth_ != 1) {
        key_ = name == kKeyNames[static_cast<size_t>(Key::include_usage)] ? Key::include_usage : Key::none;
    } else {
        for (size_t i = 1; i < kKeyNames.size(); ++i) {
            if (name == kKeyNames[i] && static_cast<Key>(i) != Key::include_usage) {
                key_ = static_cast<Key>(i);
                break;
            }
        }
    }
    if (key_ == Key::none || key_ >= Key::prompt) {
        return;
    }
    const uint32_t bit = 1u << static_cast<uint32_t>(key_);
    if (seen_ & bit) {
        fail(ErrorKind::duplicate, "a control key occurs twice", p, key_);
    }
    seen_ |= bit;
}

void JsonScan::escape_byte(const char* p) {
    const char c = *p;
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kBytes = "\"\\/\b\f\n\r\t";
    if (c == 'u') {
        hex_left_ = 4;
        unit_ = 0;
        state_ = State::hex;
        return;
    }
    const size_t index = kNames.find(c);
    if (index == std::string_view::npos) {
        fail(ErrorKind::syntax, "unknown escape", p);
        return;
    }
    append(&kBytes[index], 1);
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

// Decoded bytes of the open string. Runs are long or strings are short, so this is off the fast path.
void JsonScan::append(const char* p, size_t size) {
    if (count_text_) {
        if (data_match_ != kNoData) {
            match_data_uri(p, size);
        }
        if (count_text_) {
            keys_.text_bytes += size;
        }
    }
    if (!capture_ || overflow_) {
        return;
    }
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

// ---- the rest
// -------------------------------------------------------------------------------------------------

Span* JsonScan::span_of(Key key) {
    switch (key) {
        case Key::model:
            return &keys_.model_span;
        case Key::priority:
            return &keys_.priority_span;
        case Key::stream_options:
            return &keys_.stream_options_span;
        case Key::include_usage:
            return &keys_.include_usage_span;
        default:
            return nullptr;
    }
}

void JsonScan::fail(ErrorKind kind, const char* text, const char* p, Key key) {
    state_ = State::failed;
    error_kind_ = kind;
    error_ = text;
    error_key_ = key;
    error_offset_ = p != nullptr ? offset(p) : base_;
}

}  // namespace llm::core
