// Names of models and engines that stand in a path.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <string>
#include <string_view>

namespace llm::nginx::web {

// What stands behind `start` in the path, as the client sent it and decoded once. In r->uri nginx has joined slashes
// and taken dots for directories, but a name may be "/models/llama" or "http://10.0.0.5:8000". Empty if the path was
// rewritten or does not start so: then r->uri is what there is.
std::string sent_name(ngx_http_request_t* r, std::string_view start);

}  // namespace llm::nginx::web
