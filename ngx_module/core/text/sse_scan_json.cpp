// The tokenizer for the payload of events, and for answers that are one document.
#include <array>
#include <bit>
#include <cstring>

#include "ngx_module/core/text/sse_scan.hpp"
#include "ngx_module/core/text/string_skip.hpp"
#include "ngx_module/core/text/words.hpp"

namespace llm::core {
namespace {

constexpr uint64_t kMaxNumber = 1ull << 53;  // larger counts are nonsense; stops the overflow

bool is_line_end(char c) {
    return c == '\n' || c == '\r';
}

bool is_space(char c) {
    return c == ' ' || c == '\t' || is_line_end(c);
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

// Bytes outside strings at which something can change; numbers, commas and literals are passed over.
constexpr std::array<bool, 256> kStructural = [] {
    std::array<bool, 256> table{};
    for (unsigned char c : {'"', '{', '}', '[', ']', '\n', '\r'}) {
        table[c] = true;
    }
    return table;
}();

const char* find_structural(const char* p, const char* end) {
    for (int i = 0; i < 8; ++i, ++p) {  // nearly always near
        if (p == end || kStructural[static_cast<uint8_t>(*p)]) {
            return p;
        }
    }
#if LLM_MASKS
    for (; end - p >= 16; p += 16) {  // long arrays of numbers (embeddings)
        const uint32_t mask = structural_mask16(p);
        if (mask != 0) {
            return p + std::countr_zero(mask);
        }
    }
#endif
    while (p < end && !kStructural[static_cast<uint8_t>(*p)]) {
        ++p;
    }
    return p;
}

}  // namespace

// The functions below take bytes from [p, end) and return where to go on. In an event stream they leave line
// ends to the caller; in a document a line end is white space. `room`: that many bytes behind the end may be
// read.

const char* UsageScan::json_bytes(const char* p, const char* end, size_t room) {
    switch (token_) {
        case Token::outside:
            return outside_bytes(p, end, room);
        case Token::string:
            return string_bytes(p, end);
        case Token::escape:
            token_ = Token::string;
            return p + 1;
        case Token::after_string:
            if (is_space(*p)) {
                return p + 1;
            }
            token_ = Token::outside;
            if (*p != ':') {
                return p;
            }
            key_ = classify({key_bytes_, key_size_ == kNoKey ? size_t{0} : key_size_});
            if (key_ != Key::none) {
                token_ = Token::value;
            }
            return p + 1;
        case Token::value:
            if (is_space(*p)) {
                return p + 1;
            }
            return value_byte(p);
        case Token::text_byte:
            token_ = Token::outside;
            if (*p == '"') {
                return p + 1;
            }
            if (!event_content_) {
                text_ = p;
            }
            saw_content();
            begin_string();
            return p;
        case Token::choice:
            if (is_space(*p)) {
                return p + 1;
            }
            (*p == ']' ? event_choices_empty_ : event_choices_full_) = true;
            token_ = Token::outside;
            return p;
        case Token::number:
            return count_bytes(p, end);
    }
    return end;
}

// A line end within the payload. It ends a number, and a string that is not JSON.
void UsageScan::json_line_end() {
    if (token_ == Token::number) {
        end_number();
    } else if (token_ == Token::string || token_ == Token::escape || token_ == Token::text_byte) {
        token_ = Token::outside;
    }
}

// Digits of a count, and its end if it is there.
const char* UsageScan::count_bytes(const char* p, const char* end) {
    for (; p < end; ++p) {
        if (!is_digit(*p)) {
            end_number();
            break;
        }
        if (number_ < kMaxNumber) {
            number_ = number_ * 10 + static_cast<uint64_t>(*p - '0');
        }
    }
    return p;
}

// Brackets, numbers, and those strings that can be seen whole: the bulk of an event is settled in this loop.
const char* UsageScan::outside_bytes(const char* p, const char* end, size_t room) {
    while (p < end) {
        if (*p == ',' && ++p == end) {
            break;
        }
        if (!kStructural[static_cast<uint8_t>(*p)] && (p = find_structural(p + 1, end)) == end) {
            break;
        }
        const char c = *p;
        if (c == '{' || c == '[') {
            ++depth_;
        } else if (c == '}' || c == ']') {
            close_bracket();
        } else if (c != '"') {
            if (framing_ == Framing::sse) {
                return p;
            }
        } else {
#if LLM_MASKS
            // the bytes behind the quote, and the two that follow them
            const size_t seen = static_cast<size_t>(end - p) + room;
            if (seen > 18) {
                const uint32_t stop = text_end_mask16(p + 1);
                int size = std::countr_zero(stop | 1u << 16);
                if (stop == 0 && seen > 34) {
                    size += std::countr_zero(text_end_mask16(p + 17) | 1u << 15);
                }
                const char* const close = p + 1 + size;
                if (*close == '"' && close + 1 < end && !is_space(close[1])) {
                    if (close[1] != ':') {
                        p = close + 1;
                        continue;
                    }
                    key_ = classify({p + 1, static_cast<size_t>(size)});
                    p = close + 2;
                    if (key_ == Key::none) {
                        continue;
                    }
                    if (key_ < Key::prompt_tokens || p == end || !is_digit(*p)) {
                        token_ = Token::value;
                        return p;
                    }
                    number_ = 0;
                    token_ = Token::number;
                    p = count_bytes(p, end);
                    continue;
                }
            }
#endif
            begin_string();
            return p + 1;
        }
        ++p;
    }
    return p;
}

void UsageScan::begin_string() {
    token_ = Token::string;
    key_size_ = 0;
}

const char* UsageScan::string_bytes(const char* p, const char* end) {
    const char* const stop = find_text_end(p, end);
    const auto size = static_cast<size_t>(stop - p);
    if (size <= sizeof(key_bytes_) && key_size_ <= sizeof(key_bytes_) - size) {
        std::memcpy(key_bytes_ + key_size_, p, size);
        key_size_ = static_cast<uint8_t>(key_size_ + size);
    } else {
        key_size_ = kNoKey;
    }
    if (stop == end) {
        return stop;
    }
    if (*stop == '"') {
        token_ = Token::after_string;
        return stop + 1;
    }
    key_size_ = kNoKey;
    if (*stop == '\\') {
        token_ = Token::escape;
    } else if (framing_ == Framing::sse && is_line_end(*stop)) {
        return stop;
    }
    return stop + 1;
}

// What a key means in a usage object; `innermost` = not in an object within it. Whole words are compared:
// first and last bytes overlap.
UsageScan::Key UsageScan::count_key(std::string_view name, bool innermost) const {
    const char* const p = name.data();
    switch (name.size()) {
        case 12:
            return innermost && is8(p, "input_to") && is8(p + 4, "t_tokens") ? Key::input_tokens : Key::none;
        case 13:
            if (is8(p + 5, "d_tokens")) {
                return is8(p, "cached_t") ? Key::cached_tokens : Key::none;
            }
            if (!innermost || !is8(p + 5, "t_tokens")) {
                return Key::none;
            }
            return is8(p, "prompt_t")   ? Key::prompt_tokens
                   : is8(p, "output_t") ? Key::completion_tokens
                                        : Key::none;
        case 17:
            return innermost && is8(p, "completi") && is8(p + 8, "on_token") && p[16] == 's'
                       ? Key::completion_tokens
                       : Key::none;
        case 23:
            return innermost && name == "cache_read_input_tokens" ? Key::cache_read : Key::none;
        case 27:
            return innermost && name == "cache_creation_input_tokens" ? Key::cache_creation : Key::none;
        default:
            return Key::none;
    }
}

// What a key means at this place.
UsageScan::Key UsageScan::classify(std::string_view name) const {
    if (in_usage_) {
        return count_key(name, depth_ == usage_depth_);
    }
    const bool is_stream = framing_ == Framing::sse;
    switch (name.size()) {
        case 4:
            return is_stream && name == "text" ? Key::text : Key::none;
        case 5:
            if (name == "usage" && depth_ <= (is_stream ? kUsageDepth : 1)) {
                return Key::usage;
            }
            if (name == "error" && depth_ == 1) {
                return Key::error;
            }
            return !is_stream || name != "delta" ? Key::none : depth_ == 1 ? Key::delta : Key::text;
        case 7:
            if (is_stream && name == "choices" && depth_ == 1) {
                return Key::choices;
            }
            return is_stream && (name == "content" || name == "refusal") ? Key::text : Key::none;
        case 8:
            if (name == "response" && is_stream && depth_ == 1) {
                return Key::response;
            }
            return is_stream && name == "thinking" ? Key::text : Key::none;
        case 9:
            return is_stream && (name == "reasoning" || name == "arguments") ? Key::text : Key::none;
        case 12:
            return is_stream && name == "partial_json" ? Key::text : Key::none;
        case 15:
            return is_stream && depth_ == 1 && name == "sequence_number" ? Key::sequence : Key::none;
        case 17:
            return is_stream && name == "reasoning_content" ? Key::text : Key::none;
        default:
            return Key::none;
    }
}

// The first byte of the value of a key that matters.
const char* UsageScan::value_byte(const char* p) {
    token_ = Token::outside;
    switch (key_) {
        case Key::delta:
            event_delta_ = true;
            [[fallthrough]];
        case Key::text:
            if (*p == '"') {
                token_ = Token::text_byte;
                return p + 1;
            }
            return p;
        case Key::usage:
            if (*p == '{') {
                in_usage_ = true;
                usage_depth_ = ++depth_;
                usage_counted_ = false;
                pending_ = usage_.value_or(Counts{});
                return p + 1;
            }
            return p;
        case Key::choices:
            if (*p == '[') {
                ++depth_;
                token_ = Token::choice;
                return p + 1;
            }
            return p;
        case Key::sequence:
            event_sequence_ = true;
            return p;
        case Key::response:
            event_response_ = event_response_ || *p == '{';
            return p;
        case Key::error:
            if (*p == '{' || *p == '"') {
                event_error_ = true;
                error_seen_ = true;
            }
            return p;
        default:
            if (is_digit(*p)) {
                number_ = 0;
                token_ = Token::number;
            }
            return p;
    }
}

void UsageScan::close_bracket() {
    if (depth_ == 0) {
        return;
    }
    --depth_;
    if (in_usage_ && depth_ < usage_depth_) {
        in_usage_ = false;
        event_usage_ = true;
        if (usage_counted_) {
            usage_ = pending_;
        }
    }
    if (depth_ == 0) {
        json_complete_ = framing_ == Framing::json;
    }
}

void UsageScan::end_number() {
    token_ = Token::outside;
    usage_counted_ = true;
    pending_.put(key_, number_);
}

std::optional<ReportedUsage> UsageScan::usage() const {
    if (!usage_) {
        return std::nullopt;
    }
    ReportedUsage result = usage_->usage;
    if (usage_->cache_is_beside) {
        result.prompt_tokens += usage_->cache_read + usage_->cache_creation;
        result.cached_tokens += usage_->cache_read;
    }
    return result;
}

void UsageScan::saw_content() {
    event_content_ = true;
    content_seen_ = true;
}

}  // namespace llm::core
