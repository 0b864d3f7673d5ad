// A shorter way through proxy_pass for locations whose proxying is ours alone.
//
// nginx's proxy module builds a request by running a small program for every header line, twice. Where a
// location sets nothing of its own that these could depend on, the same bytes are written directly.
// Everything else stays nginx's, and wherever a location or request is not of the ordinary kind, this does
// too.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Takes the shorter way for this request where that makes no difference. Called when the content phase is
// next.
void shorten_proxy(Request& request);

}  // namespace llm::nginx
