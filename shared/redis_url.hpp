// Redis URLs as operators write them: redis://[user[:password]@]host[:port][/db], rediss:// for TLS, and
// unix:/path[?db=N] (also unix://[user[:password]@]/path[?db=N]).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace llm {

struct RedisUrl {
    bool tls = false;
    std::string host;      // name or address, IPv6 without brackets; empty for a UNIX socket
    uint16_t port = 6379;
    std::string socket_path;  // empty for TCP
    std::string user;         // percent-decoded; empty = none
    std::string password;     // percent-decoded; empty = none
    uint32_t database = 0;
};

// Returns an empty string and fills `out`, or a one-line reason that says what is allowed.
std::string parse_redis_url(std::string_view text, RedisUrl& out);

}  // namespace llm
