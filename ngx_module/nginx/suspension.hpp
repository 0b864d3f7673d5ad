// A request whose phases wait for an event that is not its client's.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// Leaves nothing but the client's farewell to be looked for; then the phase handler returns NGX_AGAIN. False
// when the connection cannot be watched.
bool wait_for_farewell(ngx_http_request_t* r);

// Runs the phases again. Nothing of the request may be touched afterwards.
void resume(ngx_http_request_t* r);

}  // namespace llm::nginx
