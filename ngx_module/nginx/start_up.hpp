// Requests that come to a new zone before it has heard of any client or engine: right after a start, or to
// the new process of a binary upgrade, which must not refuse what the old one would have served. They wait
// until the sources have been read or cannot be read, for some seconds at most (core/start_up.hpp).
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

bool must_wait_for_sources();

// Suspends a request in its access phase, which runs again when the waiting is over. Returns what the phase
// handler returns.
ngx_int_t wait_for_sources(Request& request);

// The request ends. Nothing happens if it does not wait.
void stop_waiting_for_sources(Request& request);

// Lets those that wait go on, if the waiting is over. After every wake-up.
void admit_early_requests();

}  // namespace llm::nginx
