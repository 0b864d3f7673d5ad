// What the core must be told of a running request: its answer's head came, its engine is done with it.
//
// A short answer comes in one read, head and end together, and the request ends at once. So news waits until
// the core is told something anyway (charge, retry, finish), in one holding of the lock; at the latest until
// nginx has handled the events at hand, before it waits for new ones.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// The head of an answer that is passed on.
void head_arrived(Request& request, uint32_t status);

// Gives the seat back while the client still reads. Idempotent. Told at once, before the client gets the last
// bytes, where its next request must find the seat free.
void release_lease(Request& request);

// Nothing more will come of the upstream. If nginx then only lingers until the client closes, the request is
// counted at once and not seconds later.
void answer_ended(Request& request);

// Tells what is pending, with the lock held.
void tell_news(const core::ZoneLock& lock, Request& request, int64_t now, core::WakeSet& wakes);

// Takes the request out of nginx's posted events, before its memory goes.
void forget_news(Request& request);

}  // namespace llm::nginx
