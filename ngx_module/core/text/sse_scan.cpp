#include "ngx_module/core/text/sse_scan.hpp"

#include <array>
#include <bit>
#include <cstring>

#include "ngx_module/core/text/string_skip.hpp"

namespace llm::core {
namespace {

constexpr uint8_t kNoKey = 0xff;             // key_size_ of a string that is too long or has escapes
constexpr uint64_t kMaxNumber = 1ull << 53;  // larger counts are nonsense; stops the overflow
constexpr std::string_view kField = "data:";
constexpr std::string_view kDone = "[DONE]";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

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
#if defined(__x86_64__)
    // Long arrays of numbers (embeddings). Setting bit 5 maps both brackets to the braces.
    while (end - p >= 16) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i folded = _mm_or_si128(x, _mm_set1_epi8(0x20));
        const __m128i brackets = _mm_or_si128(_mm_cmpeq_epi8(folded, _mm_set1_epi8('{')),
                                              _mm_cmpeq_epi8(folded, _mm_set1_epi8('}')));
        const __m128i lines =
            _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8('\n')), _mm_cmpeq_epi8(x, _mm_set1_epi8('\r')));
        const __m128i found =
            _mm_or_si128(_mm_or_si128(brackets, lines), _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
        const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(found));
        if (mask != 0) {
            return p + std::countr_zero(mask);
        }
        p += 16;
    }
#endif
    while (p < end && !kStructural[static_cast<uint8_t>(*p)]) {
        ++p;
    }
    return p;
}

const char* find_line_end(const char* p, const char* end) {
    while (p < end && !is_line_end(*p)) {
        ++p;
    }
    return p;
}

}  // namespace

void UsageScan::reset(Framing framing) {
    framing_ = framing;
    line_ = Line::start;
    after_cr_ = false;
    after_event_cr_ = false;
    at_start_ = true;
    event_empty_ = true;
    matched_ = 0;
    last_kind_ = StreamEvent::other;
    usage_.reset();
    content_events_ = 0;
    content_seen_ = false;
    done_ = false;
    error_seen_ = false;
    json_complete_ = false;
    begin_event();
}

void UsageScan::begin_event() {
    event_data_ = false;
    event_done_ = false;
    event_content_ = false;
    event_usage_ = false;
    event_error_ = false;
    event_choices_empty_ = false;
    event_choices_full_ = false;
    token_ = Token::outside;
    key_ = Key::none;
    in_usage_ = false;
    depth_ = 0;
    usage_depth_ = 0;
}

void UsageScan::feed(std::string_view bytes) {
    if (framing_ == Framing::json) {
        const char* p = bytes.data();
        const char* const end = p + bytes.size();
        while (p < end) {
            p = json_bytes(p, end);
        }
        return;
    }
    while (!bytes.empty()) {
        bytes.remove_prefix(next(bytes).size);
    }
}

UsageScan::Piece UsageScan::next(std::string_view bytes) {
    Piece piece;
    if (framing_ == Framing::json) {
        feed(bytes);
        piece.size = bytes.size();
        return piece;
    }
    const char* const begin = bytes.data();
    const char* const end = begin + bytes.size();
    const char* p = begin;
    if (after_cr_ && p < end) {
        after_cr_ = false;
        if (*p == '\n') {
            ++p;
            if (after_event_cr_) {
                after_event_cr_ = false;
                return {1, true, last_kind_};
            }
        }
        after_event_cr_ = false;
    }
    while (p < end && !piece.ends_event) {
        p = line_bytes(p, end, piece);
    }
    piece.size = static_cast<size_t>(p - begin);
    return piece;
}

bool UsageScan::may_become_usage_only() const {
    return !event_content_ && !event_error_ && !event_done_ && !event_choices_full_;
}

// ---- lines ----

const char* UsageScan::line_bytes(const char* p, const char* end, Piece& piece) {
    switch (line_) {
        case Line::start:
            if (is_line_end(*p)) {
                break;
            }
            if (at_start_ && *p == kByteOrderMark[0]) {
                line_ = Line::bom;
                matched_ = 1;
                at_start_ = false;
                return p + 1;
            }
            at_start_ = false;
            event_empty_ = false;
            line_ = Line::field;
            matched_ = 0;
            [[fallthrough]];
        case Line::field:
            while (p < end && *p == kField[matched_]) {
                ++p;
                if (++matched_ == kField.size()) {
                    line_ = Line::after_colon;
                    return p;
                }
            }
            if (p == end || is_line_end(*p)) {
                break;
            }
            line_ = Line::skip;
            return p;
        case Line::bom:
            if (*p == kByteOrderMark[matched_]) {
                if (++matched_ == kByteOrderMark.size()) {
                    line_ = Line::start;
                }
                return p + 1;
            }
            event_empty_ = false;
            line_ = Line::skip;
            return p;
        case Line::after_colon:
            line_ = event_data_ ? Line::payload : Line::payload_start;
            event_data_ = true;
            matched_ = 0;
            return *p == ' ' ? p + 1 : p;
        case Line::payload_start:
            // The only payload that is no JSON object. Its first byte tells the two apart.
            while (p < end && matched_ < kDone.size() && *p == kDone[matched_]) {
                ++p;
                ++matched_;
            }
            if (matched_ == kDone.size()) {
                event_done_ = true;
                done_ = true;
                line_ = Line::skip;
                return p;
            }
            if (p == end) {
                return p;
            }
            line_ = matched_ == 0 ? Line::payload : Line::skip;
            return p;
        case Line::payload:
            while (p < end && !is_line_end(*p)) {
                p = json_bytes(p, end);
            }
            break;
        case Line::skip:
            p = find_line_end(p, end);
            break;
    }
    if (p == end) {
        return p;
    }
    return end_line(p, end, piece);
}

