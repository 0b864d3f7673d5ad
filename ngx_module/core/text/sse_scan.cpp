// Lines and events of an event stream; sse_scan_json.cpp reads what is in them.
#include "ngx_module/core/text/sse_scan.hpp"

namespace llm::core {
namespace {

constexpr std::string_view kField = "data:";
constexpr std::string_view kDone = "[DONE]";
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_line_end(char c) {
    return c == '\n' || c == '\r';
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
    pattern_.forget();
    begin_event();
}

void UsageScan::begin_event() {
    event_data_ = false;
    event_done_ = false;
    event_content_ = false;
    event_usage_ = false;
    event_sequence_ = false;
    event_delta_ = false;
    event_response_ = false;
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
        document_bytes(bytes.data(), bytes.data() + bytes.size());
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
    const bool between_events = at_event_boundary() && !after_cr_;
    if (between_events) {
        // The same bytes at the same place mean the same: only events that are not like the last one are
        // read.
        if (const size_t size = pattern_.match(bytes); size != 0) {
            ++content_events_;
            last_kind_ = StreamEvent::content;
            return {size, true, StreamEvent::content};
        }
    }
    const char* const begin = bytes.data();
    const char* const end = begin + bytes.size();
    const char* p = begin;
    text_ = nullptr;
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
    if (between_events && piece.ends_event && text_ != nullptr) {
        pattern_.learn(bytes.substr(0, piece.size), static_cast<size_t>(text_ - begin));
    }
    return piece;
}

bool UsageScan::may_become_usage_only() const {
    return !event_content_ && !event_error_ && !event_done_ && !event_choices_full_;
}

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
    } else if (event_content_ && (!event_sequence_ || event_delta_)) {
        kind = StreamEvent::content;
        ++content_events_;
    } else if (event_choices_empty_ && event_usage_) {
        kind = StreamEvent::usage_only;
    }
    done_ = done_ || (event_response_ && event_usage_);
    if (kind != StreamEvent::content || event_usage_ || in_usage_) {
        text_ = nullptr;  // counts change: every such event is read
    }
    last_kind_ = kind;
    piece.ends_event = true;
    piece.kind = kind;
    event_empty_ = true;
    begin_event();
}

}  // namespace llm::core
