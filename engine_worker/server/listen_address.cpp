#include "engine_worker/server/listen_address.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>

namespace llm::engine {
namespace {

constexpr int kBacklog = 1024;

std::string failed(const std::string& address, const std::string& what) {
    return "cannot listen on " + address + ": " + what;
}

std::string open_unix(const std::string& address, ListenSocket& out) {
    const std::string path = address.substr(5);
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof name.sun_path) {
        return failed(address, "the path is empty or too long");
    }
    std::memcpy(name.sun_path, path.data(), path.size());
    const auto* generic = reinterpret_cast<const sockaddr*>(&name);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return failed(address, std::strerror(errno));
    }
    if (bind(fd, generic, sizeof name) != 0) {
        int error = errno;
        // A socket left behind by a process that died refuses connections; a living one accepts them.
        if (error == EADDRINUSE) {
            const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
            if (probe >= 0 && connect(probe, generic, sizeof name) != 0 && errno == ECONNREFUSED) {
                error = unlink(path.c_str()) == 0 && bind(fd, generic, sizeof name) == 0 ? 0 : errno;
            }
            ::close(probe);
        }
        if (error != 0) {
            ::close(fd);
            return failed(address, std::strerror(error));
        }
    }
    if (::listen(fd, kBacklog) != 0) {
        const std::string why = std::strerror(errno);
        ::close(fd);
        return failed(address, why);
    }
    out.fd = fd;
    out.unix_path = path;
    return "";
}

}  // namespace

std::string open_listen_socket(const std::string& address, ListenSocket& out) {
    if (address.rfind("unix:", 0) == 0) {
        return open_unix(address, out);
    }
    const size_t colon = address.rfind(':');
    if (colon == std::string::npos || colon + 1 == address.size()) {
        return failed(address, "expected HOST:PORT or unix:PATH");
    }
    // getaddrinfo() would take 70000 for 4464.
    uint16_t port = 0;
    const char* end = address.data() + address.size();
    if (const auto [at, error] = std::from_chars(address.data() + colon + 1, end, port);
        error != std::errc() || at != end) {
        return failed(address, "the port must be a number from 0 to 65535");
    }
    std::string host = address.substr(0, colon);
    if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
        host = host.substr(1, host.size() - 2);
    }
    addrinfo hints{};
    hints.ai_family = AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
    addrinfo* found = nullptr;
    const bool any = host.empty() || host == "*";
    const int rc = getaddrinfo(any ? nullptr : host.c_str(), address.c_str() + colon + 1, &hints, &found);
    if (rc != 0) {
        return failed(address, gai_strerror(rc));
    }
    int fd = -1;
    std::string why;
    for (const addrinfo* at = found; at != nullptr && fd < 0; at = at->ai_next) {
        fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        const int on = 1;
        if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
                        bind(fd, at->ai_addr, at->ai_addrlen) != 0 || ::listen(fd, kBacklog) != 0)) {
            why = std::strerror(errno);
            ::close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    if (fd < 0) {
        return failed(address, why);
    }
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size);
    out.fd = fd;
    out.port = ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&name)->sin6_port
                                                : reinterpret_cast<sockaddr_in*>(&name)->sin_port);
    return "";
}

}  // namespace llm::engine
