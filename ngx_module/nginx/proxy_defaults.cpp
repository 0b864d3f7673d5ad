// ngx_http_proxy_module keeps its configuration struct private, but its command table says at which offset
// each directive stores its value. Writing a value there before proxy merges is the same as the user having
// written the directive, except that a directive of the user's own still wins.
#include "ngx_module/nginx/proxy_defaults.hpp"

#include "ngx_module/nginx/headers.hpp"

extern "C" {
extern ngx_module_t ngx_http_proxy_module;
}

namespace llm::nginx {
namespace {

// What applies at this level: the field that is set in it or nearest above; nullptr when none is.
template <class Field>
const Field* nearest(const ProxyLevel& level, std::string_view directive, Field unset) {
    for (const ProxyLevel* at = &level; at != nullptr; at = at->parent) {
        const Field* field = proxy_field<Field>(at->proxy_conf, directive);
        if (field != nullptr && *field != unset) {
            return field;
        }
    }
    return nullptr;
}

template <class Field>
void set_if_unset(const ProxyLevel& level, std::string_view directive, Field unset, Field value) {
    Field* field = proxy_field<Field>(level.proxy_conf, directive);
    if (field != nullptr && nearest(level, directive, unset) == nullptr) {
        *field = value;
    }
}

bool has_header(const ngx_array_t& headers, std::string_view name) {
    const auto* header = static_cast<const ngx_keyval_t*>(headers.elts);
    for (ngx_uint_t i = 0; i < headers.nelts; ++i) {
        if (same_name(view(header[i].key), name)) {
            return true;
        }
    }
    return false;
}

bool add_header(ngx_array_t& headers, std::string_view name, std::string_view value) {
    if (has_header(headers, name)) {
        return true;
    }
    auto* header = static_cast<ngx_keyval_t*>(ngx_array_push(&headers));
    if (header == nullptr) {
        return false;
    }
    header->key = to_ngx(name);
    header->value = to_ngx(value);
    return true;
}

// A proxy_set_header of the user's own replaces all inherited ones; ours must not get lost by that, so the
// list of this level becomes a copy with ours added where the user has none of that name.
char* add_headers(ngx_conf_t* cf, const ProxyLevel& level) {
    auto** field = proxy_field<ngx_array_t*>(level.proxy_conf, "proxy_set_header");
    ngx_array_t* headers = ngx_array_create(cf->pool, 4, sizeof(ngx_keyval_t));
    if (field == nullptr || headers == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    ngx_array_t* const* inherited =
        nearest(level, "proxy_set_header", static_cast<ngx_array_t*>(NGX_CONF_UNSET_PTR));
    if (inherited != nullptr && *inherited != nullptr && (*inherited)->nelts > 0) {
        void* copy = ngx_array_push_n(headers, (*inherited)->nelts);
        if (copy == nullptr) {
            return static_cast<char*>(NGX_CONF_ERROR);
        }
        ngx_memcpy(copy, (*inherited)->elts, (*inherited)->nelts * sizeof(ngx_keyval_t));
    }
    if (!add_header(*headers, kHostHeader, kEngineHostVariable) ||
        !add_header(*headers, kConnectionHeader, "")) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    *field = headers;
    return NGX_CONF_OK;
}

#if (NGX_HTTP_CACHE)
// Whether a proxy_cache applies at this level and keeps nothing, as what is not buffered is not cached. nginx
// then also sees no client that leaves.
bool has_useless_cache(const ProxyLevel& level) {
    const ngx_flag_t* buffering = nearest<ngx_flag_t>(level, "proxy_buffering", NGX_CONF_UNSET);
    if (buffering == nullptr || *buffering != 0) {
        return false;
    }
    for (const ProxyLevel* at = &level; at != nullptr; at = at->parent) {
        auto* field = proxy_field<char>(at->proxy_conf, "proxy_buffering");
        const auto* upstream = reinterpret_cast<ngx_http_upstream_conf_t*>(
            field - offsetof(ngx_http_upstream_conf_t, buffering));
        if (upstream->cache != NGX_CONF_UNSET) {
            return upstream->cache == 1;
        }
    }
    return false;
}
#endif

}  // namespace

size_t proxy_offset(std::string_view directive) {
    for (const ngx_command_t* command = ngx_http_proxy_module.commands; command->name.len != 0; ++command) {
        if (view(command->name) == directive) {
            return command->offset;
        }
    }
    return 0;
}

void* current_proxy_conf(ngx_conf_t* cf) {
    return ngx_http_conf_get_module_loc_conf(cf, ngx_http_proxy_module);
}

char* set_proxy_defaults(ngx_conf_t* cf, const ProxyLevel& level, const ngx_str_t& location) {
    constexpr ngx_msec_t kReadTimeout = 600'000;  // silence of an engine, not time in our queue
    // A host that has lost its power answers nothing: within nginx's 60 s all its seats would wait for it.
    constexpr ngx_msec_t kConnectTimeout = 5'000;
    set_if_unset<ngx_uint_t>(level, "proxy_http_version", NGX_CONF_UNSET_UINT, NGX_HTTP_VERSION_11);
    set_if_unset<ngx_flag_t>(level, "proxy_buffering", NGX_CONF_UNSET, 0);
    set_if_unset<ngx_msec_t>(level, "proxy_read_timeout", NGX_CONF_UNSET_MSEC, kReadTimeout);
    set_if_unset<ngx_msec_t>(level, "proxy_connect_timeout", NGX_CONF_UNSET_MSEC, kConnectTimeout);
    // Which failures may be tried again; whether there is another engine to try is the balancer's decision.
    set_if_unset<ngx_uint_t>(level, "proxy_next_upstream", 0,
                             NGX_CONF_BITMASK_SET | NGX_HTTP_UPSTREAM_FT_ERROR |
                                 NGX_HTTP_UPSTREAM_FT_TIMEOUT | NGX_HTTP_UPSTREAM_FT_INVALID_HEADER |
                                 NGX_HTTP_UPSTREAM_FT_HTTP_429 | NGX_HTTP_UPSTREAM_FT_HTTP_502 |
                                 NGX_HTTP_UPSTREAM_FT_HTTP_503 | NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT);
    // an engine must not be able to make nginx serve another location, nor to slow down or relabel what it answers
    set_if_unset<ngx_uint_t>(level, "proxy_ignore_headers", 0,
                             NGX_CONF_BITMASK_SET | NGX_HTTP_UPSTREAM_IGN_XA_REDIRECT |
                                 NGX_HTTP_UPSTREAM_IGN_XA_LIMIT_RATE | NGX_HTTP_UPSTREAM_IGN_XA_CHARSET);
#if (NGX_HTTP_CACHE)
    if (has_useless_cache(level)) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"proxy_cache\" keeps nothing in location \"%V\": \"llm_dispatch\" sets "
                           "\"proxy_buffering off\" there, and what is not buffered is not cached; cache in a "
                           "server before it, or set \"proxy_cache off\"",
                           &location);
    }
#endif
    return add_headers(cf, level);
}

}  // namespace llm::nginx
