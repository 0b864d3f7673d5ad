// Opens listening sockets for addresses as operators write them.
#pragma once

#include <cstdint>
#include <string>

namespace llm::engine {

struct ListenSocket {
    int fd = -1;            // non-blocking, listening
    uint16_t port = 0;      // the real one; 0 for UNIX sockets
    std::string unix_path;  // to be unlinked by the owner
};

// "HOST:PORT" (a name, an IPv4 address, or [IPv6]; "*" = all; port 0 = any free one) or "unix:PATH". A UNIX
// socket that nobody listens on any more is replaced. Returns an empty string and fills `out`, or why it
// cannot be.
std::string open_listen_socket(const std::string& address, ListenSocket& out);

}  // namespace llm::engine
