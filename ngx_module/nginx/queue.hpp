// Between nginx's event loop and the core's queue: submitting, suspending, waking, timing out, ending.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Asks the core for an engine. NGX_DECLINED: granted, the request goes on to the proxy. NGX_AGAIN: it waits,
// and the phases run again when it is granted. Else the status of a refusal.
ngx_int_t submit_request(Request& request);

// A request that waits gets another queue timeout; one that does not stays as it is.
void change_queue_timeout(Request& request, ngx_msec_t timeout);

// The core has put a request back into the queue that an engine has lost, for `wait_ms` at most. nginx's proxy, which
// is at work, asks for the next peer and waits (dead_end.hpp). False, and the request is over, when memory is short.
bool queue_again(Request& request, uint32_t wait_ms);

// Something happened to a queued or running request of this worker.
void handle_event(Request& request, const core::Event& event);

// Ends the request in the core: cancels, or finishes with `request.outcome`. Idempotent.
void end_request(Request& request);

// Ends it without counting it: nginx sends it to another location, whose outcome counts. Idempotent.
void abandon_request(Request& request);

}  // namespace llm::nginx
