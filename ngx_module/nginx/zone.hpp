// The module's shared memory zone: declared while the configuration is read, carved by the core on first use,
// inherited by every worker and by every later cycle that names the same zone and size.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <array>
#include <string>

#include "ngx_module/core/zone.hpp"
#include "ngx_module/nginx/queue_timeouts.hpp"

namespace llm::nginx {

struct MainConf;

constexpr size_t kDefaultZoneSize = 64 * 1024 * 1024;

// Wake-up file descriptors, shared by the process slots (slot modulo their number). Two processes on one
// descriptor only means that one of them sometimes looks into its mailbox in vain; 64 keeps us far from
// RLIMIT_NOFILE.
constexpr uint32_t kWakeFds = 64;

// What nginx's side keeps in the zone next to the core's region.
struct SharedRoot {
    // Made by the master: the numbers hold in all its descendants.
    int wake_fd[kWakeFds];  // eventfds
    int usage_fd;           // of sources::UsageHandover; later zones of the master have the same. -1: nobody comes after
    QueueTimeouts queue_timeouts;
    size_t core_bytes;
    alignas(64) unsigned char core[];
};

// Per cycle, in the configuration pool: shm_zone->data.
struct ZoneContext {
    core::Zone zone;
    SharedRoot* root;
    uint32_t sources;  // sum of core::Source: what fills a new zone
    // What this cycle has made and what goes with it if it never becomes the running one.
    std::array<int, kWakeFds + 1> new_fds;
    bool has_new_fds;
};

// Empty, or why a zone of this size cannot work.
std::string check_zone_size(size_t bytes);

// Declares the zone of the configuration.
ngx_int_t add_zone(ngx_conf_t* cf, MainConf& conf);

// Once a configuration has become the running one: its descriptors stay, and the master's of a zone that it
// has no use for are closed. The old workers have their own.
ngx_int_t adopt_zone(ngx_cycle_t* cycle);

// The master ends: says what nobody has taken over.
void leave_zone_for_good(ngx_cycle_t* cycle);

}  // namespace llm::nginx
