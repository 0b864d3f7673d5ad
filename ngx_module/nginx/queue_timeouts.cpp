#include "ngx_module/nginx/queue_timeouts.hpp"

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>
#include <string>

#include "ngx_module/nginx/conf.hpp"

namespace llm::nginx {
namespace {

template <class Element>
std::span<const Element> elements(const ngx_array_t* array) {
    return array == nullptr ? std::span<const Element>{}
                            : std::span(static_cast<const Element*>(array->elts), array->nelts);
}

// The addresses that a server listens on, each followed by a blank.
std::string addresses_of(const ngx_http_core_main_conf_t& main, const ngx_http_core_srv_conf_t* server) {
    std::string text;
    for (const auto& port : elements<ngx_http_conf_port_t>(main.ports)) {
        for (const auto& address : elements<ngx_http_conf_addr_t>(&port.addrs)) {
            const auto servers = elements<ngx_http_core_srv_conf_t*>(&address.servers);
            if (std::find(servers.begin(), servers.end(), server) != servers.end()) {
                text.append(view(address.opt.addr_text)) += ' ';
            }
        }
    }
    return text;
}

}  // namespace

void note_queue_timeout(ngx_conf_t* cf, MainConf& main, LocConf& location) {
    const auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    const auto* server =
        static_cast<ngx_http_core_srv_conf_t*>(ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module));
    const auto* http =
        static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    std::string text = addresses_of(*http, server);
    text.append(view(server->server_name)) += core->exact_match ? '=' : ' ';
    text.append(view(core->name));
    location.identity = std::hash<std::string>()(text);
    main.options->queue_timeouts.push_back({location.identity, location.queue_timeout});
}

uint32_t publish_queue_timeouts(const MainConf& conf, core::Zone& zone, QueueTimeouts& shared) {
    QueueTimeouts mine{};
    const auto& noted = conf.options->queue_timeouts;
    for (const QueueTimeout& timeout : noted) {
        // two locations that cannot be told apart (nested ones of one regular expression)
        const bool in_doubt = std::any_of(noted.begin(), noted.end(), [&](const QueueTimeout& other) {
            return other.location == timeout.location && other.ms != timeout.ms;
        });
        if (!in_doubt && mine.count < kMaxQueueTimeouts && find_queue_timeout(mine, timeout.location) == 0) {
            mine.of[mine.count++] = timeout;
        }
    }
    core::ZoneLock lock(zone);
    if (shared.count != mine.count || std::memcmp(shared.of, mine.of, sizeof(mine.of)) != 0) {
        mine.version = shared.version + 1;
        shared = mine;
    }
    return shared.version;
}

ngx_msec_t find_queue_timeout(const QueueTimeouts& timeouts, uint64_t location) {
    const std::span known(timeouts.of, timeouts.count);
    const auto found = std::find_if(known.begin(), known.end(), [&](const QueueTimeout& timeout) {
        return timeout.location == location;
    });
    return found == known.end() ? 0 : static_cast<ngx_msec_t>(found->ms);
}

}  // namespace llm::nginx
