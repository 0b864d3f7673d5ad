// nginx's own error pages, replaced by JSON.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Whether the answer whose header is being sent is a page that nginx made up itself
// (ngx_http_special_response.c), not something that an engine or a configured error_page has produced.
bool is_own_error_page(const Request& request);

// Whether the answer whose header is being sent has the status of the request's refusal, be its page nginx's
// or one that error_page names.
bool is_refusal(const Request& request);

// Adds what goes with that: WWW-Authenticate, Retry-After and the like. False when memory is short.
bool add_refusal_headers(Request& request);

// Turns header and length of such a page into those of the error object, and adds the headers of the refusal.
bool begin_error_page(Request& request);

// Sends the error object in place of the page in `in`.
ngx_int_t send_error_page(Request& request, ngx_chain_t* in, ngx_http_output_body_filter_pt next);

// Sends the answer of llm_compat that has status 200, which nginx's error machinery cannot. Returns for a phase handler.
ngx_int_t send_compat_ok(Request& request);

}  // namespace llm::nginx
