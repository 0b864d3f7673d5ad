// The engine a request goes to, copied out of the zone: nothing in shared memory may be pointed to while
// nginx works.
#include <cstring>

#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/request.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {

namespace {

core::EngineTarget found;  // large; used only from one call to the next
bool is_there = false;

}  // namespace

void read_target(const core::ZoneLock& lock, uint32_t engine) {
    is_there = core::engine_target(lock, engine, found) && found.address.length != 0;
}

bool set_target(Request& request) {
    if (!is_there) {
        return false;
    }
    ngx_pool_t* pool = request.r->pool;
    // fresh copies each time: nginx keeps pointers to the name of every attempt for $upstream_addr
    Target target;
    target.engine = found.engine;
    target.tls = found.tls;
    target.max_running = found.max_running;
    target.held = found.held;
    target.tokens_per_second_per_user = found.tokens_per_second_per_user;
    target.address_len = static_cast<socklen_t>(found.address.length);
    target.address = static_cast<sockaddr*>(ngx_palloc(pool, target.address_len));
    if (target.address == nullptr || !copy_to_pool(pool, {{&target.id, found.id},
                                                          {&target.url, found.url},
                                                          {&target.host, found.host},
                                                          {&target.key, found.key},
                                                          {&target.organisation, found.org}})) {
        return false;
    }
    std::memcpy(target.address, found.address.sockaddr, target.address_len);
    request.target = target;
    return set_engine_headers(request);
}

}  // namespace llm::nginx
