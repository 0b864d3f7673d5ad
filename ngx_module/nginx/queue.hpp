// Between nginx's event loop and the core's queue: submitting, suspending, waking, timing out.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Asks the core for an engine. NGX_DECLINED: granted, the request goes on to the proxy. NGX_AGAIN: it waits,
// and the phases run again when it is granted. Else the status of a refusal.
ngx_int_t submit_request(Request& request);

}  // namespace llm::nginx
