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

// The proxy configuration of the level that `cf` stands at.
void* current_proxy_conf(ngx_conf_t* cf);

// Fills what is unset in `level` and all levels above it. Returns NGX_CONF_OK or NGX_CONF_ERROR (memory).
char* set_proxy_defaults(ngx_conf_t* cf, const ProxyLevel& level);

}  // namespace llm::nginx
