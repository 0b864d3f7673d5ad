// Makes `llm_dispatch on` enough for a correct streaming proxy: gives ngx_http_proxy_module better defaults
// in dispatching locations, where the user has set nothing.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// What a level of configuration (http, server, location) needs so that a deeper one can ask whether the user
// set something above it: nginx merges proxy's values only after ours.
struct ProxyLevel {
    const ProxyLevel* parent;  // nullptr at http level
    void* proxy_conf;          // ngx_http_proxy_module's configuration of this level, not yet merged
};

// What every dispatching location sends unless the user sets it otherwise.
constexpr std::string_view kHostHeader = "Host";
constexpr std::string_view kEngineHostVariable = "$llm_engine_host";
constexpr std::string_view kConnectionHeader = "Connection";

// Where a directive of proxy's stores its value in that module's private configuration (its command table
// says); 0 for a directive that this nginx does not have. No directive that is asked for here stores at 0.
size_t proxy_offset(std::string_view directive);

// The field itself; nullptr when this nginx has no such directive.
template <class Field>
Field* proxy_field(void* proxy_conf, std::string_view directive) {
    const size_t offset = proxy_offset(directive);
    return offset == 0 ? nullptr : reinterpret_cast<Field*>(static_cast<char*>(proxy_conf) + offset);
}

// The proxy configuration of the level that `cf` stands at.
void* current_proxy_conf(ngx_conf_t* cf);

// Fills what is unset in `level` and all levels above it, and warns of what does not go with it, naming the
// `location`. Returns NGX_CONF_OK or NGX_CONF_ERROR (memory).
char* set_proxy_defaults(ngx_conf_t* cf, const ProxyLevel& level, const ngx_str_t& location);

}  // namespace llm::nginx
