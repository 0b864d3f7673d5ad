#include "ngx_module/sources/resp_client.hpp"

#include <cstring>
#include <utility>

#include "ngx_module/sources/log_text.hpp"
#include "ngx_module/sources/tls_context.hpp"

namespace llm::nginx::sources {
namespace {

// A server that comes back is found within a connect deadline plus the longest back-off: below 3 s.
constexpr uint32_t kFirstDelayMs = 100;
constexpr uint32_t kLongestDelayMs = 1'000;
constexpr ngx_msec_t kResolveDeadlineMs = 6'000;
constexpr ngx_msec_t kStepDeadlineMs =
    1'500;  // each of connect, handshake, greeting; a server 500 ms away passes

// After a second of silence we ask; after another 2.5 s the connection is taken for dead. A silence in which this
// process itself stood still says nothing.
constexpr ngx_msec_t kTickMs = 500;
constexpr ngx_msec_t kAskAfterMs = 1'000;
constexpr ngx_msec_t kAnswerMs = 2'500;

constexpr size_t kReadBytes = 16 * 1024;
constexpr int kReadsPerRun = 16;

}  // namespace

RespClient::RespClient(const char* role, const RespEndpoint& endpoint, Listener& listener)
    : role_(role),
      endpoint_(endpoint),
      listener_(listener),
      resolver_(endpoint.resolver),
      timer_([](void* self) { static_cast<RespClient*>(self)->on_tick(); }, this),
      more_([](void* self) { static_cast<RespClient*>(self)->read(); }, this),
      outage_(kFirstDelayMs, kLongestDelayMs) {}

void RespClient::start() {
    if (state_ == State::stopped && !leaving()) {
        attempt();
    }
}

void RespClient::stop() {
    state_ = State::stopped;
    timer_.stop();
    resolver_.cancel();
    close();
}

void RespClient::set_state(State state, ngx_msec_t deadline) {
    state_ = state;
    timer_.start(deadline);
}

std::string RespClient::place() const {
    if (!address_text_.empty()) {
        return address_text_;
    }
    return endpoint_.url.socket_path.empty() ? endpoint_.url.host : endpoint_.url.socket_path;
}

void RespClient::attempt() {
    const RedisUrl& url = endpoint_.url;
    address_text_.clear();
    set_state(State::connecting, kStepDeadlineMs);
    PeerAddress address;
    if (!url.socket_path.empty()) {
        if (unix_address(url.socket_path, address)) {
            connect_to(address);
        } else {
            fail("the path of the socket is too long");
        }
        return;
    }
    if (parse_numeric_address(url.host, url.port, address)) {
        connect_to(address);
        return;
    }
    set_state(State::resolving, kResolveDeadlineMs);
    resolver_.resolve(
        url.host, url.port,
        [this](const HostAddresses& found, const char* error) {
            if (error != nullptr) {
                fail(std::string("the name cannot be resolved: ") + error);
            } else {
                connect_to(found[next_address_++ % found.size()]);
            }
        },
        endpoint_.addresses);
}

void RespClient::connect_to(const PeerAddress& address) {
    address_ = address;
    address_text_ = to_string(address_);
    address_name_ = to_ngx(address_text_);
    // A failed attempt is our line to write, once a minute; nginx would write one for each.
    quiet_log_ = *ngx_cycle->log;
    quiet_log_.log_level = NGX_LOG_ALERT;

    ngx_peer_connection_t peer{};
    peer.sockaddr = &address_.storage.sockaddr;
    peer.socklen = address_.length;
    peer.name = &address_name_;
    peer.get = ngx_event_get_peer;
    peer.log = &quiet_log_;
    peer.log_error = NGX_ERROR_INFO;
    peer.so_keepalive = 1;
    const ngx_int_t rc = ngx_event_connect_peer(&peer);
    if (rc != NGX_OK && rc != NGX_AGAIN) {
        fail(std::string("connect() failed (") + std::strerror(ngx_errno) + ")");
        return;
    }
    connection_ = peer.connection;
    connection_->data = this;
    connection_->log = &quiet_log_;
    connection_->read->handler = on_event;
    connection_->write->handler = on_event;
    connection_->idle = 1;  // told when the worker begins to leave
    connection_->pool = ngx_create_pool(1024, ngx_cycle->log);
    if (connection_->pool == nullptr) {
        fail("out of memory");
        return;
    }
    set_state(State::connecting, kStepDeadlineMs);
    if (rc == NGX_OK) {
        on_connected();
    }
}

void RespClient::on_event(ngx_event_t* event) {
    auto* connection = static_cast<ngx_connection_t*>(event->data);
    auto* self = static_cast<RespClient*>(connection->data);
    if (connection->close) {
        self->stop();
        return;
    }
    switch (self->state_) {
        case State::connecting:
            self->on_connected();
            break;
        case State::securing:
            self->continue_tls();
            break;
        case State::greeting:
        case State::ready:
            if (event->write) {
                self->write();
            } else {
                self->read();
            }
            break;
        default:
            break;
    }
}

void RespClient::on_connected() {
    int error = 0;
    socklen_t length = sizeof(error);
    if (getsockopt(connection_->fd, SOL_SOCKET, SO_ERROR, &error, &length) == -1) {
        error = ngx_errno;
    }
    if (error != 0) {
        fail(std::string("connect() failed (") + std::strerror(error) + ")");
        return;
    }
    if (!connection_->write->ready) {
        return;  // something else woke us
    }
    if (endpoint_.url.socket_path.empty()) {
        ngx_tcp_nodelay(connection_);
    }
    if (!endpoint_.url.tls) {
        greet();
        return;
    }
    if (!start_client_tls(connection_, endpoint_.url.host)) {
        fail("TLS cannot be set up");
        return;
    }
    set_state(State::securing, kStepDeadlineMs);
    continue_tls();
}

void RespClient::continue_tls() {
    const ngx_int_t rc = ngx_ssl_handshake(connection_);
    // nginx puts its own handlers there, which would not see that the worker leaves
    connection_->read->handler = on_event;
    connection_->write->handler = on_event;
    if (rc == NGX_AGAIN) {
        return;
    }
    if (rc != NGX_OK) {
        fail(tls_problem(connection_));
        return;
    }
    connection_->ssl->no_wait_shutdown = 1;
    greet();
}

void RespClient::greet() {
    set_state(State::greeting, kStepDeadlineMs);
    reader_.emplace();
    const RedisUrl& url = endpoint_.url;
    const auto expect = [this](const char* step) {
        waiting_.emplace_back([this, step](const redisReply& reply) { on_greeting(step, reply); });
    };
    if (!url.password.empty()) {
        if (url.user.empty()) {
            append_command(out_, {"AUTH", url.password});
        } else {
            append_command(out_, {"AUTH", url.user, url.password});
        }
        expect("AUTH");
    }
    if (url.database != 0) {
        append_command(out_, {"SELECT", std::to_string(url.database)});
        expect("SELECT");
    }
    // refused by a server that is loading its data set, or that wants a password we do not have
    append_command(out_, {"PING"});
    expect("PING");
    const uint64_t incarnation = incarnation_;
    write();
    if (incarnation_ == incarnation) {
        read();
    }
}

void RespClient::on_greeting(const char* step, const redisReply& reply) {
    if (is_error(reply)) {
        fail(std::string(step) + " was refused: " + std::string(text_of(reply)));
        return;
    }
    if (!waiting_.empty()) {
        return;  // that was not the last of them
    }
    connection_->log = ngx_cycle->log;
    connection_->read->log = ngx_cycle->log;
    connection_->write->log = ngx_cycle->log;
    set_state(State::ready, kTickMs);
    if (outage_.end()) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "llm: redis %s (%s): connected again",
                      place().c_str(), role_);
    }
    asking_ = false;
    last_heard_ = ngx_current_msec;
    listener_.on_ready();
}

