// Memory of requests: each Request, and a room for the pieces that nearly every dispatched request needs (the
// engine's address, the headers it may see, the head that is sent, what is remembered of its answer). Both
// are recycled by the worker; out of nginx's pool they would cost most requests one more block of malloc's.
#pragma once

#include "ngx_module/nginx/request.hpp"
#include "shared/sanitizers.hpp"

#if LLM_ASAN
#include <sanitizer/asan_interface.h>
#endif

namespace llm::nginx {

constexpr size_t kRoomSize = 2048;

// A zeroed Request that lives as long as the pool of `main`. nullptr when memory is short.
Request* new_request(ngx_http_request_t* main);

// Gives a request without one its room. False when memory is short.
bool open_room(Request& request);

// Memory for any type, as long as the pool of the request lives: of the room, or of the pool when the room is
// full. nullptr when memory is short.
inline void* take_memory(Request& request, size_t size) {
    constexpr size_t kAlignment = 16;
    constexpr size_t kGap = LLM_ASAN ? kAlignment : 0;  // so that what goes beyond a piece is seen
    if (request.room == nullptr && !open_room(request)) {
        return nullptr;
    }
    const size_t begin = request.room_used;
    const size_t end = begin + ((size + kAlignment - 1) & ~(kAlignment - 1)) + kGap;
    if (end > kRoomSize) {
        return ngx_palloc(request.r->pool, size);
    }
    request.room_used = static_cast<uint32_t>(end);
#if LLM_ASAN
    __asan_unpoison_memory_region(request.room + begin, size);
#endif
    return request.room + begin;
}

}  // namespace llm::nginx
