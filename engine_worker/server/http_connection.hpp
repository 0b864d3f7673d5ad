// What the server knows of one connection.
#pragma once

#include <cstdint>
#include <string>

#include "engine_worker/server/http_server.hpp"

namespace llm::engine {

struct HttpServer::Connection {
    enum class State : uint8_t {
        reading,   // between requests or receiving one
        busy,      // the handler has the request
        closing,   // send what is left, then close
        lingering  // our side is closed; swallow what comes until the client closes too
    };

    Connection(int descriptor, ConnectionId name, const HttpLimits& limits)
        : fd(descriptor), id(name), parser(limits) {}

    size_t unsent() const { return out.size() - sent; }
    // Takes requests, or what is left of one: not from a client that reads no answers.
    bool listens() const { return state == State::reading && unsent() <= kHighWater; }

    int fd;
    ConnectionId id;
    State state = State::reading;
    HttpParser parser;
    std::string in;   // received, not parsed yet
    std::string origin;  // header of the request, for the answer's
    std::string out;  // to be sent from `sent` on
    size_t sent = 0;
    bool old = false;          // the request is HTTP/1.0, which knows no chunks
    bool raw = false;          // the answer is a stream that ends with the connection
    bool head_only = false;    // the request was HEAD
    bool close_after = false;  // no further request on this connection
    bool owed = false;         // the answer is sent even if the client closes its side meanwhile
    bool finished = false;     // the client has closed its side: nothing more comes, what is owed is sent
    bool paused = false;       // went over kHighWater
    bool dirty = false;        // listed in dirty_
    uint32_t interest = 0;
    double active = 0;  // last byte in or out
};

}  // namespace llm::engine
