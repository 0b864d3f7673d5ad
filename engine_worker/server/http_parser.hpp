// Incremental HTTP/1.1 request parser (RFC 9112), strict where leniency lets requests be smuggled: lines end
// with CRLF, a length is given once and in one way, header names are followed by their colon, nothing is
// folded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "engine_worker/server/http_message.hpp"

namespace llm::engine {

class HttpParser {
  public:
    enum class State : uint8_t { head, body, complete, refused };

    explicit HttpParser(const HttpLimits& limits) : limits_(limits) {}

    // Takes bytes until the request is complete or refused; returns how many. O(bytes).
    size_t feed(std::string_view bytes);

    State state() const { return state_; }
    // True once anything of a request has come.
    bool started() const { return state_ != State::head || !head_.empty(); }
    // With State::body: the client waits for "100 Continue". True at most once per request.
    bool take_expect_continue();

    // With State::complete. Moving it out is allowed.
    HttpRequest& request() { return request_; }
    // With State::refused.
    int status() const { return status_; }
    const std::string& reason() const { return reason_; }

    // Ready for the next request of the connection.
    void reset();

  private:
    enum class Part : uint8_t { length, chunk_size, chunk_data, chunk_end, trailer };

    size_t feed_head(std::string_view bytes);
    size_t feed_body(std::string_view bytes);
    // Collects a line of the body's framing; true when it is complete (in line_, without CRLF).
    bool feed_line(std::string_view bytes, size_t& at);
    void parse_head();
    bool parse_request_line(std::string_view line);
    bool parse_header(std::string_view line);
    void frame_body();
    void parse_chunk_size();
    void refuse(int status, std::string reason);

    HttpLimits limits_;
    State state_ = State::head;
    Part part_ = Part::length;
    std::string head_, line_;
    HttpRequest request_;
    uint64_t left_ = 0;  // bytes of the body or of the chunk that are still to come
    size_t trailer_bytes_ = 0;
    bool expect_continue_ = false;
    int status_ = 0;
    std::string reason_;
};

}  // namespace llm::engine
