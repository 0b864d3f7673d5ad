// The engine that a request goes to, copied out of the zone.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Reads what is needed to connect to `engine`, on which a lease is held, into a place of this worker's, with
// the lock held. For the set_target() that follows.
void read_target(const core::ZoneLock& lock, uint32_t engine);

// Makes the engine that was read last the request's target, and writes the headers that only this engine may
// see. False when memory is short or the engine is gone.
bool set_target(Request& request);

}  // namespace llm::nginx
