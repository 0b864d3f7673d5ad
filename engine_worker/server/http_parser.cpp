#include "engine_worker/server/http_parser.hpp"

#include <algorithm>
#include <utility>

#include "shared/hex.hpp"

namespace llm::engine {
namespace {

constexpr size_t kMaxFramingLine = 256;  // a chunk's size with its extensions, or one trailer line
constexpr size_t kMaxTrailer = 8192;

// RFC 9110 section 5.6.2: the characters of methods and header names.
bool is_token_char(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos);
}

bool is_token(std::string_view text) {
    return !text.empty() && std::all_of(text.begin(), text.end(), is_token_char);
}

std::string lower(std::string_view text) {
    std::string out(text);
    for (char& c : out) {
        c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
    }
    return out;
}

std::string_view trim(std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) {
        text.remove_prefix(1);
    }
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) {
        text.remove_suffix(1);
    }
    return text;
}

// False on a broken escape or an escaped NUL.
bool percent_decode(std::string_view text, std::string& out) {
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (i + 2 >= text.size()) {
            return false;
        }
        const int high = hex_value(text[i + 1]);
        const int low = hex_value(text[i + 2]);
        if (high < 0 || low < 0 || (high | low) == 0) {
            return false;
        }
        out += static_cast<char>(high * 16 + low);
        i += 2;
    }
    return true;
}

// Members of a comma-separated list, trimmed and in lower case.
bool list_has(std::string_view list, std::string_view wanted) {
    while (!list.empty()) {
        const size_t comma = std::min(list.find(','), list.size());
        if (lower(trim(list.substr(0, comma))) == wanted) {
            return true;
        }
        list.remove_prefix(std::min(comma + 1, list.size()));
    }
    return false;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
    for (const auto& [key, value] : headers) {
        if (key == name) {
            return value;
        }
    }
    return {};
}

void HttpParser::reset() {
    state_ = State::head;
    part_ = Part::length;
    head_.clear();
    line_.clear();
    request_ = {};
    left_ = 0;
    trailer_bytes_ = 0;
    expect_continue_ = false;
}

void HttpParser::refuse(int status, std::string reason) {
    state_ = State::refused;
    status_ = status;
    reason_ = std::move(reason);
}

bool HttpParser::take_expect_continue() {
    return std::exchange(expect_continue_, false);
}

size_t HttpParser::feed(std::string_view bytes) {
    size_t used = 0;
    while (used < bytes.size() && (state_ == State::head || state_ == State::body)) {
        const std::string_view rest = bytes.substr(used);
        used += state_ == State::head ? feed_head(rest) : feed_body(rest);
    }
    return used;
}

size_t HttpParser::feed_head(std::string_view bytes) {
    for (size_t i = 0; i < bytes.size(); ++i) {
        const char c = bytes[i];
        if (c == '\n' && (head_.empty() || head_.back() != '\r')) {
            refuse(400, "a line of the request head does not end with CRLF");
            return i + 1;
        }
        if (head_.empty() && !is_token_char(c) && c != '\r') {
            refuse(400, "this is not HTTP");  // TLS, most often: its client would wait for an answer to more
            return i + 1;
        }
        head_ += c;
        if (head_.size() > limits_.max_head) {
            refuse(431, "the request head is too large");
            return i + 1;
        }
        if (c == '\n') {
            if (head_.size() == 2) {
                head_.clear();  // RFC 9112 section 2.2: an empty line before the request line is ignored
            } else if (head_.size() >= 4 && head_[head_.size() - 3] == '\n') {
                parse_head();
                return i + 1;
            }
        }
    }
    return bytes.size();
}

void HttpParser::parse_head() {
    std::string_view rest(head_);
    rest.remove_suffix(2);
    bool first = true;
    while (!rest.empty()) {
        const size_t end = rest.find("\r\n");
        const std::string_view line = rest.substr(0, end);
        rest.remove_prefix(end + 2);
        if (!(first ? parse_request_line(line) : parse_header(line))) {
            return;
        }
        first = false;
    }
    frame_body();
}

bool HttpParser::parse_request_line(std::string_view line) {
    const size_t first = line.find(' ');
    const size_t last = line.rfind(' ');
    if (first == std::string_view::npos || first == last || !is_token(line.substr(0, first))) {
        refuse(400, "malformed request line");
        return false;
    }
    const std::string_view version = line.substr(last + 1);
    if (version != "HTTP/1.1" && version != "HTTP/1.0") {
        const bool http = version.substr(0, 5) == "HTTP/";
        refuse(http ? 505 : 400, http ? "HTTP version not supported" : "malformed request line");
        return false;
    }
    request_.minor_version = version.back() - '0';
    request_.keep_alive = request_.minor_version == 1;
    request_.method = line.substr(0, first);
    std::string_view target = line.substr(first + 1, last - first - 1);
    request_.target = target;
    if (!std::all_of(target.begin(), target.end(), [](char c) { return c > 0x20 && c != 0x7f; })) {
        refuse(400, "malformed request target");
        return false;
    }
    if (target.substr(0, 7) == "http://") {  // absolute form, as sent to proxies
        target.remove_prefix(7);
        target.remove_prefix(std::min(target.find('/'), target.size()));
    }
    const size_t question = target.find('?');
    if (question != std::string_view::npos) {
        request_.query = target.substr(question + 1);
        target = target.substr(0, question);
    }
    if (target.empty() || (target.front() != '/' && target != "*") ||
        !percent_decode(target, request_.path)) {
        refuse(400, "malformed request target");
        return false;
    }
    return true;
}

