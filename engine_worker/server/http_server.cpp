#include "engine_worker/server/http_server.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>

#include "engine_worker/server/http_connection.hpp"
#include "engine_worker/server/http_head.hpp"
#include "engine_worker/server/listen_address.hpp"

namespace llm::engine {
namespace {

constexpr size_t kReadChunk = 64 * 1024;
constexpr size_t kReadPerTurn =
    1024 * 1024;               // of one connection, so that an upload does not hold up the others
constexpr double kLinger = 2;  // seconds to swallow what a refused client still sends
constexpr int kTurnMs = 1000;

// Tags of epoll events: connections have a generation in the upper half, these do not.
constexpr uint64_t kListenerTag = 1u << 30;
constexpr uint64_t kWatchTag = 1u << 31;

// A client whose machine has gone without a word is noticed after a minute: until then its request is
// computed for nobody. No limit on unacknowledged bytes, which would end who reads slowly. On UNIX sockets
// all this fails, and is not needed.
void set_up_tcp(int fd) {
    constexpr int kOn = 1;
    constexpr int kIdleSeconds = 30;
    constexpr int kProbes = 3;
    constexpr int kProbeSeconds = 10;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof kOn);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &kOn, sizeof kOn);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &kIdleSeconds, sizeof kIdleSeconds);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &kProbes, sizeof kProbes);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &kProbeSeconds, sizeof kProbeSeconds);
}

}  // namespace

HttpServer::HttpServer(HttpHandler& handler, const HttpServerOptions& options, std::function<double()> clock)
    : handler_(handler), options_(options), clock_(std::move(clock)), buffer_(kReadChunk, '\0') {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    now_ = clock_();
}

HttpServer::~HttpServer() {
    for (const auto& connection : connections_) {
        if (connection != nullptr) {
            ::close(connection->fd);
        }
    }
    close_listeners();
    ::close(epoll_);
}

void HttpServer::close_listeners() {
    for (const Listener& listener : listeners_) {
        ::close(listener.fd);
        if (!listener.unix_path.empty()) {
            unlink(listener.unix_path.c_str());
        }
    }
    listeners_.clear();
}

std::string HttpServer::listen(const std::string& address) {
    ListenSocket socket;
    if (std::string why = open_listen_socket(address, socket); !why.empty()) {
        return why;
    }
    listeners_.push_back({socket.fd, socket.unix_path});
    if (port_ == 0) {
        port_ = socket.port;
    }
    return "";
}

void HttpServer::set_accepting(bool on) {
    if (on == accepting_) {
        return;
    }
    accepting_ = on;
    for (size_t i = 0; i < listeners_.size(); ++i) {
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = kListenerTag + i;
        epoll_ctl(epoll_, on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listeners_[i].fd, &event);
    }
}

void HttpServer::watch(int fd, std::function<void()> ready) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = kWatchTag + watched_.size();
    epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    watched_.emplace_back(fd, std::move(ready));
}

void HttpServer::run() {
    running_ = true;
    set_accepting(true);
    std::array<epoll_event, 256> events;
    double last_check = clock_();
    while (running_) {
        const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), kTurnMs);
        now_ = clock_();
        for (int i = 0; i < n; ++i) {
            on_event(events[i].data.u64, events[i].events);
        }
        flush_all();  // before anybody asks whether all is sent
        if (now_ - last_check >= kTurnMs / 1000.0 * 0.9) {
            last_check = now_;
            check_timeouts();
            set_accepting(n_connections_ < options_.max_connections);
            if (every_second_) {
                every_second_();
            }
            flush_all();
        }
        closed_.clear();
    }
    // A last effort for answers that the system takes at once; nobody waits for slow clients here.
    flush_all();
    closed_.clear();
}

void HttpServer::on_event(uint64_t tag, uint32_t events) {
    if (tag < kListenerTag + listeners_.size() && tag >= kListenerTag) {
        return accept_all(listeners_[tag - kListenerTag]);
    }
    if (tag < kWatchTag + watched_.size() && tag >= kWatchTag) {
        return watched_[tag - kWatchTag].second();
    }
    Connection* connection = find(tag);
    if (connection == nullptr) {
        return;
    }
    using State = Connection::State;
    if ((events & (EPOLLHUP | EPOLLERR)) != 0 ||
        ((events & EPOLLRDHUP) != 0 && connection->state == State::busy)) {
        return leave(*connection);
    }
    if ((events & EPOLLOUT) != 0) {
        touch(*connection);
    }
    if ((events & (EPOLLIN | EPOLLRDHUP)) != 0 && (connection->listens() || connection->state == State::lingering)) {
        receive(*connection);
    }
}

