#include "ngx_module/core/text/multipart.hpp"

#include <array>
#include <charconv>
#include <cstring>

#include "ngx_module/core/text/ascii.hpp"
#include "ngx_module/core/text/header_parameters.hpp"
#include "ngx_module/core/text/string_skip.hpp"

namespace llm::core {
namespace {

// Order of MultipartScan::Field.
constexpr std::array<std::string_view, 6> kFieldNames = {"",         "model", "stream",
                                                         "priority", "n",     "routing-mode"};

constexpr std::string_view kDelimiterStart = "\r\n--";

// bchars of RFC 2046, section 5.1.1.
bool is_boundary_byte(char c) {
    return is_alphanumeric(c) || std::string_view("'()+_,-./:=? ").find(c) != std::string_view::npos;
}

// Splits "multipart/form-data; …" behind the type. False if it is another type.
bool take_form_data(std::string_view& content_type) {
    constexpr std::string_view kType = "multipart/form-data";
    skip_blanks(content_type);
    if (content_type.size() < kType.size() ||
        !equal_ignoring_case(content_type.substr(0, kType.size()), kType)) {
        return false;
    }
    content_type.remove_prefix(kType.size());
    return content_type.empty() || content_type.front() == ';' || is_blank(content_type.front());
}

bool parse_boolean(std::string_view text, bool& value) {
    value = text == "true" || text == "True" || text == "1";
    return value || text == "false" || text == "False" || text == "0";
}

template <typename Integer>
bool parse_integer(std::string_view text, Integer& value) {
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    return error == std::errc() && stop == end;
}

}  // namespace

bool MultipartScan::is_multipart(std::string_view content_type) {
    return take_form_data(content_type);
}

bool MultipartScan::begin(std::string_view content_type) {
    *this = MultipartScan();
    bool found = false;
    if (!take_form_data(content_type)) {
        fail(ErrorKind::syntax, "not multipart/form-data");
        return false;
    }
    for (;;) {
        Parameter parameter;
        const Taken taken = take_parameter(content_type, parameter);
        if (taken == Taken::end) {
            break;
        }
        if (taken == Taken::malformed) {
            fail(ErrorKind::syntax, "malformed Content-Type");
            return false;
        }
        if (!equal_ignoring_case(parameter.name, "boundary")) {
            continue;
        }
        const std::string_view boundary = parameter.value;
        bool valid = !found && !boundary.empty() && boundary.back() != ' ';
        for (char c : boundary) {
            valid = valid && is_boundary_byte(c);
        }
        if (!valid || boundary.size() > kMaxBoundary) {
            fail(valid ? ErrorKind::too_large : ErrorKind::syntax, "malformed multipart boundary");
            return false;
        }
        found = true;
        std::memcpy(delimiter_, kDelimiterStart.data(), kDelimiterStart.size());
        std::memcpy(delimiter_ + kDelimiterStart.size(), boundary.data(), boundary.size());
        delimiter_size_ = static_cast<uint8_t>(kDelimiterStart.size() + boundary.size());
    }
    if (!found) {
        fail(ErrorKind::syntax, "no multipart boundary");
        return false;
    }
    state_ = State::first_boundary;
    return true;
}

void MultipartScan::feed(std::string_view chunk) {
    if (state_ == State::failed || chunk.empty()) {
        return;
    }
    chunk_ = chunk.data();
    const char* p = chunk_;
    const char* const end = p + chunk.size();
    if (base_ == 0 && *p == '-') {
        matched_ = 2;  // the CR LF of the first delimiter is optional
    }
    while (p < end && state_ != State::failed) {
        p = step(p, end);
    }
    if (state_ == State::failed) {
        error_offset_ = offset(p);
    }
    base_ += chunk.size();
    chunk_ = nullptr;
}

bool MultipartScan::finish() {
    if (failed()) {
        return false;
    }
    if (base_ == 0) {
        fail(ErrorKind::empty, "no body");
    } else if (state_ != State::epilogue) {
        error_offset_ = base_;
        fail(ErrorKind::truncated, "the multipart body is not complete");
    } else if (too_long_ != Field::none) {
        fail(ErrorKind::value_too_long, "value too long", too_long_);
    }
    return !failed();
}

std::string_view MultipartScan::error_key() const {
    return kFieldNames[static_cast<size_t>(error_field_)];
}

const char* MultipartScan::step(const char* p, const char* end) {
    const char c = *p;
    switch (state_) {
        case State::first_boundary:
            if (c != delimiter_[matched_]) {
                fail(ErrorKind::syntax, "the body does not begin with the multipart boundary");
            } else if (++matched_ == delimiter_size_) {
                state_ = State::boundary_end;
            }
            return p + 1;
        case State::boundary_end:
            if (c == '\r') {
                state_ = State::boundary_lf;
            } else if (c == '-') {
                state_ = State::closing_dash;
            } else {
                fail(ErrorKind::syntax, "bytes after a multipart boundary");
            }
            return p + 1;
        case State::closing_dash:
            if (c == '-') {
                state_ = State::epilogue;
            } else {
                fail(ErrorKind::syntax, "bytes after a multipart boundary");
            }
            return p + 1;
        case State::boundary_lf:
            if (c == '\n') {
                begin_part();
            } else {
                fail(ErrorKind::syntax, "CR without LF in a multipart body");
            }
            return p + 1;
        case State::header_line:
            return header_bytes(p, end);
        case State::header_lf:
            if (c != '\n') {
                fail(ErrorKind::syntax, "CR without LF in a multipart header");
            } else if (line_size_ == 0) {
                begin_body(p + 1);
            } else {
                end_header_line();
            }
            return p + 1;
        case State::body:
            return body_bytes(p, end);
        case State::epilogue:
            if (c != '\r' && c != '\n') {
                fail(ErrorKind::syntax, "bytes after the last multipart boundary");
            }
            return p + 1;
        case State::failed:
            break;
    }
    return end;
}

// ---- header lines of a part ----

void MultipartScan::begin_part() {
    if (++parts_ > kMaxParts) {
        fail(ErrorKind::too_large, "too many parts");
        return;
    }
    has_disposition_ = false;
    is_file_ = false;
    encoded_ = false;
    field_ = Field::none;
    line_size_ = 0;
    headers_size_ = 0;
    state_ = State::header_line;
}

const char* MultipartScan::header_bytes(const char* p, const char* end) {
    for (; p < end; ++p) {
        if (*p == '\r') {
            state_ = State::header_lf;
            return p + 1;
        }
        if (*p == '\n' || *p == '\0') {
            fail(ErrorKind::syntax, "LF or NUL in a multipart header");
            return p;
        }
        if (line_size_ == kMaxHeaderLine || headers_size_ == kMaxPartHeaders) {
            fail(ErrorKind::too_large, "multipart header too large");
            return p;
        }
        line_[line_size_++] = *p;
        ++headers_size_;
    }
    return p;
}

void MultipartScan::end_header_line() {
    std::string_view rest{line_, line_size_};
    const std::string_view name = take_token(rest);
    if (name.empty() || rest.empty() || rest.front() != ':') {
        fail(ErrorKind::syntax, "malformed multipart header");  // a folded line too
        return;
    }
    rest.remove_prefix(1);
    skip_blanks(rest);
    if (equal_ignoring_case(name, "content-disposition")) {
        if (has_disposition_ || !parse_disposition(rest)) {
            fail(ErrorKind::syntax, "malformed Content-Disposition");
            return;
        }
        has_disposition_ = true;
    } else if (equal_ignoring_case(name, "content-transfer-encoding")) {
        // Some clients say that they encode nothing (RFC 7578, section 4.7, only discourages that).
        encoded_ = encoded_ || !(equal_ignoring_case(rest, "7bit") || equal_ignoring_case(rest, "8bit") ||
                                 equal_ignoring_case(rest, "binary"));
    }
    line_size_ = 0;
    state_ = State::header_line;
}

bool MultipartScan::parse_disposition(std::string_view value) {
    if (!equal_ignoring_case(take_token(value), "form-data")) {
        return false;
    }
    bool named = false;
    for (;;) {
        Parameter parameter;
        const Taken taken = take_parameter(value, parameter);
        if (taken != Taken::parameter) {
            return taken == Taken::end && named;
        }
        if (equal_ignoring_case(parameter.name, "name")) {
            if (named || parameter.escaped) {
                return false;
            }
            named = true;
            for (size_t i = 1; i < kFieldNames.size(); ++i) {
                if (parameter.value == kFieldNames[i]) {
                    field_ = static_cast<Field>(i);
                }
            }
        } else if (equal_ignoring_case(parameter.name.substr(0, 5), "name*")) {
            return false;
        } else if (equal_ignoring_case(parameter.name.substr(0, 8), "filename")) {
            is_file_ = true;
        }
    }
}

// ---- contents ----

void MultipartScan::begin_body(const char* p) {
    if (!has_disposition_) {
        fail(ErrorKind::syntax, "a part without Content-Disposition");
        return;
    }
    const uint32_t bit = 1u << static_cast<uint32_t>(field_);
    if (field_ != Field::none) {
        if (seen_ & bit) {
            fail(ErrorKind::duplicate, "a control field occurs twice", field_);
            return;
        }
        if (is_file_ || encoded_) {
            fail(ErrorKind::wrong_type, "a control field is a file or encoded", field_);
            return;
        }
        seen_ |= bit;
    }
    value_size_ = 0;
    overflow_ = false;
    matched_ = 0;
    content_ = {offset(p), offset(p)};
    state_ = State::body;
}

// The delimiter's first byte does not occur in it again, so a failed match is all content.
const char* MultipartScan::body_bytes(const char* p, const char* end) {
    while (p < end) {
        if (matched_ == 0) {
            const void* const found = std::memchr(p, '\r', static_cast<size_t>(end - p));
            const char* const stop = found != nullptr ? static_cast<const char*>(found) : end;
            content(p, static_cast<size_t>(stop - p));
            if (stop == end) {
                return end;
            }
            matched_ = 1;
            p = stop + 1;
        } else if (*p == delimiter_[matched_]) {
            ++p;
            if (++matched_ == delimiter_size_) {
                end_part();
                return p;
            }
        } else {
            content(delimiter_, matched_);
            matched_ = 0;
        }
    }
    return p;
}

void MultipartScan::content(const char* p, size_t size) {
    content_.end += size;
    if (field_ == Field::none || overflow_) {
        return;
    }
    if (size > sizeof(value_) - value_size_) {
        overflow_ = true;
        return;
    }
    std::memcpy(value_ + value_size_, p, size);
    value_size_ = static_cast<uint16_t>(value_size_ + size);
}

void MultipartScan::end_part() {
    state_ = State::boundary_end;
    if (!is_file_) {
        keys_.text_bytes += content_.end - content_.begin;
    }
    if (field_ == Field::none) {
        return;
    }
    if (field_ == Field::model) {
        keys_.model_span = content_;
    } else if (field_ == Field::priority) {
        keys_.priority_span = content_;
    }
    if (!overflow_) {
        set_field({value_, value_size_});
    } else if (field_ == Field::model || field_ == Field::routing_mode) {
        too_long_ = field_;
        (field_ == Field::model ? keys_.has_model : keys_.has_routing_mode) = true;
    } else {
        fail(ErrorKind::wrong_type, "wrong type of a control field", field_);
    }
}

void MultipartScan::set_field(std::string_view value) {
    bool valid = true;
    if (field_ == Field::model || field_ == Field::routing_mode) {
        if (!is_valid_utf8(value)) {
            fail(ErrorKind::invalid_utf8, "invalid UTF-8", field_);
            return;
        }
    } else if (value.empty()) {
        return;  // an empty form field is an absent one
    }
    switch (field_) {
        case Field::model:
            keys_.has_model = true;
            keys_.model_size = static_cast<uint8_t>(value.size());
            std::memcpy(keys_.model_bytes, value.data(), value.size());
            break;
        case Field::routing_mode:
            keys_.has_routing_mode = true;
            if (value.size() > ControlKeys::kMaxRoutingMode) {
                too_long_ = field_;
                break;
            }
            keys_.routing_mode_size = static_cast<uint8_t>(value.size());
            std::memcpy(keys_.routing_mode_bytes, value.data(), value.size());
            break;
        case Field::stream: {
            bool flag = false;
            valid = parse_boolean(value, flag);
            keys_.stream = flag;
            break;
        }
        case Field::priority: {
            int32_t number = 0;
            valid = parse_integer(value, number);
            keys_.priority = number;
            break;
        }
        case Field::n: {
            uint32_t number = 0;
            valid = parse_integer(value, number);
            keys_.n = number < ControlKeys::kMaxCount ? number : ControlKeys::kMaxCount;
            break;
        }
        case Field::none:
            break;
    }
    if (!valid) {
        fail(ErrorKind::wrong_type, "wrong type of a control field", field_);
    }
}

void MultipartScan::fail(ErrorKind kind, const char* text, Field field) {
    state_ = State::failed;
    error_kind_ = kind;
    error_ = text;
    error_field_ = field;
}

}  // namespace llm::core
