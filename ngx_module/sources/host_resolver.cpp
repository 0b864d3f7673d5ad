#include "ngx_module/sources/host_resolver.hpp"

#include <netdb.h>

#include <cstring>
#include <utility>

namespace llm::nginx::sources {
namespace {

constexpr ngx_msec_t kLookupTimeoutMs = 5'000;

ngx_resolver_t* usable(ngx_resolver_t* resolver) {
    // without the directive nginx makes an empty resolver to be inherited
    return resolver != nullptr && resolver->connections.nelts > 0 ? resolver : nullptr;
}

PeerAddress copy_address(const sockaddr* from, socklen_t length, uint16_t port) {
    PeerAddress address;
    address.length = std::min<socklen_t>(length, sizeof(address.storage));
    std::memcpy(&address.storage, from, address.length);
    ngx_inet_set_port(&address.storage.sockaddr, port);
    return address;
}

}  // namespace

std::string to_string(const PeerAddress& address) {
    u_char text[NGX_SOCKADDR_STRLEN];
    const size_t length =
        ngx_sock_ntop(const_cast<sockaddr*>(address.get()), address.length, text, sizeof(text), 1);
    return {reinterpret_cast<const char*>(text), length};
}

bool parse_numeric_address(std::string_view host, uint16_t port, PeerAddress& out) {
    out = PeerAddress{};
    auto* text = const_cast<u_char*>(reinterpret_cast<const u_char*>(host.data()));
    const in_addr_t v4 = ngx_inet_addr(text, host.size());
    if (v4 != INADDR_NONE) {
        out.storage.sockaddr_in.sin_family = AF_INET;
        out.storage.sockaddr_in.sin_addr.s_addr = v4;
        out.storage.sockaddr_in.sin_port = htons(port);
        out.length = sizeof(sockaddr_in);
        return true;
    }
#if (NGX_HAVE_INET6)
    if (ngx_inet6_addr(text, host.size(), out.storage.sockaddr_in6.sin6_addr.s6_addr) == NGX_OK) {
        out.storage.sockaddr_in6.sin6_family = AF_INET6;
        out.storage.sockaddr_in6.sin6_port = htons(port);
        out.length = sizeof(sockaddr_in6);
        return true;
    }
#endif
    return false;
}

bool unix_address(std::string_view path, PeerAddress& out) {
    out = PeerAddress{};
    sockaddr_un& address = out.storage.sockaddr_un;
    if (path.empty() || path.size() >= sizeof(address.sun_path)) {
        return false;
    }
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.data(), path.size());
    out.length = sizeof(sockaddr_un);
    return true;
}

std::string resolve_now(const std::string& host, uint16_t port, std::vector<PeerAddress>& out) {
    out.clear();
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* list = nullptr;
    const int failed = getaddrinfo(host.c_str(), nullptr, &hints, &list);
    if (failed != 0) {
        return "host \"" + host + "\" not found (" + gai_strerror(failed) + ")";
    }
    for (const addrinfo* item = list; item != nullptr; item = item->ai_next) {
        if (item->ai_family == AF_INET || item->ai_family == AF_INET6) {
            out.push_back(copy_address(item->ai_addr, item->ai_addrlen, port));
        }
    }
    freeaddrinfo(list);
    return out.empty() ? "host \"" + host + "\" has no address" : std::string{};
}

ngx_resolver_t* http_resolver(ngx_cycle_t* cycle) {
    if (cycle->conf_ctx[ngx_http_module.index] == nullptr) {
        return nullptr;
    }
    auto* context = reinterpret_cast<ngx_http_conf_ctx_t*>(cycle->conf_ctx[ngx_http_module.index]);
    auto* core = static_cast<ngx_http_core_loc_conf_t*>(context->loc_conf[ngx_http_core_module.ctx_index]);
    return usable(core->resolver);
}

ngx_resolver_t* http_resolver(ngx_conf_t* cf) {
    auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    return usable(core->resolver);
}

void HostResolver::resolve(const std::string& host, uint16_t port, Done done, HostAddresses known) {
    cancel();
    done_ = std::move(done);
    known_ = std::move(known);
    port_ = port;
    PeerAddress numeric;
    if (parse_numeric_address(host, port, numeric)) {
        finish({numeric}, nullptr);
        return;
    }
    if (resolver_ == nullptr) {
        finish({}, "a host name needs the directive \"resolver\" in http{}");
        return;
    }
    if (!asks_) {
        finish({}, "the process ends");
        return;
    }
    host_ = host;
    ngx_resolver_ctx_t* context = ngx_resolve_start(resolver_, nullptr);
    if (context == nullptr || context == NGX_NO_RESOLVER) {
        finish({}, "the resolver cannot be used");
        return;
    }
    context->name = to_ngx(host_);
    context->handler = on_answer;
    context->data = this;
    context->timeout = kLookupTimeoutMs;
    context->cancelable = 1;
    context_ = context;
    if (ngx_resolve_name(context) != NGX_OK) {
        context_ = nullptr;  // nginx has freed it
        finish({}, "the resolver failed");
    }
}

void HostResolver::cancel() {
    if (context_ != nullptr) {
        ngx_resolver_ctx_t* context = std::exchange(context_, nullptr);
        ngx_resolve_name_done(context);
    }
    done_ = nullptr;
}

void HostResolver::stop_asking() {
    cancel();
    asks_ = false;
}

void HostResolver::on_answer(ngx_resolver_ctx_t* context) {
    auto* self = static_cast<HostResolver*>(context->data);
    HostAddresses addresses;
    const char* error = nullptr;
    self->valid_until_ = 0;
    if (context->state != NGX_OK) {
        error = ngx_resolver_strerror(context->state);
    } else {
        self->valid_until_ = context->valid;
        for (ngx_uint_t i = 0; i < context->naddrs; ++i) {
            addresses.push_back(
                copy_address(context->addrs[i].sockaddr, context->addrs[i].socklen, self->port_));
        }
    }
    self->context_ = nullptr;
    ngx_resolve_name_done(context);
    self->finish(addresses, error);
}

void HostResolver::finish(const HostAddresses& addresses, const char* error) {
    const Done done = std::exchange(done_, nullptr);
    const HostAddresses known = std::exchange(known_, {});
    if (!addresses.empty() || known.empty()) {
        done(addresses, !addresses.empty() ? nullptr : error != nullptr ? error : "no address");
    } else {
        done(known, nullptr);
    }
}

}  // namespace llm::nginx::sources