void HttpServer::accept_all(Listener& listener) {
    for (;;) {
        if (n_connections_ >= options_.max_connections) {
            return set_accepting(false);
        }
        const int fd = accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                set_accepting(false);  // tried again in a second
            }
            if (errno == EINTR || errno == ECONNABORTED) {
                continue;
            }
            return;
        }
        set_up_tcp(fd);
        uint32_t slot = static_cast<uint32_t>(connections_.size());
        if (free_slots_.empty()) {
            connections_.emplace_back();
        } else {
            slot = free_slots_.back();
            free_slots_.pop_back();
        }
        const ConnectionId id = static_cast<uint64_t>(++generation_) << 32 | slot;
        connections_[slot] = std::make_unique<Connection>(fd, id, options_.limits);
        Connection& connection = *connections_[slot];
        connection.active = now_;
        connection.interest = EPOLLIN | EPOLLRDHUP;
        epoll_event event{};
        event.events = connection.interest;
        event.data.u64 = id;
        epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
        ++n_connections_;
    }
}

HttpServer::Connection* HttpServer::find(ConnectionId id) const {
    const uint64_t slot = id & 0xffffffff;
    if (slot >= connections_.size() || connections_[slot] == nullptr || connections_[slot]->id != id) {
        return nullptr;
    }
    return connections_[slot].get();
}

// ---- receiving --------------------------------------------------------------------------------------------

void HttpServer::receive(Connection& connection) {
    for (size_t total = 0; total < kReadPerTurn;) {
        const ssize_t n = recv(connection.fd, buffer_.data(), buffer_.size(), 0);
        if (n > 0) {
            connection.active = connection.state == Connection::State::lingering ? connection.active : now_;
            total += static_cast<size_t>(n);
            if (connection.state == Connection::State::reading) {
                connection.in.append(buffer_.data(), static_cast<size_t>(n));
                consume(connection);
                if (!connection.listens()) {
                    return;
                }
            }
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n == 0 && connection.state == Connection::State::reading) {
            // Some clients close their side behind the last request: flush() answers what has arrived, then
            // closes.
            connection.finished = true;
            return touch(connection);
        }
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK)) {
            close(connection);
        }
        return;
    }
}

// Parses what was received; hands a complete request on.
void HttpServer::consume(Connection& connection) {
    HttpParser& parser = connection.parser;
    connection.in.erase(0, parser.feed(connection.in));
    if (parser.state() == HttpParser::State::body && parser.take_expect_continue()) {
        connection.out += "HTTP/1.1 100 Continue\r\n\r\n";
        touch(connection);
    }
    if (parser.state() == HttpParser::State::refused) {
        connection.state = Connection::State::busy;
        connection.close_after = true;
        connection.origin = parser.request().header("origin");
        return reply(connection.id, handler_.refusal(parser.status(), parser.reason()));
    }
    if (parser.state() != HttpParser::State::complete) {
        return;
    }
    HttpRequest request = std::move(parser.request());
    parser.reset();
    connection.state = Connection::State::busy;
    connection.close_after = !request.keep_alive;
    connection.head_only = request.method == "HEAD";
    connection.old = request.minor_version == 0;
    connection.origin = request.header("origin");
    update_interest(connection);
    handler_.on_request(connection.id, std::move(request));
}

// ---- answering --------------------------------------------------------------------------------------------

void HttpServer::reply(ConnectionId id, const HttpReply& reply) {
    Connection* connection = find(id);
    if (connection == nullptr || connection->state != Connection::State::busy) {
        return;
    }
    append_head(connection->out, reply, options_.origins.headers_for(connection->origin), HeadFraming::length,
                connection->close_after ? Persistence::close
                : connection->old       ? Persistence::keep_alive
                                        : Persistence::standard);
    if (!connection->head_only) {
        connection->out += reply.body;
    }
    answered(*connection);
}

void HttpServer::owe(ConnectionId id) {
    if (Connection* connection = find(id); connection != nullptr && connection->state == Connection::State::busy) {
        connection->owed = true;
        update_interest(*connection);
    }
}

void HttpServer::begin_stream(ConnectionId id, const HttpReply& head) {
    Connection* connection = find(id);
    if (connection == nullptr || connection->state != Connection::State::busy) {
        return;
    }
    connection->raw = connection->old;
    connection->close_after = connection->close_after || connection->old;
    append_head(connection->out, head, options_.origins.headers_for(connection->origin),
                connection->raw ? HeadFraming::none : HeadFraming::chunked,
                connection->close_after ? Persistence::close : Persistence::standard);
    touch(*connection);
}

void HttpServer::write(ConnectionId id, std::string_view data) {
    Connection* connection = find(id);
    if (connection == nullptr || connection->state != Connection::State::busy || data.empty() ||
        connection->head_only) {
        return;
    }
    touch(*connection);
    if (connection->raw) {
        connection->out += data;
        return;
    }
    std::array<char, 20> size;
    const auto end = std::to_chars(size.data(), size.data() + size.size(), data.size(), 16).ptr;
    connection->out.append(size.data(), end);
    connection->out += "\r\n";
    connection->out += data;
    connection->out += "\r\n";
}

void HttpServer::end_stream(ConnectionId id) {
    Connection* connection = find(id);
    if (connection == nullptr || connection->state != Connection::State::busy) {
        return;
    }
    if (!connection->raw && !connection->head_only) {
        connection->out += "0\r\n\r\n";
    }
    answered(*connection);
}

