// llm_queue_timeout across a reload: what waits in an old worker waits as long as the configuration says that
// runs now. Its workers write the timeouts of their locations into the zone; a worker that leaves looks for
// them there.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include "ngx_module/core/zone.hpp"

namespace llm::nginx {

struct MainConf;
struct LocConf;

constexpr uint32_t kMaxQueueTimeouts =
    256;  // requests of further locations keep the timeout that they came with

struct QueueTimeout {
    uint64_t location;  // LocConf::identity
    uint64_t ms;
};

// In the zone, under its lock.
struct QueueTimeouts {
    uint32_t version;  // another one with each change
    uint32_t count;
    QueueTimeout of[kMaxQueueTimeouts];
};

// Gives a location that dispatches its identity and notes its timeout. While the configuration is read, with
// `cf` at that location and its values merged.
void note_queue_timeout(ngx_conf_t* cf, MainConf& main, LocConf& location);

// Writes the timeouts of a configuration, unless they are there already. Returns their version.
uint32_t publish_queue_timeouts(const MainConf& conf, core::Zone& zone, QueueTimeouts& shared);

// The timeout of a location in milliseconds; 0 when there is none of that identity.
ngx_msec_t find_queue_timeout(const QueueTimeouts& timeouts, uint64_t location);

}  // namespace llm::nginx
