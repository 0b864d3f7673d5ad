#include "ngx_module/nginx/error_page.hpp"

#include <algorithm>

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/headers.hpp"

namespace llm::nginx {
namespace {

// Adds a header with a decimal value.
bool add_number(ngx_http_request_t* r, std::string_view name, int64_t value) {
    auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT64_LEN));
    if (text == nullptr) {
        return false;
    }
    const u_char* end = ngx_sprintf(text, "%L", value);
    return add_response_header(r, name, {static_cast<size_t>(end - text), text});
}

// "1.500s", as OpenAI writes durations in its x-ratelimit-reset-* headers.
bool add_duration(ngx_http_request_t* r, std::string_view name, uint32_t milliseconds) {
    constexpr size_t kCapacity = 32;
    auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, kCapacity));
    if (text == nullptr) {
        return false;
    }
    const u_char* end = ngx_snprintf(text, kCapacity, "%uD.%03uDs", milliseconds / 1000, milliseconds % 1000);
    return add_response_header(r, name, {static_cast<size_t>(end - text), text});
}

bool add_retry_headers(ngx_http_request_t* r, const Refusal& refusal) {
    constexpr uint32_t kLongest = 60;
    if (refusal.retry_after_ms == 0) {
        return true;
    }
    const uint32_t seconds = std::min(std::max<uint32_t>((refusal.retry_after_ms + 999) / 1000, 1), kLongest);
    const uint32_t milliseconds = std::min(refusal.retry_after_ms, kLongest * 1000);
    if (!add_number(r, "Retry-After", seconds) || !add_number(r, "retry-after-ms", milliseconds)) {
        return false;
    }
    return refusal.should_retry || add_response_header(r, "x-should-retry", to_ngx("false"));
}

bool add_limit_headers(ngx_http_request_t* r, const Refusal& refusal) {
    if (!refusal.has_limits) {
        return true;
    }
    return add_number(r, "x-ratelimit-limit-requests", refusal.limit_requests) &&
           add_number(r, "x-ratelimit-remaining-requests", refusal.remaining_requests) &&
           add_duration(r, "x-ratelimit-reset-requests", refusal.reset_ms);
}

void set_json_header(ngx_http_request_t* r, size_t length) {
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = nullptr;
    r->headers_out.charset.len = 0;
    r->headers_out.content_length_n = static_cast<off_t>(length);
}

}  // namespace

bool is_own_error_page(const Request& request) {
    const ngx_http_request_t* r = request.r;
    const auto status = static_cast<ngx_uint_t>(r->headers_out.status);
    if (r->err_status == 0 || status != r->err_status || status < NGX_HTTP_BAD_REQUEST) {
        return false;
    }
    // an upstream that is not over passes its own answer; what comes after it, or in its place, is nginx's
    const ngx_http_upstream_t* u = r->upstream;
    if (u != nullptr && !r->filter_finalize && u->headers_in.status_n != 0 &&
        (u->cleanup != nullptr || is_from_cache(r))) {
        return false;
    }
    const std::string_view type = view(r->headers_out.content_type);
    return (type == "text/html" || type.empty()) && r->headers_out.last_modified_time == -1;
}

bool is_refusal(const Request& request) {
    const ngx_http_request_t* r = request.r;
    const Refusal& refusal = request.refusal;
    const auto status = static_cast<ngx_int_t>(r->headers_out.status);
    return refusal.code != ErrorCode::none && r->headers_out.status == r->err_status &&
           (error_info(refusal.code).status == status || refusal.compat_status == status);
}

bool add_refusal_headers(Request& request) {
    ngx_http_request_t* r = request.r;
    if (r->headers_out.status == NGX_HTTP_UNAUTHORIZED &&
        !add_response_header(r, "WWW-Authenticate", to_ngx("Bearer"))) {
        return false;
    }
    return add_retry_headers(r, request.refusal) && add_limit_headers(r, request.refusal);
}

bool begin_error_page(Request& request) {
    ngx_http_request_t* r = request.r;
    const auto status = static_cast<ngx_int_t>(r->headers_out.status);
    if (!is_refusal(request)) {
        request.refusal = {};
        request.refusal.code = code_of_status(status);
    }
    const Refusal& refusal = request.refusal;
    request.error_body =
        refusal.compat_body.len != 0 ? refusal.compat_body : error_body(r->pool, refusal, status);
    if (request.error_body.data == nullptr) {
        return false;
    }
    set_json_header(r, request.error_body.len);
    return add_refusal_headers(request);
}

ngx_int_t send_error_page(Request& request, ngx_chain_t* in, ngx_http_output_body_filter_pt next) {
    ngx_http_request_t* r = request.r;
    bool last = false;
    for (; in != nullptr; in = in->next) {
        last = last || in->buf->last_buf;
        in->buf->pos = in->buf->last;  // nginx's page is consumed
    }
    if (!last) {
        return NGX_OK;
    }
    ngx_buf_t* buffer = memory_buffer(r->pool, view(request.error_body));
    if (buffer == nullptr) {
        return NGX_ERROR;
    }
    buffer->last_buf = 1;
    buffer->last_in_chain = 1;
    request.error_body.len = 0;
    ngx_chain_t out{buffer, nullptr};
    return next(r, &out);
}

ngx_int_t send_compat_ok(Request& request) {
    ngx_http_request_t* r = request.r;
    if (ngx_http_discard_request_body(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    r->headers_out.status = NGX_HTTP_OK;
    set_json_header(r, request.refusal.compat_body.len);
    ngx_int_t status = ngx_http_send_header(r);
    if (status != NGX_ERROR && status <= NGX_OK && !r->header_only) {
        ngx_buf_t* buffer = memory_buffer(r->pool, view(request.refusal.compat_body));
        if (buffer == nullptr) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
        buffer->last_buf = 1;
        buffer->last_in_chain = 1;
        ngx_chain_t out{buffer, nullptr};
        status = ngx_http_output_filter(r, &out);
    }
    ngx_http_finalize_request(r, status);
    return NGX_DONE;
}

}  // namespace llm::nginx
