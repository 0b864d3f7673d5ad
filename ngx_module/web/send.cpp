#include "ngx_module/web/send.hpp"

#include <algorithm>

#include "ngx_module/nginx/headers.hpp"

namespace llm::nginx::web {
namespace {

constexpr std::string_view kCharset = "; charset=";

}  // namespace

ngx_int_t send(ngx_http_request_t* r, ngx_uint_t status, std::string_view content_type,
               std::string_view body) {
    if (ngx_http_discard_request_body(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    r->headers_out.status = status;
    r->headers_out.content_type = to_ngx(content_type);
    r->headers_out.content_type_len = std::min(content_type.find(';'), content_type.size());  // what gzip_types name
    const size_t charset = content_type.find(kCharset);
    if (charset != std::string_view::npos) {
        r->headers_out.charset = to_ngx(content_type.substr(charset + kCharset.size()));
    }
    r->headers_out.content_length_n = static_cast<off_t>(body.size());
    const ngx_int_t sent = ngx_http_send_header(r);
    if (sent == NGX_ERROR || sent > NGX_OK || r->header_only) {
        return sent;
    }
    ngx_buf_t* buffer = memory_buffer(r->pool, body);
    if (buffer == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    const bool main = r == r->main;  // else what it is a part of goes on behind it
    buffer->memory = body.empty() ? 0 : 1;
    buffer->last_buf = main ? 1 : 0;
    buffer->last_in_chain = 1;
    buffer->sync = body.empty() && !main ? 1 : 0;
    ngx_chain_t out{buffer, nullptr};
    return ngx_http_output_filter(r, &out);
}

ngx_int_t send_copy(ngx_http_request_t* r, ngx_uint_t status, std::string_view content_type,
                    std::string_view body) {
    const ngx_str_t copy = copy_to_pool(r->pool, body);
    if (copy.data == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return send(r, status, content_type, view(copy));
}

ngx_int_t refuse_method(ngx_http_request_t* r) {
    return add_response_header(r, "Allow", to_ngx("GET, HEAD")) ? NGX_HTTP_NOT_ALLOWED
                                                                : NGX_HTTP_INTERNAL_SERVER_ERROR;
}

}  // namespace llm::nginx::web
