// Where the bodies of requests lie that wait in the queue. A waiting request costs nothing but memory, and
// what nginx reads a body with (client_body_buffer_size, and a quarter more) stays with the request until its
// end: ten thousand requests of a megabyte would be ten gigabytes.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// The request is about to wait. Memory that its body does not need any more is given back; a body in memory
// moves to a temporary file once those that wait in this worker have taken their share. On failure it stays
// where it is.
void put_body_aside(Request& request);

// It waits no more. Idempotent.
void body_is_wanted(Request& request);

}  // namespace llm::nginx
