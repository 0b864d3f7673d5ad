// Headers of an engine's answer that end at the gateway.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// Takes away what concerns the connection to the engine only: RFC 9110, 7.6.1, what its Connection header
// names, and X-Accel-* that nginx does not know. Needs r->upstream. O(headers).
void drop_hop_by_hop_headers(ngx_http_request_t* r);

// Takes away those that the gateway sets itself. An engine may echo the id it was given, and may itself be a
// gateway like this one: the client gets each header once, from us. O(headers).
void drop_gateway_headers(ngx_http_request_t* r);

}  // namespace llm::nginx