// A line ends at `p`; the LF of a CRLF is taken too if it is there.
const char* UsageScan::end_line(const char* p, const char* end, Piece& piece) {
    const bool blank = line_ == Line::start;
    if (line_ == Line::payload) {
        json_line_end();
    }
    line_ = Line::start;
    at_start_ = false;
    const bool is_cr = *p++ == '\r';
    if (is_cr && p < end && *p == '\n') {
        ++p;
    } else {
        after_cr_ = is_cr && p == end;
    }
    if (blank) {
        after_event_cr_ = after_cr_;
        end_event(piece);
    }
    return p;
}

void UsageScan::end_event(Piece& piece) {
    StreamEvent kind = StreamEvent::other;
    if (event_done_) {
        kind = StreamEvent::done;
    } else if (event_error_) {
        kind = StreamEvent::error;
    } else if (event_content_) {
        kind = StreamEvent::content;
        ++content_events_;
    } else if (event_choices_empty_ && event_usage_) {
        kind = StreamEvent::usage_only;
    }
    last_kind_ = kind;
    piece.ends_event = true;
    piece.kind = kind;
    event_empty_ = true;
    begin_event();
}

// ---- JSON ----
//
// The functions below take bytes from [p, end) and return where to go on. In an event stream they leave line
// ends to the caller; in a document a line end is white space.

const char* UsageScan::json_bytes(const char* p, const char* end) {
    switch (token_) {
        case Token::outside:
            p = find_structural(p, end);
            return p == end ? p : structural_byte(p);
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
            key_ = classify();
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
            if (is_digit(*p)) {
                if (number_ < kMaxNumber) {
                    number_ = number_ * 10 + static_cast<uint64_t>(*p - '0');
                }
                return p + 1;
            }
            end_number();
            return p;
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

const char* UsageScan::structural_byte(const char* p) {
    switch (*p) {
        case '"':
            begin_string();
            return p + 1;
        case '{':
        case '[':
            ++depth_;
            return p + 1;
        case '}':
        case ']':
            close_bracket();
            return p + 1;
        default:
            return framing_ == Framing::sse ? p : p + 1;
    }
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
    } else if (*stop == '\\') {
        key_size_ = kNoKey;
        token_ = Token::escape;
    } else if (framing_ == Framing::sse && is_line_end(*stop)) {
        return stop;
    }
    return stop + 1;
}

// What the key just read means at this place.
UsageScan::Key UsageScan::classify() const {
    const std::string_view name{key_bytes_, key_size_ == kNoKey ? size_t{0} : key_size_};
    if (in_usage_) {
        if (name == "cached_tokens") {
            return Key::cached_tokens;
        }
        if (depth_ == usage_depth_) {
            if (name == "prompt_tokens" || name == "input_tokens") {
                return Key::prompt_tokens;
            }
            if (name == "completion_tokens" || name == "output_tokens") {
                return Key::completion_tokens;
            }
        }
        return Key::none;
    }
    const bool is_stream = framing_ == Framing::sse;
    switch (name.size()) {
        case 4:
            return is_stream && name == "text" ? Key::text : Key::none;
        case 5:
            if (name == "usage" && (is_stream || depth_ == 1)) {
                return Key::usage;
            }
            if (name == "error" && depth_ == 1) {
                return Key::error;
            }
            return is_stream && name == "delta" ? Key::text : Key::none;
        case 7:
            if (name == "choices" && depth_ == 1) {
                return Key::choices;
            }
            return is_stream && (name == "content" || name == "refusal") ? Key::text : Key::none;
        case 9:
            return is_stream && (name == "reasoning" || name == "arguments") ? Key::text : Key::none;
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
                pending_ = usage_.value_or(ReportedUsage{});
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
    switch (key_) {
        case Key::prompt_tokens:
            pending_.prompt_tokens = number_;
            break;
        case Key::completion_tokens:
            pending_.completion_tokens = number_;
            break;
        default:
            pending_.cached_tokens = number_;
            break;
    }
}

void UsageScan::saw_content() {
    event_content_ = true;
    content_seen_ = true;
}

}  // namespace llm::core
