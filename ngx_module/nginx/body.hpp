// What the gateway needs to know of a request body, and the little it may change in it.
#pragma once

#include <string>

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Scans the body that nginx has read (memory and temporary file) and fills the request's fields. Returns
// false and sets `refusal` when the body cannot be accepted.
bool scan_body(Request& request, Refusal& refusal);

// Makes the body say what this location wants the engine to read: the routed model, an engine priority, usage
// in streams. Only where it differs; otherwise the body stays byte for byte. False when memory is short.
bool rewrite_body(Request& request);

// Lower-case hexadecimal SHA-256 of the body as it stands. False when it cannot be read or memory is short.
bool hash_body(ngx_http_request_t* r, ngx_str_t& digest);

// Appends the body that nginx has read to `text`. False when it is longer than `limit` bytes, cannot be read or
// memory is short.
bool copy_body(ngx_http_request_t* r, size_t limit, std::string& text);

}  // namespace llm::nginx