void HttpServer::abort(ConnectionId id) {
    Connection* connection = find(id);
    if (connection != nullptr && connection->state == Connection::State::busy) {
        connection->state = Connection::State::closing;
        touch(*connection);
    }
}

// The answer is complete: the next request, or the end.
void HttpServer::answered(Connection& connection) {
    connection.active = now_;
    connection.owed = false;
    connection.state = connection.close_after ? Connection::State::closing : Connection::State::reading;
    touch(connection);
}

bool HttpServer::all_sent() const {
    return std::all_of(connections_.begin(), connections_.end(), [](const auto& connection) {
        return connection == nullptr || connection->unsent() == 0;
    });
}

size_t HttpServer::unsent(ConnectionId id) const {
    const Connection* connection = find(id);
    return connection == nullptr ? 0 : connection->unsent();
}

// ---- sending ----------------------------------------------------------------------------------------------

void HttpServer::touch(Connection& connection) {
    if (!connection.dirty) {
        connection.dirty = true;
        dirty_.push_back(connection.id);
    }
}

void HttpServer::flush_all() {
    // Flushing may let a handler write more: the list can grow while it is walked.
    for (size_t i = 0; i < dirty_.size(); ++i) {
        if (Connection* connection = find(dirty_[i]); connection != nullptr) {
            connection->dirty = false;
            flush(*connection);
        }
    }
    dirty_.clear();
}

void HttpServer::flush(Connection& connection) {
    std::string& out = connection.out;
    while (connection.sent < out.size()) {
        const ssize_t n =
            send(connection.fd, out.data() + connection.sent, out.size() - connection.sent, MSG_NOSIGNAL);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            if (errno != EAGAIN && errno != EWOULDBLOCK) {
                return leave(connection);
            }
            break;
        }
        connection.sent += static_cast<size_t>(n);
        connection.active = now_;
    }
    const size_t left = out.size() - connection.sent;
    if (left == 0 || connection.sent > kHighWater) {
        out.erase(0, connection.sent);
        connection.sent = 0;
    }
    if (left > kHighWater) {
        connection.paused = true;
    } else if (connection.paused && left < kHighWater / 2) {
        connection.paused = false;
        if (connection.state == Connection::State::busy) {
            handler_.on_writable(connection.id);
        }
    }
    // What on_writable() has written is not sent yet.
    if (connection.unsent() == 0 && connection.state == Connection::State::closing) {
        // Closing with unread input would reset the connection and destroy the answer on its way.
        shutdown(connection.fd, SHUT_WR);
        connection.state = Connection::State::lingering;
        connection.active = now_;
    }
    update_interest(connection);
    if (connection.listens() && !connection.in.empty()) {
        consume(connection);  // a pipelined request
    }
    if (connection.finished && connection.state == Connection::State::reading &&
        connection.unsent() == 0) {
        close(connection);
    }
}

void HttpServer::update_interest(Connection& connection) {
    using State = Connection::State;
    uint32_t wanted = 0;
    const bool listens = connection.listens() && !connection.finished;
    if (listens || connection.state == State::lingering) {
        wanted |= EPOLLIN;
    }
    if (listens || (connection.state == State::busy && !connection.owed)) {
        wanted |= EPOLLRDHUP;
    }
    if (connection.unsent() > 0) {
        wanted |= EPOLLOUT;
    }
    if (wanted != connection.interest) {
        connection.interest = wanted;
        epoll_event event{};
        event.events = wanted;
        event.data.u64 = connection.id;
        epoll_ctl(epoll_, EPOLL_CTL_MOD, connection.fd, &event);
    }
}

// ---- ends -------------------------------------------------------------------------------------------------

void HttpServer::leave(Connection& connection) {
    const bool unanswered = connection.state == Connection::State::busy;
    const ConnectionId id = connection.id;
    close(connection);
    if (unanswered) {
        handler_.on_gone(id);
    }
}

void HttpServer::close(Connection& connection) {
    ::close(connection.fd);  // leaves epoll by itself
    const auto slot = static_cast<uint32_t>(connection.id & 0xffffffff);
    closed_.push_back(std::move(connections_[slot]));  // the caller may still be inside it
    free_slots_.push_back(slot);
    --n_connections_;
}

void HttpServer::check_timeouts() {
    for (size_t slot = 0; slot < connections_.size(); ++slot) {
        Connection* connection = connections_[slot].get();
        if (connection == nullptr) {
            continue;
        }
        const double still = now_ - connection->active;
        const bool sending = connection->unsent() > 0;
        if (connection->state == Connection::State::lingering) {
            if (still > kLinger) {
                close(*connection);
            }
        } else if (sending) {
            if (still > options_.send_timeout) {
                leave(*connection);
            }
        } else if (connection->state == Connection::State::reading) {
            if (connection->parser.started() && still > options_.receive_timeout) {
                connection->state = Connection::State::busy;
                connection->close_after = true;
                reply(connection->id, handler_.refusal(408, "the request took too long to arrive"));
            } else if (!connection->parser.started() && still > options_.idle_timeout) {
                close(*connection);
            }
        }
    }
}

}  // namespace llm::engine
