// Sends a complete answer from a content handler.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <string_view>

namespace llm::nginx::web {

// Sends `body` (which must live as long as the request) with status and type. Returns what a content handler
// returns.
ngx_int_t send(ngx_http_request_t* r, ngx_uint_t status, std::string_view content_type,
               std::string_view body);

// As send(), but copies the body into the request's pool.
ngx_int_t send_copy(ngx_http_request_t* r, ngx_uint_t status, std::string_view content_type,
                    std::string_view body);

// Refuses a request of any method but GET and HEAD, and says which are allowed. Returns what a content handler returns.
ngx_int_t refuse_method(ngx_http_request_t* r);

}  // namespace llm::nginx::web
