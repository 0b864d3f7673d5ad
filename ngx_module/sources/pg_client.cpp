#include "ngx_module/sources/pg_client.hpp"

#include <openssl/ssl.h>
#include <poll.h>

#include <ctime>
#include <utility>

namespace llm::nginx::sources {
namespace {

constexpr uint32_t kFirstDelayMs = 200;
constexpr uint32_t kLongestDelayMs = 2'000;
constexpr ngx_msec_t kResolveDeadlineMs = 6'000;
constexpr ngx_msec_t kConnectDeadlineMs = 5'000;
// A statement that brings nothing for so long is late; and has lost its server.
constexpr ngx_msec_t kLateMs = 3'000;
constexpr ngx_msec_t kSilenceMs = 15'000;

// About 4 µs each (libpq, validation, SHA-256, table): 1–2 ms between two looks at the other connections.
constexpr int kRowsPerRun = 256;

void set_default(std::vector<std::pair<std::string, std::string>>& settings, const char* name,
                 const char* value) {
    for (const auto& [known, unused] : settings) {
        if (known == name) {
            return;
        }
    }
    settings.emplace_back(name, value);
}

// Bytes that OpenSSL has taken out of the socket and libpq not yet out of OpenSSL: no event will tell of
// them.
bool has_decrypted_bytes(PGconn* connection) {
    auto* ssl = static_cast<SSL*>(PQsslStruct(connection, "OpenSSL"));
    return ssl != nullptr && SSL_pending(ssl) > 0;
}

// As libpq wants it: without a port, nor brackets.
std::string number_of(const PeerAddress& address) {
    u_char text[NGX_SOCKADDR_STRLEN];
    const size_t length =
        ngx_sock_ntop(const_cast<sockaddr*>(address.get()), address.length, text, sizeof(text), 0);
    const std::string number(reinterpret_cast<const char*>(text), length);
    return number.starts_with('[') ? number.substr(1, number.size() - 2) : number;
}

}  // namespace

std::string one_line(const char* message) {
    std::string out(message == nullptr ? "" : message);
    while (!out.empty() && (out.back() == '\n' || out.back() == ' ')) {
        out.pop_back();
    }
    for (char& c : out) {
        if (static_cast<unsigned char>(c) < 0x20) {
            c = ' ';
        }
    }
    return out;
}

PgClient::PgClient(const PgEndpoint& endpoint, Listener& listener, Life life)
    : endpoint_(endpoint),
      listener_(listener),
      life_(life),
      resolver_(endpoint.resolver),
      timer_([](void* self) { static_cast<PgClient*>(self)->on_timer(); }, this),
      more_([](void* self) { static_cast<PgClient*>(self)->pump(); }, this),
      outage_(kFirstDelayMs, kLongestDelayMs) {}

void PgClient::start() {
    if (state_ == State::stopped && !must_end()) {
        attempt();
    }
}

void PgClient::stop() {
    state_ = State::stopped;
    ++incarnation_;
    timer_.stop();
    more_.cancel();
    resolver_.cancel();
    unwatch();
    connection_.reset();
    last_.reset();
    on_row_ = nullptr;
    on_end_ = nullptr;
}

void PgClient::attempt() {
    hosts_known_ = 0;
    names_known_ = 0;
    targets_.clear();
    unresolved_.clear();
    state_ = State::resolving;
    resolve_next();
}

// libpq would block in getaddrinfo(): it gets numbers only. A name without an address stands in nobody's way.
void PgClient::resolve_next() {
    while (hosts_known_ < endpoint_.url.hosts.size()) {
        const PgHost& item = endpoint_.url.hosts[hosts_known_++];
        PeerAddress numeric;
        if (is_pg_directory(item.host)) {
            targets_.push_back({.host = item.host, .port = item.port, .address = {}});
            continue;
        }
        if (parse_numeric_address(item.host, item.port, numeric)) {
            targets_.push_back({.host = item.host, .port = item.port, .address = item.host});
            continue;
        }
        const size_t name = names_known_++;
        timer_.start(kResolveDeadlineMs);
        resolver_.resolve(
            item.host, item.port,
            [this, &item](const HostAddresses& found, const char* error) {
                unresolved_ = error != nullptr ? error : unresolved_;
                for (const PeerAddress& address : found) {
                    targets_.push_back({.host = item.host, .port = item.port, .address = number_of(address)});
                }
                resolve_next();
            },
            name < endpoint_.addresses.size() ? endpoint_.addresses[name] : HostAddresses());
        return;
    }
    if (targets_.empty() && !unresolved_.empty()) {
        fail("the name cannot be resolved: " + unresolved_);
        return;
    }
    connect();
}

void PgClient::connect() {
    auto settings = endpoint_.url.settings;
    if (!targets_.empty()) {  // else the URL has said hostaddr itself
        std::string hosts;
        std::string ports;
        std::string addresses;
        for (size_t i = 0; i < targets_.size(); ++i) {
            const Target& target = targets_[(first_target_ + i) % targets_.size()];
            const char* comma = i > 0 ? "," : "";
            hosts += comma + target.host;
            ports += comma + std::to_string(target.port);
            addresses += comma + target.address;
        }
        std::erase_if(settings, [](const auto& item) { return item.first == "host" || item.first == "port"; });
        settings.emplace_back("host", hosts);
        settings.emplace_back("port", ports);
        settings.emplace_back("hostaddr", addresses);
    }
    set_default(settings, "gssencmode", "disable");
    set_default(settings, "application_name", "llm-dispatch");
    set_default(settings, "client_encoding", "UTF8");
    // a peer that vanishes without a word is noticed between two refreshes too
    set_default(settings, "keepalives_idle", "10");
    set_default(settings, "keepalives_interval", "5");
    set_default(settings, "keepalives_count", "3");
    set_default(settings, "tcp_user_timeout", "15000");
    std::vector<const char*> names;
    std::vector<const char*> values;
    for (const auto& [name, value] : settings) {
        names.push_back(name.c_str());
        values.push_back(value.c_str());
    }
    names.push_back(nullptr);
    values.push_back(nullptr);
    connection_.reset(PQconnectStartParams(names.data(), values.data(), 0));
    if (!connection_) {
        fail("out of memory");
        return;
    }
    if (PQstatus(connection_.get()) == CONNECTION_BAD) {
        fail(one_line(PQerrorMessage(connection_.get())));
        return;
    }
    PQsetNoticeProcessor(
        connection_.get(), [](void*, const char*) {}, nullptr);  // or they go to stderr
    state_ = State::connecting;
    timer_.start(kConnectDeadlineMs);
    // as if PQconnectPoll() had asked for it (libpq manual, 34.1)
    if (!watch(false, true)) {
        fail("no connection is free");
    }
}

void PgClient::poll_connect() {
    // libpq may close this socket and open another, under the same number even: let go of it first
    unwatch();
    switch (PQconnectPoll(connection_.get())) {
        case PGRES_POLLING_READING:
            if (!watch(true, false)) {
                fail("no connection is free");
            }
            return;
        case PGRES_POLLING_WRITING:
            if (!watch(false, true)) {
                fail("no connection is free");
            }
            return;
        case PGRES_POLLING_OK:
            break;
        default:
            fail(one_line(PQerrorMessage(connection_.get())));
            return;
    }
    if (PQsetnonblocking(connection_.get(), 1) != 0 || !watch(true, false)) {
        fail("the connection cannot be used");
        return;
    }
    state_ = State::ready;
    first_target_ = 0;
    timer_.stop();
    if (outage_.end()) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "llm: database %s: connected again",
                      place().c_str());
    }
    listener_.on_ready();
}

