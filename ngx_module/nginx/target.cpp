// The engine a request goes to, copied out of the zone: nothing in shared memory may be pointed to while
// nginx works.
#include <cstring>

#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/request.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {

bool set_target(Request& request, uint32_t engine) {
    static core::EngineTarget found;  // large; used only here and now
    {
        core::ZoneLock lock(zone());
        if (!core::engine_target(lock, engine, found)) {
            return false;
        }
    }
    if (found.address.length == 0) {
        return false;
    }
    ngx_pool_t* pool = request.r->pool;
    // fresh copies each time: nginx keeps pointers to the name of every attempt for $upstream_addr
    Target target;
    target.engine = engine;
    target.id = copy_to_pool(pool, found.id);
    target.url = copy_to_pool(pool, found.url);
    target.host = copy_to_pool(pool, found.host);
    target.key = copy_to_pool(pool, found.key);
    target.tls = found.tls;
    target.organisation = found.org[0] != '\0' ? copy_to_pool(pool, found.org) : ngx_str_t{0, nullptr};
    target.max_running = found.max_running;
    target.held = found.held;
    target.tokens_per_second_per_user = found.tokens_per_second_per_user;
    target.address_len = static_cast<socklen_t>(found.address.length);
    target.address = static_cast<sockaddr*>(ngx_palloc(pool, target.address_len));
    if (target.id.data == nullptr || target.url.data == nullptr || target.host.data == nullptr ||
        target.key.data == nullptr || target.address == nullptr) {
        return false;
    }
    std::memcpy(target.address, found.address.sockaddr, target.address_len);
    request.target = target;
    return set_engine_headers(request);
}

}  // namespace llm::nginx
