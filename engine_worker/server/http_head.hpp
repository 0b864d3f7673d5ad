// The head of an HTTP answer.
#pragma once

#include <cstdint>
#include <string>

#include "engine_worker/server/http_message.hpp"

namespace llm::engine {

// How the client finds the end of the body.
enum class HeadFraming : uint8_t {
    length,   // Content-Length of the reply's body
    chunked,  // chunks
    none,     // the end of the connection
};

// What becomes of the connection behind the answer.
enum class Persistence : uint8_t {
    standard,    // what the version of HTTP says: an HTTP/1.1 connection stays
    keep_alive,  // it stays, and the HTTP/1.0 client that asked for it is told so
    close,
};

// Appends status line and headers of `reply`, and `more` headers, without its body.
void append_head(std::string& out, const HttpReply& reply, const HttpHeaders& more, HeadFraming framing,
                 Persistence persistence);

}  // namespace llm::engine