void PgClient::query(const std::string& sql, const std::vector<std::string>& parameters, OnRow on_row,
                     OnEnd on_end) {
    if (state_ != State::ready) {
        return;
    }
    std::vector<const char*> values;
    for (const std::string& parameter : parameters) {
        values.push_back(parameter.c_str());
    }
    if (PQsendQueryParams(connection_.get(), sql.c_str(), static_cast<int>(values.size()), nullptr,
                          values.data(), nullptr, nullptr, 0) != 1) {
        fail(one_line(PQerrorMessage(connection_.get())));
        return;
    }
    PQsetSingleRowMode(connection_.get());
    on_row_ = std::move(on_row);
    on_end_ = std::move(on_end);
    query_error_.clear();
    sqlstate_.clear();
    last_.reset();
    state_ = State::asking;
    heard_at_ = ngx_current_msec;
    timer_.start(kLateMs);
    flush();
}

void PgClient::flush() {
    const int pending = PQflush(connection_.get());
    if (pending < 0) {
        fail(one_line(PQerrorMessage(connection_.get())));
    } else if (!watch(true, pending == 1)) {
        fail("no connection is free");
    }
}

void PgClient::on_event(ngx_event_t* event) {
    auto* connection = static_cast<ngx_connection_t*>(event->data);
    auto* self = static_cast<PgClient*>(connection->data);
    if (connection->close) {
        self->stop();
        return;
    }
    switch (self->state_) {
        case State::connecting:
            self->poll_connect();
            break;
        case State::ready:
        case State::asking:
            if (event->write) {
                self->flush();
            } else {
                self->pump();
            }
            break;
        default:
            break;
    }
}

