// One connection to PostgreSQL on nginx's event loop, libpq in its asynchronous form. Connects, runs one
// statement at a time and hands over rows as they arrive, listens for notifications, and comes back by
// itself.
//
// Nothing here blocks: names are resolved before libpq sees them (hostaddr), Kerberos is off, the socket is
// non-blocking. Rows come one by one (PQsetSingleRowMode), a bounded number per run of the loop, so that a
// table of a million rows neither fills memory nor holds up requests.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <libpq-fe.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/host_resolver.hpp"
#include "ngx_module/sources/loop.hpp"
#include "ngx_module/sources/pg_url.hpp"

namespace llm::nginx::sources {

struct PgEndpoint {
    PgUrl url;
    std::vector<HostAddresses> addresses;  // of each host of `url` that is a name, where the resolver knows none
    ngx_resolver_t* resolver = nullptr;    // asked at each connect
};

class PgClient {
  public:
    // May call query() and restart() from inside, not stop().
    class Listener {
      public:
        virtual ~Listener() = default;
        virtual void on_ready() = 0;
        // It was ready and is no more, or could not be reached at all. A statement under way is forgotten.
        virtual void on_lost() = 0;
        // The server has said nothing for 3 s although it was asked. It may still answer; after 15 s we give
        // up.
        virtual void on_late() = 0;
        virtual void on_notify(std::string_view channel, std::string_view payload) = 0;
    };
    // A row of the answer, valid during the call; its column descriptions too. Must not touch the client.
    using OnRow = std::function<void(const PGresult& row)>;
    // The end of the answer: `error` is empty, or the server's message in one line. `last` has the columns.
    using OnEnd = std::function<void(const PGresult* last, const std::string& error)>;

    // How long the connection is wanted: a source ends when its worker is told to leave; a writer as late as
    // its last request, and its owner must stop() it in exit_process.
    enum class Life : uint8_t { until_leaving, until_exit };

    PgClient(const PgEndpoint& endpoint, Listener& listener, Life life = Life::until_leaving);
    ~PgClient() { stop(); }
    PgClient(const PgClient&) = delete;
    PgClient& operator=(const PgClient&) = delete;

    void start();
    void stop();
    bool ready() const { return state_ == State::ready; }
    bool busy() const { return state_ == State::asking; }

    // Sends one statement; only when ready() (a connection that is busy() is not). Parameters are text.
    void query(const std::string& sql, const std::vector<std::string>& parameters, OnRow on_row,
               OnEnd on_end);

    // Gives the connection up and connects again.
    void restart(const std::string& reason);

    // Waits, blocking, until there is a connection and the statement under way has ended, at most `limit_ms`; false when
    // that has not come. Does not wait for the next attempt, nor for a resolver: the system's addresses must do. For
    // exit_process only.
    bool wait_until_done(int limit_ms);

    const std::string& place() const { return endpoint_.url.place; }

    // Of the statement that has ended last: the server's code of five characters, "" when it had none to give.
    const std::string& sqlstate() const { return sqlstate_; }

  private:
    enum class State : uint8_t { stopped, waiting, resolving, connecting, ready, asking };
    struct FreeConnection {
        void operator()(PGconn* connection) const { PQfinish(connection); }
    };
    struct FreeResult {
        void operator()(PGresult* result) const { PQclear(result); }
    };

    static void on_event(ngx_event_t* event);
    void attempt();
    void resolve_next();
    void connect();
    void poll_connect();
    void pump();
    bool take_results();
    void take_notifications();
    void flush();
    void on_timer();
    void fail(const std::string& reason);
    bool must_end() const { return life_ == Life::until_leaving && leaving(); }
    bool watch(bool read, bool write);
    void unwatch();

    const PgEndpoint& endpoint_;
    Listener& listener_;
    Life life_;
    State state_ = State::stopped;
    std::unique_ptr<PGconn, FreeConnection> connection_;
    ngx_connection_t* watched_ = nullptr;  // nginx's view of libpq's socket; libpq owns the descriptor
    uint64_t incarnation_ = 0;             // grows with every connection given up

    // One address of one host; libpq tries them in their order.
    struct Target {
        std::string host;  // what a certificate must name
        uint16_t port;
        std::string address;  // "" for a UNIX socket
    };
    HostResolver resolver_;
    size_t hosts_known_ = 0;       // hosts of the URL that are resolved in this attempt
    size_t names_known_ = 0;       // those of them that are names
    std::vector<Target> targets_;  // their addresses
    std::string unresolved_;       // why a name has none
    size_t first_target_ = 0;      // moves on when a target lets us wait: libpq has no time limit of its own here

    OnRow on_row_;
    OnEnd on_end_;
    std::string query_error_;
    std::string sqlstate_;
    std::unique_ptr<PGresult, FreeResult> last_;
    ngx_msec_t heard_at_ = 0;  // when something arrived last, or the statement was sent

    Timer timer_;
    Continuation more_;
    Outage outage_;
};

// A statement after which the server sees within a second, in the midst of another statement too, that the connection has been
// closed, and gives that up: from PostgreSQL 14 on; before, it does nothing.
inline constexpr const char* kGiveUpWhenClosed =
    "SELECT set_config(name, '1s', false) FROM pg_catalog.pg_settings WHERE name = 'client_connection_check_interval'";

// A message of libpq in one line.
std::string one_line(const char* message);

}  // namespace llm::nginx::sources
