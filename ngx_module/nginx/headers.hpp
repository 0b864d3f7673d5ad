// Request headers: what of the client's reaches an engine, and what we add.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// A header of the client's by its lower-case name; nullptr when there is none.
const ngx_table_elt_t* find_request_header(ngx_http_request_t* r, std::string_view lower_case_name);

// A Content-Encoding other than identity: the body cannot be read.
bool has_content_encoding(ngx_http_request_t* r);

// Sets request.request_id: the client's x-request-id when it is harmless, else a new one. False when memory
// is short.
bool set_request_id(Request& request);

// Replaces the request's header list by what the engine of request.target may see: the client's headers
// without its credentials and without x-llm-*, plus the engine's own key, x-request-id and x-llm-priority.
// May be called again for another engine. False when memory is short.
bool set_engine_headers(Request& request);

// Adds a response header. False when memory is short.
bool add_response_header(ngx_http_request_t* r, std::string_view name, const ngx_str_t& value);

}  // namespace llm::nginx