// Reads when libpq has nothing whole left, and hands over what is whole.
void PgClient::pump() {
    if (state_ != State::ready && state_ != State::asking) {
        return;
    }
    const uint64_t incarnation = incarnation_;
    if (PQisBusy(connection_.get()) != 0 || state_ == State::ready) {
        if (PQconsumeInput(connection_.get()) != 1) {
            fail(one_line(PQerrorMessage(connection_.get())));
            return;
        }
        heard_at_ = ngx_current_msec;
    }
    const bool finished = take_results();
    if (incarnation_ != incarnation) {
        return;
    }
    if (!finished) {
        more_.post();
        return;
    }
    take_notifications();
    if (incarnation_ == incarnation && has_decrypted_bytes(connection_.get())) {
        more_.post();
    }
}

// False when more is at hand than one run may take.
bool PgClient::take_results() {
    const uint64_t incarnation = incarnation_;
    for (int rows = 0; state_ == State::asking && PQisBusy(connection_.get()) == 0;) {
        if (rows == kRowsPerRun) {
            return false;
        }
        std::unique_ptr<PGresult, FreeResult> result(PQgetResult(connection_.get()));
        if (!result && PQstatus(connection_.get()) == CONNECTION_BAD) {  // what came was not to be understood
            fail(query_error_);
            return true;
        }
        if (!result) {
            state_ = State::ready;
            timer_.stop();
            on_row_ = nullptr;
            const OnEnd end = std::exchange(on_end_, nullptr);
            const auto last = std::move(last_);
            end(last.get(), std::exchange(query_error_, {}));  // may start the next statement
            if (incarnation_ != incarnation) {
                return true;
            }
            continue;
        }
        switch (PQresultStatus(result.get())) {
            case PGRES_SINGLE_TUPLE:
                ++rows;
                on_row_(*result);
                if (incarnation_ != incarnation) {
                    return true;
                }
                break;
            case PGRES_TUPLES_OK:
            case PGRES_COMMAND_OK:
                last_ = std::move(result);
                break;
            default:
                if (!query_error_.empty()) {
                    break;  // of a stream that broke libpq has two to tell
                }
                query_error_ = one_line(PQresultErrorMessage(result.get()));
                if (const char* code = PQresultErrorField(result.get(), PG_DIAG_SQLSTATE)) {
                    sqlstate_ = code;
                }
                if (query_error_.empty()) {
                    query_error_ = "an unexpected answer";
                }
                break;
        }
    }
    return true;
}

void PgClient::take_notifications() {
    const uint64_t incarnation = incarnation_;
    while (PGnotify* notify = PQnotifies(connection_.get())) {
        const std::string channel = notify->relname;
        const std::string payload = notify->extra == nullptr ? "" : notify->extra;
        PQfreemem(notify);
        listener_.on_notify(channel, payload);
        if (incarnation_ != incarnation) {
            return;
        }
    }
}

void PgClient::on_timer() {
    if (must_end()) {
        stop();
        return;
    }
    switch (state_) {
        case State::waiting:
            attempt();
            return;
        case State::asking:
            if (ngx_current_msec - heard_at_ >= kSilenceMs) {
                fail("no answer within 15 s");
                return;
            }
            timer_.start(kLateMs);
            if (ngx_current_msec - heard_at_ >= kLateMs) {
                listener_.on_late();
            }
            return;
        case State::resolving:
            resolver_.cancel();
            fail("the name was not resolved in time");
            return;
        case State::connecting:
            ++first_target_;
            fail("no connection within 5 s");
            return;
        default:
            return;
    }
}

