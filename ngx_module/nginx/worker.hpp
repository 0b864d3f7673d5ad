// One nginx worker's share in the zone: its process slot, its wake-up descriptor, its heartbeat.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include "ngx_module/core/dispatcher.hpp"

namespace llm::nginx {

struct Request;

// Process hooks of the module.
ngx_int_t start_worker(ngx_cycle_t* cycle);
void stop_worker(ngx_cycle_t* cycle);

// The zone as this worker sees it. Only in a worker that start_worker() has set up.
core::Zone& zone();
uint32_t process_slot();  // kNone when all slots are taken: nothing can be queued then

int64_t now_us();  // monotonic
int64_t wall_s();  // seconds since 1970
uint32_t random32();

// Rings the processes that got something to read. After the lock has been released.
void wake(const core::WakeSet& wakes);

// Whether this worker has been told to leave (reload, quit): it still serves what it has.
bool leaving();

// Who gets the core's events of a ticket (handle_event()); nullptr: nobody any more.
void set_event_receiver(core::Ticket ticket, Request* request);

}  // namespace llm::nginx
