// nginx tells a balancer little of what becomes of its connection. These hooks, set on the request's own
// upstream object, fill the gap: a response head that asks for another engine, the end of the engine's
// answer, the way it ended.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Wraps the callbacks of request.r->upstream. Once per upstream object.
void wrap_upstream(Request& request);

// Asks the core where to go after a failed attempt, and prepares the next one; or the request waits in the queue
// once more. `type` is nginx's word for the failure, NGX_HTTP_UPSTREAM_FT_…: the user may not have it repeated. False
// when nothing is left.
bool move_to_next_engine(Request& request, core::Failure cause, ngx_uint_t type);

// Prepares another attempt of a failed request that holds no lease, at any other engine. False when no
// attempt or no engine is left.
bool pass_to_another_engine(Request& request, ngx_uint_t type);

// Takes a request back from nginx's proxy, which answers nothing then. No effect when proxy is not at work.
void stop_upstream(ngx_http_request_t* r);

}  // namespace llm::nginx
