// A request whose phases wait for an event that is not its client's.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// From now on the connection is watched only for the client going away, which ends the request. Then the phase handler
// returns NGX_AGAIN. False when the connection cannot be watched.
bool watch_client(ngx_http_request_t* r);

// Runs the phases again. Nothing of the request may be touched afterwards.
void resume(ngx_http_request_t* r);

// Ends, from outside its phases, a request whose answer cannot be finished; its connection is not used again.
// Nothing of the request may be touched afterwards.
void break_off(ngx_http_request_t* r, ngx_int_t status);

}  // namespace llm::nginx