void RespClient::command(std::span<const std::string_view> words, Done done) {
    if (state_ != State::ready) {
        return;
    }
    subscribed_ = subscribed_ || (!words.empty() && words[0] == "SUBSCRIBE");
    append_command(out_, words);
    waiting_.push_back(std::move(done));
    if (sent_ == 0 && connection_->write->ready) {
        write();
    }
}

void RespClient::write() {
    while (sent_ < out_.size()) {
        const ssize_t n = connection_->send(connection_, reinterpret_cast<u_char*>(out_.data()) + sent_,
                                            out_.size() - sent_);
        if (n == NGX_AGAIN) {
            break;
        }
        if (n <= 0) {
            fail(broken());
            return;
        }
        sent_ += static_cast<size_t>(n);
    }
    if (sent_ == out_.size()) {
        out_.clear();
        sent_ = 0;
    }
    if (ngx_handle_write_event(connection_->write, 0) != NGX_OK) {
        fail("the event system refused");
    }
}

// With TLS 1.3 a server refuses a client's certificate, or the lack of one, after the handshake.
std::string RespClient::broken() const {
    const std::string alert = tls_alert(connection_);
    return alert.empty() ? "the connection broke" : "the connection broke (" + alert + ")";
}

void RespClient::read() {
    const uint64_t incarnation = incarnation_;
    u_char buffer[kReadBytes];
    for (int i = 0; i < kReadsPerRun; ++i) {
        const ssize_t n = connection_->recv(connection_, buffer, sizeof(buffer));
        if (n == NGX_AGAIN) {
            if (ngx_handle_read_event(connection_->read, 0) != NGX_OK) {
                fail("the event system refused");
            }
            return;
        }
        if (n <= 0) {
            fail(n == 0 ? "the server closed the connection" : broken());
            return;
        }
        last_heard_ = ngx_current_msec;
        if (!reader_->feed({reinterpret_cast<char*>(buffer), static_cast<size_t>(n)})) {
            fail("broken protocol: " + reader_->error());
            return;
        }
        while (const Reply reply = reader_->next()) {
            dispatch(*reply);
            if (incarnation_ != incarnation) {
                return;  // this connection has gone
            }
        }
        if (!reader_->error().empty()) {
            fail("broken protocol: " + reader_->error());
            return;
        }
    }
    // more is waiting than is fair to read in one go
    more_.post();
}

