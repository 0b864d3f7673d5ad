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

// Appends status line and headers of `reply`, without its body.
void append_head(std::string& out, const HttpReply& reply, HeadFraming framing, bool close_after);

}  // namespace llm::engine