bool PgClient::wait_until_done(int limit_ms) {
    const auto now_ms = [] {
        timespec now{};
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000 + now.tv_nsec / 1'000'000;
    };
    const auto deadline = now_ms() + limit_ms;
    resolver_.stop_asking();
    if (state_ == State::waiting || state_ == State::resolving) {
        attempt();  // there will be no other
    }
    while (state_ == State::connecting || state_ == State::asking) {
        const auto left = deadline - now_ms();
        if (left <= 0) {
            return false;
        }
        const bool connecting = state_ == State::connecting;
        const bool reads = !connecting || watched_->read->active;
        const bool writes = connecting ? watched_->write->active : PQflush(connection_.get()) == 1;
        pollfd socket{.fd = PQsocket(connection_.get()), .events = 0, .revents = 0};
        socket.events = static_cast<short>((reads ? POLLIN : 0) | (writes ? POLLOUT : 0));
        if (poll(&socket, 1, static_cast<int>(left)) > 0) {
            connecting ? poll_connect() : pump();
        }
    }
    return state_ == State::ready;
}

void PgClient::restart(const std::string& reason) {
    fail(reason);
}

void PgClient::fail(const std::string& reason) {
    if (state_ == State::stopped) {
        return;
    }
    if (outage_.begin(reason, !must_end())) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: database %s: %s; trying again", place().c_str(),
                      reason.c_str());
    }
    stop();
    state_ = State::waiting;
    timer_.start(outage_.pause());
    listener_.on_lost();
}

// Makes nginx call us when libpq's socket can be read, written, or both. Level-triggered: libpq leaves bytes
// in the socket when it has enough, and must hear of them again.
bool PgClient::watch(bool read, bool write) {
    const int fd = PQsocket(connection_.get());
    if (fd < 0) {
        return false;
    }
    if (watched_ != nullptr && watched_->fd != fd) {
        unwatch();
    }
    if (watched_ == nullptr) {
        watched_ = ngx_get_connection(fd, ngx_cycle->log);
        if (watched_ == nullptr) {
            return false;
        }
        watched_->data = this;
        watched_->read->handler = on_event;
        watched_->write->handler = on_event;
        watched_->read->log = ngx_cycle->log;
        watched_->write->log = ngx_cycle->log;
        watched_->idle = life_ == Life::until_leaving;  // then told when the worker begins to leave
        // worker_shutdown_timeout ends what it finds, but not this: a writer's last records come of that
        watched_->read->channel = life_ == Life::until_exit;
    }
    const auto set = [](ngx_event_t* event, ngx_int_t kind, bool wanted) {
        if (wanted && !event->active) {
            return ngx_add_event(event, kind, NGX_LEVEL_EVENT) == NGX_OK;
        }
        if (!wanted && event->active) {
            return ngx_del_event(event, kind, 0) == NGX_OK;
        }
        return true;
    };
    return set(watched_->read, NGX_READ_EVENT, read) && set(watched_->write, NGX_WRITE_EVENT, write);
}

// As ngx_close_connection(), but the descriptor stays open: it is libpq's. When libpq has closed it (it does
// so as soon as the connection breaks) the kernel has taken it out of epoll already.
void PgClient::unwatch() {
    if (watched_ == nullptr) {
        return;
    }
    const bool closed = PQsocket(connection_.get()) != watched_->fd;
    ngx_connection_t* connection = std::exchange(watched_, nullptr);
    for (ngx_event_t* event : {connection->read, connection->write}) {
        if (event->active) {
            ngx_del_event(event, event->write ? NGX_WRITE_EVENT : NGX_READ_EVENT,
                          closed ? NGX_CLOSE_EVENT : 0);
        }
        if (event->posted) {
            ngx_delete_posted_event(event);
        }
        event->closed = 1;
    }
    ngx_reusable_connection(connection, 0);
    ngx_free_connection(connection);
    connection->fd = static_cast<ngx_socket_t>(-1);
}

}  // namespace llm::nginx::sources
