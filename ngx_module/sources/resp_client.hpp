// One connection to Redis on nginx's event loop: connects, authenticates, notices silence, and comes back by
// itself.
//
// hiredis is the codec only; the socket, TLS, names and timers are nginx's, so nothing here blocks and the
// connection leaves quietly when its worker does.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/host_resolver.hpp"
#include "ngx_module/sources/loop.hpp"
#include "ngx_module/sources/resp_codec.hpp"
#include "shared/redis_url.hpp"

namespace llm::nginx::sources {

struct RespEndpoint {
    RedisUrl url;
    HostAddresses addresses;             // where `url` leads, when the resolver knows nothing
    ngx_resolver_t* resolver = nullptr;  // asked at each connect when it is there and the host is a name
};

class RespClient {
  public:
    // What happens to a connection. A listener may call command() and restart() from inside, not stop().
    class Listener {
      public:
        virtual ~Listener() = default;
        // The connection is up, authenticated, in its database and answers.
        virtual void on_ready() = 0;
        // It is not ready any more, or could not be reached at all. Commands without an answer are forgotten.
        virtual void on_lost() = 0;
        // A message of a channel this connection is subscribed to.
        virtual void on_message(std::string_view channel, std::string_view payload) = 0;
    };
    using Done = std::function<void(const redisReply& reply)>;

    // `role` tells connections apart in the log. The endpoint and the listener must outlive the client.
    RespClient(const char* role, const RespEndpoint& endpoint, Listener& listener);
    ~RespClient() { stop(); }
    RespClient(const RespClient&) = delete;
    RespClient& operator=(const RespClient&) = delete;

    void start();
    // Closes without a call to the listener. Idempotent.
    void stop();
    bool ready() const { return state_ == State::ready; }

    // Sends a command; `done` gets its answer, an error reply too, or is dropped with the connection. Only
    // when ready.
    void command(std::span<const std::string_view> words, Done done);
    void command(std::initializer_list<std::string_view> words, Done done) {
        command(std::span(words.begin(), words.size()), std::move(done));
    }

    // Gives the connection up for a reason of the caller's and connects again.
    void restart(const std::string& reason);

  private:
    enum class State : uint8_t { stopped, waiting, resolving, connecting, securing, greeting, ready };

    static void on_event(ngx_event_t* event);
    void attempt();
    void connect_to(const PeerAddress& address);
    void on_connected();
    void continue_tls();
    void greet();
    void on_greeting(const char* step, const redisReply& reply);
    void read();
    void write();
    void dispatch(const redisReply& reply);
    void on_tick();
    void fail(const std::string& reason);
    void close();
    void set_state(State state, ngx_msec_t deadline);
    std::string place() const;
    std::string broken() const;

    const char* role_;
    const RespEndpoint& endpoint_;
    Listener& listener_;

    State state_ = State::stopped;
    ngx_connection_t* connection_ = nullptr;
    uint64_t incarnation_ = 0;  // grows with every close: callbacks see that their connection has gone
    PeerAddress address_;
    ngx_str_t address_name_{};
    std::string address_text_;
    size_t next_address_ = 0;
    HostResolver resolver_;
    ngx_log_t quiet_log_{};

    std::optional<ReplyReader> reader_;
    std::string out_;
    size_t sent_ = 0;
    std::deque<Done> waiting_;  // for answers, in the order of the commands
    bool subscribed_ = false;

    Timer timer_;  // of the present state: deadline, back-off, or the next look at silence
    Continuation more_;
    Outage outage_;
    bool asking_ = false;  // whether it is there
    ngx_msec_t asked_at_ = 0;
    ngx_msec_t last_heard_ = 0;
};

}  // namespace llm::nginx::sources
