// A shorter way through proxy_pass for locations whose proxying is ours alone.
//
// nginx's proxy module builds a request by running a small program for every header line, twice, and reads an
// answer's head byte by byte. Where a location sets nothing of its own that these could depend on, the same
// bytes are written and read directly. Everything else about the upstream (connections, timeouts, retries,
// filters, temporary files) stays nginx's, and wherever a location, request or answer is not of the ordinary
// kind, all of it does.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Takes the shorter way for this request where that makes no difference. Called when the content phase is
// next.
void shorten_proxy(Request& request);

// Reads a whole ordinary head that lies in the upstream's buffer, as proxy's own callback would.
// NGX_DECLINED: it is not whole or not ordinary, nothing was touched.
ngx_int_t read_ordinary_head(Request& request);

}  // namespace llm::nginx
