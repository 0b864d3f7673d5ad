// Values: types of control keys, brackets, literals and numbers.
#include "ngx_module/core/text/json_scan.hpp"
#include "ngx_module/core/text/json_scan_inline.hpp"

namespace llm::core {
namespace {

constexpr uint64_t kSaturated = 1ull << 32;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

}  // namespace

// Any value but a string begins at `p`.
const char* JsonScan::begin_value(const char* p) {
    if (Span* span = span_of(key_)) {
        span->begin = offset(p);
    }
    const char c = *p;
    switch (c) {
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

const char* JsonScan::literal_bytes(const char* p, const char* end) {
    for (; p < end; ++p) {
        if (*p != *literal_) {
            fail(ErrorKind::syntax, "unknown literal", p);
            return p;
        }
        if (*++literal_ == '\0') {
            end_literal(p + 1);
            return p + 1;
        }
    }
    return p;
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
            if (integer_ && place_ <= Place::tokens) {
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
        if (key_ == Key::n) {
            fail(ErrorKind::wrong_value, "a count is negative", p, key_);
        }  // else no limit to some engines (llama.cpp, Ollama), a mistake to others: they say so
    } else {
        field =
            static_cast<uint32_t>(magnitude_ < ControlKeys::kMaxCount ? magnitude_ : ControlKeys::kMaxCount);
    }
}

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

}  // namespace llm::core
