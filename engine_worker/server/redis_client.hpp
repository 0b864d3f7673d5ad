// A blocking Redis connection with a time limit on everything. For a thread that has nothing else to do.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/server/tls_session.hpp"
#include "shared/redis_url.hpp"

struct redisContext;

namespace llm::engine {

class RedisClient {
  public:
    explicit RedisClient(const RedisUrl& url) : url_(url) {}
    ~RedisClient() { close(); }
    RedisClient(const RedisClient&) = delete;
    RedisClient& operator=(const RedisClient&) = delete;

    using Command = std::vector<std::string>;
    // Sends the commands in one go, connecting (and logging in) first if need be, and reads the replies.
    // Once more on a new connection if this fails on an old one, which Redis may have ended since: commands
    // may run twice. Returns an empty string, or why it failed; the connection is closed then. At most about
    // 2 s per command and attempt.
    std::string run(const std::vector<Command>& commands);

  private:
    std::string attempt(const std::vector<Command>& commands);
    std::string connect();
    std::string exchange(const std::vector<Command>& commands);
    std::string send(const Command& command);
    // Reads until there is a whole reply; its message when it is an error.
    std::string receive();
    void close();
    std::string why_of_errno() const;

    RedisUrl url_;
    redisContext* context_ = nullptr;  // connects, and knows the protocol; its bytes pass through us
    std::optional<TlsSession> tls_;    // rediss://
};

}  // namespace llm::engine