void RespClient::dispatch(const redisReply& reply) {
    if (subscribed_ && reply.type == REDIS_REPLY_ARRAY) {
        const auto parts = elements_of(reply);
        if (parts.size() == 3 && is_text(*parts[0]) && text_of(*parts[0]) == "message") {
            listener_.on_message(text_of(*parts[1]), text_of(*parts[2]));
            return;
        }
    }
    if (waiting_.empty()) {
        fail("an answer to no question");
        return;
    }
    const Done done = std::move(waiting_.front());
    waiting_.pop_front();
    done(reply);
}

void RespClient::on_tick() {
    if (leaving()) {
        stop();
        return;
    }
    switch (state_) {
        case State::stopped:
            return;
        case State::waiting:
            attempt();
            return;
        case State::ready:
            break;
        case State::resolving:
            resolver_.cancel();
            fail("the name was not resolved in time");
            return;
        default:
            fail(state_ == State::connecting ? "no connection within 1.5 s"
                 : state_ == State::securing ? "no TLS handshake within 1.5 s"
                                             : "no answer within 1.5 s");
            return;
    }
    const ngx_msec_t silent = ngx_current_msec - last_heard_;
    if (asking_ && silent >= kAnswerMs && ngx_current_msec - asked_at_ >= kAnswerMs) {
        fail("the server has fallen silent");
        return;
    }
    timer_.start(kTickMs);
    if (!asking_ && silent >= kAskAfterMs) {
        asking_ = true;
        asked_at_ = ngx_current_msec;
        command({"PING"}, [this](const redisReply&) { asking_ = false; });
    }
}

void RespClient::restart(const std::string& reason) {
    fail(reason);
}

void RespClient::fail(const std::string& reason) {
    if (state_ == State::stopped) {
        return;
    }
    if (outage_.begin(reason, !leaving())) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: redis %s (%s): %s; trying again", place().c_str(),
                      role_, printable(reason, 300).c_str());
    }
    close();
    set_state(State::waiting, outage_.pause());
    listener_.on_lost();
}

void RespClient::close() {
    ++incarnation_;
    more_.cancel();
    reader_.reset();
    out_.clear();
    sent_ = 0;
    waiting_.clear();
    subscribed_ = false;
    if (connection_ == nullptr) {
        return;
    }
    ngx_connection_t* connection = std::exchange(connection_, nullptr);
    ngx_pool_t* pool = connection->pool;
    if (connection->ssl != nullptr) {
        connection->ssl->no_wait_shutdown = 1;
        if (ngx_ssl_shutdown(connection) == NGX_AGAIN) {
            connection->timedout = 1;  // a peer that reads nothing gets no close_notify
            ngx_ssl_shutdown(connection);
        }
    }
    ngx_close_connection(connection);
    if (pool != nullptr) {
        ngx_destroy_pool(pool);
    }
}

}  // namespace llm::nginx::sources
