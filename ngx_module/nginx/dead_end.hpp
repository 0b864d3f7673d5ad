// What nginx's proxy is given while a request that its engine has lost waits in the queue once more.
//
// nginx asks the balancer for the next peer and wants a connection there and then. It gets one that leads nowhere
// and is still "being made". Once an engine is granted that connection fails, and nginx asks again. Meanwhile it
// watches the client as it always does.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Whether nginx would go on after such a connection: the user's proxy_next_upstream must allow it.
bool dead_end_is_possible(const Request& request);

// For get_peer: NGX_AGAIN, or NGX_ERROR, and the request has left the queue, when there is no connection to be had.
ngx_int_t enter_dead_end(Request& request, ngx_peer_connection_t& peer);

// nginx asks for the next peer. Nothing of the request may be touched afterwards.
void leave_dead_end(Request& request);

// The request goes on without: its end, or leave_dead_end(). Idempotent.
void forget_dead_end(Request& request);

}  // namespace llm::nginx
