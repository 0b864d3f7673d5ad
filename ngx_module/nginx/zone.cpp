#include "ngx_module/nginx/zone.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include <algorithm>
#include <new>
#include <set>
#include <utility>

#include "ngx_module/core/start_up.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/sources/usage_handover.hpp"

namespace llm::nginx {
namespace {

constexpr int64_t kStartUpUs =
    5'000'000;  // requests wait at most this long for the first clients and engines

// nginx hands a zone on to the next cycle when name, size and tag agree. A constant with the layout's
// version, unlike the address of a symbol, survives a module loaded elsewhere and changes exactly when the
// layout does.
void* zone_tag() {
    return reinterpret_cast<void*>(uintptr_t{0x6c6c6d00} + core::kLayoutVersion);
}

// nginx's slab allocator keeps its own head and a descriptor per page in front of what it gives out.
size_t usable_bytes(size_t zone_bytes) {
    const size_t pages = zone_bytes / ngx_pagesize;
    const size_t overhead = sizeof(ngx_slab_pool_t) + 64 * sizeof(ngx_slab_page_t) +
                            pages * sizeof(ngx_slab_page_t) + 4 * ngx_pagesize;
    return zone_bytes > overhead ? ((zone_bytes - overhead) / ngx_pagesize) * ngx_pagesize : 0;
}

size_t core_bytes(size_t zone_bytes) {
    const size_t usable = usable_bytes(zone_bytes);
    return usable > sizeof(SharedRoot) ? (usable - sizeof(SharedRoot)) & ~size_t{63} : 0;
}

void lock_zone(void* mutex) {
    ngx_shmtx_lock(static_cast<ngx_shmtx_t*>(mutex));
}

void unlock_zone(void* mutex) {
    ngx_shmtx_unlock(static_cast<ngx_shmtx_t*>(mutex));
}

// Descriptors of sockets must have numbers below the worker's limit, so those below are for them: with a
// worker_rlimit_nofile of 64 our 64 would leave none.
int move_up(int fd) {
    rlimit limit{};
    if (fd < 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return fd;
    }
    const auto above = static_cast<int>(std::min<rlim_t>(512, limit.rlim_cur / 2));
    const int moved = fcntl(fd, F_DUPFD_CLOEXEC, above);
    if (moved < 0) {
        return fd;
    }
    close(fd);
    return moved;
}

ZoneContext* context_of(const MainConf* conf) {
    return conf != nullptr && conf->zone != nullptr ? static_cast<ZoneContext*>(conf->zone->data) : nullptr;
}

SharedRoot* root_of(const ZoneContext* context) {
    return context != nullptr ? context->root : nullptr;
}

// Of the zone that the workers use while another configuration is read.
SharedRoot* running_root() {
    return ngx_cycle == nullptr || ngx_is_init_cycle(ngx_cycle) ? nullptr
                                                                : root_of(context_of(running_conf()));
}

// The descriptors of a new zone.
bool make_fds(ZoneContext& context, SharedRoot& root, ngx_log_t* log) {
    context.new_fds.fill(-1);
    context.has_new_fds = true;
    for (uint32_t i = 0; i < kWakeFds; ++i) {
        context.new_fds[i] = move_up(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
        if (context.new_fds[i] < 0) {
            ngx_log_error(NGX_LOG_EMERG, log, ngx_errno, "llm_zone: eventfd() failed");
            return false;
        }
        root.wake_fd[i] = context.new_fds[i];
    }
    if (const SharedRoot* old = running_root(); old != nullptr) {
        root.usage_fd = old->usage_fd;
        return true;
    }
    root.usage_fd = context.new_fds[kWakeFds] = move_up(sources::UsageHandover::make());
    if (root.usage_fd < 0) {
        ngx_log_error(NGX_LOG_WARN, log, ngx_errno,
                      "llm_zone: memfd_create() failed: usage records that wait when a worker ends are lost");
    }
    return true;
}

// A cycle ends. The zone's memory may be gone before; of a cycle that ran, the descriptors live on in the
// next.
void close_new_fds(void* data) {
    const auto& context = *static_cast<const ZoneContext*>(data);
    for (size_t i = 0; context.has_new_fds && i < context.new_fds.size(); ++i) {
        if (context.new_fds[i] >= 0) {
            close(context.new_fds[i]);
        }
    }
}

// For operators: in the log at start, on the terminal with nginx -t.
void say_what_it_holds(const ngx_shm_zone_t& shm_zone, const core::ZonePlan& plan) {
    ngx_log_error(NGX_LOG_NOTICE, shm_zone.shm.log, 0,
                  "llm_zone \"%V\" holds %uD clients, %uD requests, %uD engines", &shm_zone.shm.name,
                  plan.clients, plan.requests, plan.engines);
    if (ngx_test_config && !ngx_quiet_mode) {
        ngx_log_stderr(0, "llm_zone \"%V\" holds %uD clients, %uD requests, %uD engines", &shm_zone.shm.name,
                       plan.clients, plan.requests, plan.engines);
    }
}

// The workers of a new zone accept requests before they know a client or an engine.
void expect_sources(ZoneContext& context) {
    const int64_t until = now_us() + kStartUpUs;
    const core::ZoneLock lock(context.zone);
    core::expect_sources(lock, context.sources, until);
}

// Runs in the master before any worker of the cycle exists. With `old_data` the zone is live: nothing in it
// may change, because the rest of the reload may still fail.
ngx_int_t init_zone(ngx_shm_zone_t* shm_zone, void* old_data) {
    auto* context = static_cast<ZoneContext*>(shm_zone->data);
    auto* pool = reinterpret_cast<ngx_slab_pool_t*>(shm_zone->shm.addr);
    ngx_log_t* log = shm_zone->shm.log;
    const core::LockOps ops{lock_zone, unlock_zone, &pool->mutex};

    if (old_data != nullptr) {
        context->root = static_cast<ZoneContext*>(old_data)->root;
    } else if (shm_zone->shm.exists) {
        context->root = static_cast<SharedRoot*>(pool->data);
    } else {
        const size_t bytes = core_bytes(shm_zone->shm.size);
        // Page aligned, like every allocation of a page and more. Not zeroed: the core writes what needs a first value,
        // and pages for clients that nobody has take no memory.
        auto* root = static_cast<SharedRoot*>(ngx_slab_alloc(pool, sizeof(SharedRoot) + bytes));
        if (root != nullptr) {
            ngx_memzero(root, sizeof(SharedRoot));
        }
        if (root == nullptr || !core::format_zone(root->core, bytes)) {
            ngx_log_error(NGX_LOG_EMERG, log, 0, "llm_zone \"%V\": %uz bytes cannot be carved",
                          &shm_zone->shm.name, shm_zone->shm.size);
            return NGX_ERROR;
        }
        if (!make_fds(*context, *root, log)) {
            return NGX_ERROR;
        }
        root->core_bytes = bytes;
        pool->data = root;
        context->root = root;
    }
    if (!context->zone.attach(context->root->core, context->root->core_bytes, ops)) {
        ngx_log_error(NGX_LOG_EMERG, log, 0, "llm_zone \"%V\": the zone has another layout",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }
    if (old_data == nullptr) {
        expect_sources(*context);
        say_what_it_holds(*shm_zone, context->zone.plan());
    }
    return NGX_OK;
}

// A zone of another size or layout is a new zone: what waits in the old one is answered by the old workers.
void warn_of_new_zone(ngx_conf_t* cf, const MainConf& conf) {
    if (ngx_cycle == nullptr || ngx_is_init_cycle(ngx_cycle) || ngx_test_config) {
        return;
    }
    const MainConf* old = running_conf();
    if (old == nullptr || old->zone == nullptr) {
        return;
    }
    if (view(old->zone_name) != view(conf.zone_name) || old->zone_size != conf.zone_size) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "llm_zone has changed: a new zone starts empty, counters and queues begin anew");
    }
}

// Usage records that nobody takes over any more.
void tell_lost_records(const SharedRoot& root, ngx_log_t* log, const char* why) {
    if (const size_t lost = sources::UsageHandover(root.usage_fd).count(); lost > 0) {
        ngx_log_error(NGX_LOG_ERR, log, 0, "llm: %uz usage records lost: %s", lost, why);
    }
}

// What no zone of this size can hold; what reports have filled it with is known when the configuration is
// applied.
bool engines_fit(ngx_conf_t* cf, const MainConf& conf, const core::ZonePlan& plan) {
    const std::vector<StaticEngine>& engines = conf.options->engines;
    std::set<std::string_view> models;
    for (const StaticEngine& engine : engines) {
        models.insert(engine.models.begin(), engine.models.end());
    }
    if (engines.size() <= plan.engines && models.size() <= plan.models) {
        return true;
    }
    ngx_conf_log_error(
        NGX_LOG_EMERG, cf, 0,
        "\"llm_engine\": %uz engines of %uz models are more than the %uD engines and %uD models that "
        "llm_zone \"%V\" holds",
        engines.size(), models.size(), plan.engines, plan.models, &conf.zone_name);
    return false;
}

}  // namespace

ngx_int_t adopt_zone(ngx_cycle_t* cycle) {
    ZoneContext* context = context_of(main_conf(cycle));
    if (context != nullptr) {
        context->has_new_fds = false;
    }
    if (ngx_process != NGX_PROCESS_MASTER) {
        return NGX_OK;
    }
    SharedRoot* old = running_root();
    if (old != nullptr && old != root_of(context)) {
        for (const int fd : old->wake_fd) {
            close(fd);
        }
        if (context == nullptr) {
            tell_lost_records(*old, cycle->log, "no llm_zone is left");
            // the old workers have nobody to leave theirs to
            close(std::exchange(old->usage_fd, -1));
        }
    }
    return NGX_OK;
}

void leave_zone_for_good(ngx_cycle_t* cycle) {
    if (const SharedRoot* root = root_of(context_of(main_conf(cycle)))) {
        tell_lost_records(*root, cycle->log, "nginx ends and the database does not answer");
    }
}

std::string check_zone_size(size_t bytes) {
    const core::ZonePlan plan = core::plan_zone(core_bytes(bytes));
    if (plan.ok) {
        return {};
    }
    size_t needed = plan.min_bytes;
    while (!core::plan_zone(core_bytes(needed)).ok) {
        needed += ngx_pagesize;
    }
    return "expected at least " + std::to_string((needed + 1023) / 1024) + "k";
}

ngx_int_t add_zone(ngx_conf_t* cf, MainConf& conf) {
    const core::ZonePlan plan = core::plan_zone(core_bytes(conf.zone_size));
    if (conf.queue_size > plan.requests) {
        const AtPlace there(cf, conf.options->queue_size_place);
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"llm_queue_size\": %ui is more than the %uD requests that llm_zone \"%V\" holds",
                           conf.queue_size, plan.requests, &conf.zone_name);
        return NGX_ERROR;
    }
    if (!engines_fit(cf, conf, plan)) {
        return NGX_ERROR;
    }
    ngx_shm_zone_t* zone = ngx_shared_memory_add(cf, &conf.zone_name, conf.zone_size, zone_tag());
    void* memory = ngx_pcalloc(cf->pool, sizeof(ZoneContext));
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cf->pool, 0);
    if (zone == nullptr || memory == nullptr || cleanup == nullptr) {
        return NGX_ERROR;
    }
    auto* context = new (memory) ZoneContext();
    if (conf.options->clients.kind != sources::ClientSourceConfig::Kind::none) {
        context->sources |= core::kClientSource;
    }
    if (conf.options->redis.enabled()) {
        context->sources |= core::kEngineSource;
    }
    zone->data = context;
    cleanup->handler = close_new_fds;
    cleanup->data = zone->data;
    zone->init = init_zone;
    conf.zone = zone;
    warn_of_new_zone(cf, conf);
    return NGX_OK;
}

}  // namespace llm::nginx
