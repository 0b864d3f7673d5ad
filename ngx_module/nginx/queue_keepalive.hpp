// llm_queue_keepalive: a stream that waits longer than that gets its head early (begun_stream.hpp), and a
// comment as often, so that nobody between gateway and client takes the connection for dead. The comments go
// on until the engine's first byte: a long prompt is as silent as the queue.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// The request waits in the queue from now on.
void start_keepalive(Request& request);

// It has left the queue: nothing more happens unless its head is out. Idempotent.
void leave_keepalive(Request& request);

// It ends. Idempotent.
void stop_keepalive(Request& request);

}  // namespace llm::nginx