bool HttpParser::parse_header(std::string_view line) {
    const size_t colon = line.find(':');
    if (colon == std::string_view::npos || !is_token(line.substr(0, colon))) {
        refuse(400, "malformed header line");
        return false;
    }
    const std::string_view value = trim(line.substr(colon + 1));
    const auto bad = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; };
    if (std::any_of(value.begin(), value.end(), bad)) {
        refuse(400, "control character in a header");
        return false;
    }
    if (request_.headers.size() >= limits_.max_headers) {
        refuse(431, "too many headers");
        return false;
    }
    request_.headers.emplace_back(lower(line.substr(0, colon)), value);
    return true;
}

// RFC 9112 section 6: how long the body is. Any doubt is an error, because the proxy before us may decide
// otherwise.
void HttpParser::frame_body() {
    std::string_view length, encoding, expect;
    int n_length = 0, n_encoding = 0, n_host = 0;
    for (const auto& [name, value] : request_.headers) {
        if (name == "content-length") {
            length = value;
            ++n_length;
        } else if (name == "transfer-encoding") {
            encoding = value;
            ++n_encoding;
        } else if (name == "host") {
            ++n_host;
        } else if (name == "expect") {
            expect = value;
        } else if (name == "connection") {
            if (list_has(value, "close")) {
                request_.keep_alive = false;
            } else if (request_.minor_version == 0 && list_has(value, "keep-alive")) {
                request_.keep_alive = true;
            }
        }
    }
    if (n_host > 1 || (n_host == 0 && request_.minor_version == 1)) {
        return refuse(400, "there must be exactly one Host header");
    }
    if (n_length + n_encoding > 1) {
        return refuse(400, "the length of the body is given more than once");
    }
    if (n_encoding == 1) {
        if (request_.minor_version == 0) {
            return refuse(400, "Transfer-Encoding in an HTTP/1.0 request");
        }
        if (lower(encoding) != "chunked") {
            return refuse(501, "Transfer-Encoding other than chunked");
        }
        part_ = Part::chunk_size;
    } else if (n_length == 1) {
        const bool digits =
            !length.empty() && length.size() <= 18 &&
            std::all_of(length.begin(), length.end(), [](char c) { return c >= '0' && c <= '9'; });
        if (!digits) {
            return refuse(400, "malformed Content-Length");
        }
        for (const char c : length) {
            left_ = left_ * 10 + static_cast<uint64_t>(c - '0');
        }
        if (left_ > limits_.max_body) {
            return refuse(413, "the request body is too large");
        }
        part_ = Part::length;
    }
    if (!expect.empty()) {
        if (lower(expect) != "100-continue") {
            return refuse(417, "unknown expectation");
        }
        expect_continue_ = request_.minor_version == 1;
    }
    state_ = n_encoding == 0 && left_ == 0 ? State::complete : State::body;
    if (state_ == State::body && part_ == Part::length) {
        request_.body.reserve(std::min<size_t>(left_, 1 << 20));
    }
}

bool HttpParser::feed_line(std::string_view bytes, size_t& at) {
    while (at < bytes.size()) {
        const char c = bytes[at++];
        if (c == '\n') {
            if (line_.empty() || line_.back() != '\r') {
                refuse(400, "a line of the chunked body does not end with CRLF");
                return false;
            }
            line_.pop_back();
            return true;
        }
        if ((!line_.empty() && line_.back() == '\r') || line_.size() >= kMaxFramingLine) {
            refuse(400, "malformed chunked body");
            return false;
        }
        line_ += c;
    }
    return false;
}

void HttpParser::parse_chunk_size() {
    const std::string_view line(line_);
    const std::string_view digits = line.substr(0, std::min(line.find_first_of("; \t"), line.size()));
    if (digits.empty() || digits.size() > 15) {
        return refuse(400, "malformed chunk size");
    }
    left_ = 0;
    for (const char c : digits) {
        const int value = hex_value(c);
        if (value < 0) {
            return refuse(400, "malformed chunk size");
        }
        left_ = left_ * 16 + static_cast<uint64_t>(value);
    }
    // Only extensions may follow (RFC 9112 section 7.1.1); they mean nothing to us.
    const std::string_view rest = trim(line.substr(digits.size()));
    const auto bad = [](char c) { return (static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f; };
    if ((!rest.empty() && rest.front() != ';') || std::any_of(rest.begin(), rest.end(), bad)) {
        return refuse(400, "malformed chunk size");
    }
    if (left_ > limits_.max_body - request_.body.size()) {
        return refuse(413, "the request body is too large");
    }
    part_ = left_ == 0 ? Part::trailer : Part::chunk_data;
}

size_t HttpParser::feed_body(std::string_view bytes) {
    size_t at = 0;
    if (part_ == Part::length || part_ == Part::chunk_data) {
        at = static_cast<size_t>(std::min<uint64_t>(left_, bytes.size()));
        request_.body.append(bytes.substr(0, at));
        left_ -= at;
        if (left_ == 0) {
            if (part_ == Part::length) {
                state_ = State::complete;
            }
            part_ = Part::chunk_end;
        }
        return at;
    }
    if (!feed_line(bytes, at)) {
        return at;
    }
    if (part_ == Part::chunk_size) {
        parse_chunk_size();
    } else if (part_ == Part::chunk_end) {
        if (!line_.empty()) {
            refuse(400, "a chunk is longer than its size");
        }
        part_ = Part::chunk_size;
    } else if (line_.empty()) {
        state_ = State::complete;
    } else if ((trailer_bytes_ += line_.size()) > kMaxTrailer) {
        refuse(431, "the trailer is too large");
    }
    line_.clear();
    return at;
}

}  // namespace llm::engine
