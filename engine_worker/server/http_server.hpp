// HTTP/1.1 over epoll: one thread, any number of connections, answers whole or in chunks.
//
// A connection carries one request at a time; what a client pipelines waits in the socket. While a request is
// being answered, the client's closing of its side (EPOLLRDHUP) counts as leaving, but for owe(). What a handler writes
// during one turn of the loop leaves in one system call per connection. TLS is nginx's business.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine_worker/server/allowed_origins.hpp"
#include "engine_worker/server/http_message.hpp"
#include "engine_worker/server/http_parser.hpp"

namespace llm::engine {

using ConnectionId = uint64_t;  // never reused

class HttpHandler {
  public:
    virtual ~HttpHandler() = default;
    // Must be answered by reply(), or begin_stream() … end_stream(), now or later.
    virtual void on_request(ConnectionId connection, HttpRequest request) = 0;
    // The client left before its request was answered. The connection is gone already.
    virtual void on_gone(ConnectionId connection) = 0;
    // A stream that had more than kHighWater bytes unsent has room again.
    virtual void on_writable(ConnectionId connection) = 0;
    // The answer to something that is not HTTP, too large, or too slow.
    virtual HttpReply refusal(int status, const std::string& reason) = 0;
};

struct HttpServerOptions {
    HttpLimits limits;
    double idle_timeout = 75;     // seconds between requests; more than the gateway's keepalive_timeout
    double receive_timeout = 60;  // without a byte of a request that has begun
    double send_timeout = 60;     // without a byte taken by the client
    size_t max_connections = 8192;
    AllowedOrigins origins;
};

// All functions belong to the thread that calls run().
class HttpServer {
  public:
    // A stream should wait for on_writable() when more than this is unsent.
    static constexpr size_t kHighWater = 256 * 1024;

    // `clock`: seconds that never go back.
    HttpServer(HttpHandler& handler, const HttpServerOptions& options, std::function<double()> clock);
    ~HttpServer();
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;

    // "HOST:PORT" (IPv6 in brackets, port 0 = any) or "unix:PATH". Returns an empty string, or why not.
    std::string listen(const std::string& address);
    // The port of the first TCP listener; 0 = none.
    uint16_t port() const { return port_; }

    // Calls `ready` whenever `fd` is readable. The caller keeps the descriptor.
    void watch(int fd, std::function<void()> ready);
    // Calls `turn` about once a second, and before run() waits.
    void every_second(std::function<void()> turn) { every_second_ = std::move(turn); }

    void run();  // until stop()
    void stop() { running_ = false; }
    // After run(): nobody can connect any more, and the file of a UNIX socket is gone.
    void close_listeners();

    void reply(ConnectionId connection, const HttpReply& reply);
    // The request under way costs no engine's time: closing its side is not leaving, as if it were answered at once.
    void owe(ConnectionId connection);
    void begin_stream(ConnectionId connection, const HttpReply& head);  // its body is ignored
    void write(ConnectionId connection, std::string_view data);
    void end_stream(ConnectionId connection);
    // Breaks off an answer: what was written is sent, but its end is missing.
    void abort(ConnectionId connection);
    // Bytes written but not yet taken by the system; 0 for an unknown connection.
    size_t unsent(ConnectionId connection) const;
    bool all_sent() const;  // no connection has anything unsent

  private:
    struct Connection;
    struct Listener {
        int fd = -1;
        std::string unix_path;
    };

    void accept_all(Listener& listener);
    void set_accepting(bool on);
    void on_event(uint64_t tag, uint32_t events);
    void receive(Connection& connection);
    void consume(Connection& connection);
    void answered(Connection& connection);
    void touch(Connection& connection);
    void flush_all();
    void flush(Connection& connection);
    void update_interest(Connection& connection);
    void leave(Connection& connection);
    void close(Connection& connection);
    void check_timeouts();
    Connection* find(ConnectionId id) const;

    HttpHandler& handler_;
    HttpServerOptions options_;
    std::function<double()> clock_;
    int epoll_ = -1;
    std::vector<Listener> listeners_;
    bool accepting_ = false;
    std::vector<std::pair<int, std::function<void()>>> watched_;
    std::function<void()> every_second_;
    std::vector<std::unique_ptr<Connection>> connections_;  // by slot; the slot is the low half of the id
    std::vector<uint32_t> free_slots_;
    std::vector<ConnectionId> dirty_;                  // have something to send
    std::vector<std::unique_ptr<Connection>> closed_;  // freed at the end of the turn
    size_t n_connections_ = 0;
    uint32_t generation_ = 0;
    uint16_t port_ = 0;
    bool running_ = false;
    double now_ = 0;
    std::string buffer_;
};

}  // namespace llm::engine
