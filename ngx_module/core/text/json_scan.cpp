#include "ngx_module/core/text/json_scan.hpp"

#include <cstring>

#include "ngx_module/core/text/json_scan_inline.hpp"

namespace llm::core {
namespace {

constexpr ptrdiff_t kWorthACopy = 32;  // fewer bytes are not worth a copy for whole_tokens()

bool is_space(char c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

}  // namespace

void JsonScan::feed(std::string_view chunk) {
    const char* p = chunk.data();
    const char* const end = p + chunk.size();
    shift_ = size_ - reinterpret_cast<uintptr_t>(p);
    size_ += chunk.size();
    if (state_ == State::text) {
        p = text_bytes(p, end);
    }
    if (chunk.size() < kAhead) {
        scan_short(p, end);
        return;
    }
    if (end - p > static_cast<ptrdiff_t>(kAhead)) {
        p = scan(p, end, end - kAhead);
    }
    if (p != end) {
        scan_end(p, end, kAhead);
    }
}

// The rest of a short piece.
void JsonScan::scan_short(const char* p, const char* end) {
    if (end - p >= kWorthACopy) {
        scan_end(p, end, static_cast<size_t>(end - p));
        return;
    }
    while (p != end && !failed()) {
        p = state_ >= State::text ? inside_token(p, end) : between_tokens(p, end);
    }
}

// The rest of the piece from `p` on. whole_tokens() reads ahead, so what lies too near the end for that is
// scanned in a copy with room behind it: of the last `copied` bytes, at most kAhead.
[[gnu::noinline]] void JsonScan::scan_end(const char* p, const char* end, size_t copied) {
    char copy[2 * kAhead];
    if (copied == kAhead) [[likely]] {
        std::memcpy(copy, end - kAhead, kAhead);  // in a few instructions
    } else {
        std::memcpy(copy, end - copied, copied);
    }
    char* const copy_end = copy + copied;
    std::memset(copy_end, 0, kAhead);
    shift_ += reinterpret_cast<uintptr_t>(end) - reinterpret_cast<uintptr_t>(copy_end);
    scan(copy_end - (end - p), copy_end, copy_end);
}

// Scans up to the end, or to a token border at or behind `limit`.
inline const char* JsonScan::scan(const char* p, const char* end, const char* limit) {
    p = whole_tokens(p, end, limit);
    return p >= limit ? p : careful_scan(p, end, limit);
}

// The same when something is not of the common kind.
const char* JsonScan::careful_scan(const char* p, const char* end, const char* limit) {
    while (p < end) {
        if (state_ >= State::text) {
            if (failed()) {
                return p;
            }
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

bool JsonScan::finish() {
    if (failed()) {
        return false;
    }
    if (size_ == 0) {
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
                state_ = place_ >= Place::object ? State::key : State::value;
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
        enter(Place::top, State::object_first);
    } else if (c == '[' || c == '"' || c == '-' || c == 't' || c == 'f' || c == 'n' || is_digit(c)) {
        fail(ErrorKind::not_object, "the top level is not an object", p);
    } else {
        fail(ErrorKind::syntax, c == '\xef' ? "byte order mark" : "not JSON", p);
    }
}

// The rest of a token that is longer than a byte, or as much of it as [p, end) holds.
const char* JsonScan::inside_token(const char* p, const char* end) {
    switch (state_) {
        case State::text:
            return text_bytes(p, end);
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

void JsonScan::fail(ErrorKind kind, const char* text, const char* p, Key key) {
    state_ = State::failed;
    error_kind_ = kind;
    error_ = text;
    error_key_ = key;
    error_offset_ = p != nullptr ? offset(p) : size_;
}

}  // namespace llm::core
