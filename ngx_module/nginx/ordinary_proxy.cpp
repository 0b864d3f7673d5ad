#include "ngx_module/nginx/ordinary_proxy.hpp"

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/engine_request.hpp"

extern "C" {
extern ngx_module_t ngx_http_proxy_module;
}

namespace llm::nginx {
namespace {

// What proxy_pass leaves in proxy's private configuration, in this order, since nginx 0.8; behind it stand
// `redirect` and the field that proxy_http_version fills, whose offset is in the command table.
struct ProxyPassVariables {
    ngx_str_t key_start;
    ngx_str_t schema;
    ngx_str_t host_header;
    ngx_str_t port;
    ngx_str_t uri;
};

const ProxyPassVariables* proxy_pass_of(void* proxy_conf) {
    const auto* version = proxy_field<ngx_uint_t>(proxy_conf, "proxy_http_version");
    if (version == nullptr) {
        return nullptr;
    }
    const auto* redirect = reinterpret_cast<const ngx_flag_t*>(version) - 1;
    return reinterpret_cast<const ProxyPassVariables*>(redirect) - 1;
}

bool equals(const ngx_str_t& text, std::string_view other) {
    return text.data != nullptr && view(text) == other;
}

// proxy_pass names an upstream, without variables and without a path. Schema and name are compared: should a
// future nginx lay its struct out differently, no location is ordinary.
bool passes_paths_unchanged(void* proxy_conf, const ngx_http_upstream_conf_t& upstream) {
    const ProxyPassVariables* variables = proxy_pass_of(proxy_conf);
    return variables != nullptr && upstream.upstream != nullptr &&
           (equals(variables->schema, "http://") || equals(variables->schema, "https://")) &&
           equals(variables->host_header, view(upstream.upstream->host)) && variables->uri.len == 0;
}

bool sets_no_headers_of_its_own(void* proxy_conf) {
    const auto* field = proxy_field<ngx_array_t*>(proxy_conf, "proxy_set_header");
    if (field == nullptr || *field == nullptr || (*field)->nelts != 2) {
        return false;
    }
    const auto* headers = static_cast<const ngx_keyval_t*>((*field)->elts);
    return equals(headers[0].key, kHostHeader) && equals(headers[0].value, kEngineHostVariable) &&
           equals(headers[1].key, kConnectionHeader) && headers[1].value.len == 0;
}

bool is_ordinary(void* proxy_conf) {
    const auto& upstream = *static_cast<const ngx_http_upstream_conf_t*>(proxy_conf);  // its first member
    const auto* version = proxy_field<ngx_uint_t>(proxy_conf, "proxy_http_version");
    const auto* method = proxy_field<ngx_http_complex_value_t*>(proxy_conf, "proxy_method");
    const auto* body = proxy_field<ngx_str_t>(proxy_conf, "proxy_set_body");
    return version != nullptr && *version == NGX_HTTP_VERSION_11 && method != nullptr && *method == nullptr &&
           body != nullptr && body->len == 0 && upstream.pass_request_headers != 0 &&
           upstream.pass_request_body != 0 && passes_paths_unchanged(proxy_conf, upstream) &&
           sets_no_headers_of_its_own(proxy_conf);
}

bool location_is_ordinary(ngx_http_request_t* r) {
    LocConf& conf = loc_conf(r);
    if (conf.proxy_kind == kProxyUnknown) {
        const bool ordinary = is_ordinary(ngx_http_get_module_loc_conf(r, ngx_http_proxy_module));
        conf.proxy_kind = ordinary ? kProxyOrdinary : kProxyOwn;
    }
    return conf.proxy_kind == kProxyOrdinary;
}

// Proxy's handler makes the upstream and starts it at once, as the body has been read. With `aio` set nginx's
// start is put off, which is the one moment when the callback that builds the request can be exchanged.
ngx_int_t content_handler(ngx_http_request_t* r) {
    Request& request = *get_request(r);
    r->aio = 1;
    const ngx_int_t result = request.proxy_handler(r);
    r->aio = 0;
    ngx_http_upstream_t* u = r->upstream;
    if (result != NGX_DONE || u == nullptr) {
        return result;
    }
    request.create_request = u->create_request;
    u->create_request = create_engine_request;
    ngx_http_upstream_init(r);
    return NGX_DONE;
}

}  // namespace

void shorten_proxy(Request& request) {
    ngx_http_request_t* r = request.r;
    if (r->method == NGX_HTTP_POST && r->request_body != nullptr && !r->reading_body &&
        r->valid_unparsed_uri && r->content_handler != nullptr && r->content_handler != content_handler &&
        location_is_ordinary(r)) {
        request.proxy_handler = r->content_handler;
        r->content_handler = content_handler;
    }
}

}  // namespace llm::nginx
