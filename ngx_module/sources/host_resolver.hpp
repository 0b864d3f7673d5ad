// Host names to addresses without blocking a worker: nginx's own resolver on the event loop, or once while
// the configuration is read.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace llm::nginx::sources {

struct PeerAddress {
    ngx_sockaddr_t storage{};
    socklen_t length = 0;

    const sockaddr* get() const { return &storage.sockaddr; }
};

using HostAddresses = std::vector<PeerAddress>;  // of one host

// The text of an address, "10.0.0.5:6379", "[::1]:6379" or "unix:/path", for log lines.
std::string to_string(const PeerAddress& address);

// An IPv4 or IPv6 address in text (IPv6 without brackets); false when `host` is a name.
bool parse_numeric_address(std::string_view host, uint16_t port, PeerAddress& out);

// False when the path does not fit a sockaddr_un.
bool unix_address(std::string_view path, PeerAddress& out);

// Blocking; for the time when the configuration is read. Empty string and ≥ 1 address, or the reason.
std::string resolve_now(const std::string& host, uint16_t port, std::vector<PeerAddress>& out);

// The `resolver` of the http block; nullptr when none is configured. Valid as long as the cycle.
ngx_resolver_t* http_resolver(ngx_cycle_t* cycle);
ngx_resolver_t* http_resolver(ngx_conf_t* cf);

// One look-up at a time over nginx's resolver. Pending work is dropped when the object goes away.
class HostResolver {
  public:
    // `addresses` is empty when `error` is set, and only then; `error` is a static text.
    using Done = std::function<void(const HostAddresses& addresses, const char* error)>;

    explicit HostResolver(ngx_resolver_t* resolver) : resolver_(resolver) {}
    ~HostResolver() { cancel(); }
    HostResolver(const HostResolver&) = delete;
    HostResolver& operator=(const HostResolver&) = delete;

    // Calls `done` once, from here for numbers and at once known answers, later otherwise; a look-up still
    // running is cancelled without a call. `done` may destroy this object or start the next look-up. `known`
    // is the answer where there is no resolver, or it knows none.
    void resolve(const std::string& host, uint16_t port, Done done, HostAddresses known = {});
    void cancel();
    // Answers at once from now on: the event loop, by which the resolver's answers come, has ended. Cancels.
    void stop_asking();
    bool busy() const { return context_ != nullptr; }
    // When the last answer ends to hold, in nginx's seconds; 0 before there is one, and after a failure.
    time_t valid_until() const { return valid_until_; }

  private:
    static void on_answer(ngx_resolver_ctx_t* context);
    void finish(const HostAddresses& addresses, const char* error);

    ngx_resolver_t* resolver_;
    ngx_resolver_ctx_t* context_ = nullptr;
    std::string host_;  // nginx keeps a pointer to it while it looks
    uint16_t port_ = 0;
    time_t valid_until_ = 0;
    bool asks_ = true;
    HostAddresses known_;
    Done done_;
};

}  // namespace llm::nginx::sources
