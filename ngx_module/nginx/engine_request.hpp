// The request to an engine in an ordinary location (ordinary_proxy.hpp), byte for byte what nginx would
// build.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// An ngx_http_upstream_t's create_request.
ngx_int_t create_engine_request(ngx_http_request_t* r);

}  // namespace llm::nginx
