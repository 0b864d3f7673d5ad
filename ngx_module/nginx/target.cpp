// Nothing in shared memory may be pointed to while nginx works, so all of it is copied.
#include "ngx_module/nginx/target.hpp"

#include <netinet/in.h>

#include <cstring>
#include <functional>
#include <iterator>
#include <string_view>

#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/request_memory.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

// Where the zero-terminated texts and the address lie in a packed copy.
struct Layout {
    uint16_t id, url, host, key, org, address, end;
    uint16_t id_size, url_size, host_size, key_size, org_size;
};

// What is known of an engine, with all that requests need in one piece, to be copied at once.
struct Known {
    core::EngineTarget engine;
    Layout layout;
    uint32_t packed_engine = core::kNone;  // of what `packed` is
    uint32_t packed_generation = 0;
    uint32_t packed_version = 0;
    alignas(16) u_char packed[sizeof(core::EngineTarget)];
};

Known known[32];  // engines share places; each entry is large
const Known* found = nullptr;

// nginx's keepalive finds an idle connection by nothing but the bytes of its address. A TLS connection belongs
// to a name too: the certificate was checked for it, and what stands at the address may have chosen the engine by
// it. So the name is told in bytes that the kernel does not look at (the flow label only with
// IPV6_FLOWINFO_SEND).
void mark_with_name(u_char* address, std::string_view name) {
    const uint64_t mark = std::hash<std::string_view>{}(name);
    if (reinterpret_cast<const sockaddr*>(address)->sa_family == AF_INET) {
        static_assert(sizeof(sockaddr_in::sin_zero) == sizeof(mark));
        std::memcpy(address + offsetof(sockaddr_in, sin_zero), &mark, sizeof(mark));
    } else if (reinterpret_cast<const sockaddr*>(address)->sa_family == AF_INET6) {
        std::memcpy(address + offsetof(sockaddr_in6, sin6_flowinfo), &mark, sizeof(sockaddr_in6::sin6_flowinfo));
    }
}

void pack(Known& k) {
    const core::EngineTarget& e = k.engine;
    Layout& at = k.layout;
    uint16_t used = 0;
    const auto put = [&](const void* bytes, size_t size) {
        const uint16_t begin = used;
        std::memcpy(k.packed + begin, bytes, size);
        used = static_cast<uint16_t>(begin + size);
        return begin;
    };
    const auto put_text = [&](const char* text, uint16_t& size) {
        size = static_cast<uint16_t>(std::strlen(text));
        return put(text, size_t{size} + 1);
    };
    at.address = put(e.address.sockaddr, (e.address.length + 7) & ~size_t{7});  // first: it must be aligned
    if (e.tls) {
        mark_with_name(k.packed + at.address, e.host);
    }
    at.id = put_text(e.id, at.id_size);
    at.url = put_text(e.url, at.url_size);
    at.host = put_text(e.host, at.host_size);
    at.key = put_text(e.key, at.key_size);
    at.org = put_text(e.org, at.org_size);
    at.end = used;
    k.packed_engine = e.engine;
    k.packed_generation = e.generation;
    k.packed_version = e.place_version;
}

}  // namespace

void read_target(const core::ZoneLock& lock, uint32_t engine) {
    Known& k = known[engine % std::size(known)];
    found = nullptr;
    if (!core::engine_target(lock, engine, k.engine) || k.engine.address.length == 0) {
        return;
    }
    found = &k;
    if (k.packed_engine != k.engine.engine || k.packed_generation != k.engine.generation ||
        k.packed_version != k.engine.place_version) {
        pack(k);
    }
}

bool set_target(Request& request) {
    if (found == nullptr) {
        return false;
    }
    const core::EngineTarget& engine = found->engine;
    const Layout& at = found->layout;
    // fresh copies each time: nginx keeps pointers to the name of every attempt for $upstream_addr
    auto* const name = static_cast<ngx_str_t*>(take_memory(request, sizeof(ngx_str_t) + at.end));
    if (name == nullptr) {
        return false;
    }
    auto* const copy = reinterpret_cast<u_char*>(name + 1);
    ngx_memcpy(copy, found->packed, at.end);
    Target& target = request.target;
    target.name = name;
    target.engine = engine.engine;
    target.tls = engine.tls;
    target.max_running = engine.max_running;
    target.held = engine.held;
    target.tokens_per_second_per_user = engine.tokens_per_second_per_user;
    target.address = reinterpret_cast<sockaddr*>(copy + at.address);
    target.address_len = static_cast<socklen_t>(engine.address.length);
    target.id = {at.id_size, copy + at.id};
    target.url = {at.url_size, copy + at.url};
    target.host = *name = {at.host_size, copy + at.host};
    target.key = {at.key_size, copy + at.key};
    target.organisation = {at.org_size, copy + at.org};
    return set_engine_headers(request);
}

}  // namespace llm::nginx
