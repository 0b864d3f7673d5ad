// Wake-ups between processes. A grant is put into the owner's mailbox in the zone; an eventfd then makes the owner
// look. Nothing polls: the heartbeat drains the mailbox too, but only as a safety net for a wake-up lost to a crash.
#include "ngx_module/nginx/worker.hpp"

#include <cstdio>
#include <cstring>
#include <vector>

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/queue.hpp"
#include "ngx_module/nginx/request.hpp"
#include "ngx_module/nginx/settings.hpp"
#include "ngx_module/nginx/start_up.hpp"
#include "ngx_module/nginx/test_faults.hpp"
#include "ngx_module/nginx/zone.hpp"
#include "ngx_module/sources/hooks.hpp"
#include "ngx_module/sources/sources.hpp"
#include "ngx_module/sources/usage_writer.hpp"

namespace llm::nginx {
namespace {

constexpr ngx_msec_t kHeartbeat = 250;  // ms; the core parks a process that is silent for 1 s
constexpr int64_t kSuspectAfterUs =
    600'000;  // a heartbeat older than this is worth asking whether the process lives
constexpr uint32_t kEventBatch = 32;

struct Worker {
    core::Zone zone;
    SharedRoot* root = nullptr;
    uint32_t slot = core::kNone;
    bool started = false;
    bool leaving = false;
    ngx_connection_t* bell = nullptr;
    ngx_event_t heartbeat{};
    ngx_event_t self_wake{};              // posted instead of writing to our own descriptor
    ngx_connection_t timer_connection{};  // what nginx's debug log of the two events looks at
    std::vector<Request*> receivers;      // of events, by ticket index
    uint32_t timeouts_version = 0;        // of those that the requests here wait by
};

constinit Worker instance;

Worker& worker() {
    return instance;
}

struct ProcessFacts {
    uint64_t start_time = 0;  // clock ticks since boot; 0 when it cannot be read
    bool ended = false;       // and not yet waited for by its parent, which may be busy with a reload
};

// Fields 3 and 22 of /proc/PID/stat.
ProcessFacts facts_of_process(ngx_pid_t pid) {
    char path[64];
    std::snprintf(path, sizeof(path), "/proc/%d/stat", static_cast<int>(pid));
    FILE* file = std::fopen(path, "re");
    if (file == nullptr) {
        return {};
    }
    char line[1024];
    const bool read = std::fgets(line, sizeof(line), file) != nullptr;
    std::fclose(file);
    // the command name, in parentheses, may hold anything: count fields after the last ')'
    const char* rest = read ? std::strrchr(line, ')') : nullptr;
    char state = '\0';
    unsigned long long start = 0;
    if (rest == nullptr || std::sscanf(rest + 1,
                                       " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d "
                                       "%*d %*d %llu",
                                       &state, &start) != 2) {
        return {};
    }
    return {start, state == 'Z' || state == 'X'};
}

bool is_dead(const core::ProcessView& process) {
    if (kill(process.pid, 0) == -1 && ngx_errno == ESRCH) {
        return true;
    }
    const ProcessFacts facts = facts_of_process(process.pid);
    return facts.ended ||
           (facts.start_time != 0 && process.start_time != 0 && facts.start_time != process.start_time);
}

// Frees what dead processes held. `everybody` asks about all, else only about those whose heartbeat is
// overdue.
void reap_dead(bool everybody) {
    static core::ProcessView processes[core::kMaxProcesses];
    Worker& self = worker();
    const uint32_t count = core::list_processes(self.zone, processes, core::kMaxProcesses);
    const int64_t now = now_us();
    for (uint32_t i = 0; i < count; ++i) {
        const core::ProcessView& process = processes[i];
        if (process.slot == self.slot || (!everybody && now - process.heartbeat_us < kSuspectAfterUs) ||
            !is_dead(process)) {
            continue;
        }
        core::WakeSet wakes;
        uint32_t leases;
        {
            core::ZoneLock lock(self.zone);
            leases = core::reap_process(lock, process.slot, process.epoch, now, wakes);
        }
        wake(wakes);
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "llm: worker %P died, %uD leases returned",
                      process.pid, leases);
    }
}

void drain() {
    Worker& self = worker();
    core::Event events[kEventBatch];
    uint32_t count;
    do {
        const int64_t now = now_us();
        {
            core::ZoneLock lock(self.zone);
            count = core::drain_events(lock, self.slot, events, kEventBatch, now);
        }
        for (uint32_t i = 0; i < count; ++i) {
            Request* request =
                events[i].ticket.index < self.receivers.size() ? self.receivers[events[i].ticket.index] : nullptr;
            if (request != nullptr && request->ticket == events[i].ticket) {
                handle_event(*request, events[i]);
            }
        }
    } while (count == kEventBatch);
    admit_early_requests();
}

void log_sweep(const core::SweepResult& result) {
    if (result.lost_engines > 0) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "llm: engine \"%s\" has stopped reporting without saying goodbye (%uD in all)",
                      result.lost, result.lost_engines);
    }
    if (result.expired_grants > 0) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "llm: %uD grants were not taken up and returned to the queue", result.expired_grants);
    }
}

// Any worker's, once per interval: reading the counters of all models is left out of the lock.
void record_history(core::Zone& zone, int64_t now) {
    if (core::history_due(zone, now)) {
        const core::HistoryTotals totals = core::history_totals(zone);
        core::ZoneLock lock(zone);
        core::record_history(lock, totals, now, wall_s());
    }
}

// Read handler of the wake-up descriptor. Edge-triggered: each write is a new edge, so the counter need not
// be read. nginx also calls it at the start of a graceful shutdown, with close set, because the connection is
// marked idle.
void on_bell(ngx_event_t* event) {
    auto* connection = static_cast<ngx_connection_t*>(event->data);
    if (connection->close) {
        connection->close = 0;  // stay: what is queued here still needs its wake-ups
        worker().leaving = true;
        sources::stop();
        return;
    }
    drain();
}

void on_self_wake(ngx_event_t*) {
    drain();
}

bool open_bell(Worker& self, ngx_log_t* log) {
    const int fd = self.root->wake_fd[self.slot % kWakeFds];
    self.bell = ngx_get_connection(fd, log);
    if (self.bell == nullptr) {
        return false;
    }
    self.bell->idle = 1;
    self.bell->read->channel = 1;  // not a socket of a client: no alert when it is open at exit
    self.bell->read->log = log;
    self.bell->write->log = log;
    self.bell->log = log;
    self.bell->read->handler = on_bell;
    if (ngx_add_event(self.bell->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
        ngx_free_connection(self.bell);
        self.bell = nullptr;
        return false;
    }
    return true;
}

void leave_zone(Worker& self) {
    core::WakeSet wakes;
    if (self.slot != core::kNone) {
        const int64_t now = now_us();
        core::ZoneLock lock(self.zone);
        core::detach_process(lock, self.slot, now, wakes);
    }
    self.slot = core::kNone;
    wake(wakes);
}

// Takes a slot of the zone's table of processes and the bell that rings for it; false while there is none.
bool join(Worker& self, ngx_log_t* log) {
    const uint64_t start = facts_of_process(ngx_pid).start_time;
    {
        const int64_t now = now_us();
        core::ZoneLock lock(self.zone);
        self.slot = core::attach_process(lock, ngx_pid, start, now);
    }
    if (self.slot == core::kNone || open_bell(self, log)) {
        return self.slot != core::kNone;
    }
    leave_zone(self);
    return false;
}

// A worker that leaves: by the configuration that runs now its requests may wait longer, or less long.
void follow_queue_timeouts(Worker& self) {
    QueueTimeouts timeouts;
    {
        core::ZoneLock lock(self.zone);
        if (self.root->queue_timeouts.version == self.timeouts_version) {
            return;
        }
        timeouts = self.root->queue_timeouts;
    }
    self.timeouts_version = timeouts.version;
    for (Request* request : self.receivers) {
        if (request != nullptr) {
            change_queue_timeout(*request, find_queue_timeout(timeouts, loc_conf(request->r).identity));
        }
    }
}

void on_heartbeat(ngx_event_t* event) {
    Worker& self = worker();
    if (self.slot == core::kNone && join(self, ngx_cycle->log)) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "llm: a process slot is free; this worker takes requests now");
    }
    core::WakeSet wakes;
    core::SweepResult swept;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(self.zone);
        if (self.slot != core::kNone) {
            core::heartbeat(lock, self.slot, now, wakes);
        }
        swept = core::sweep(lock, now, wall_s(), random32(), wakes);
    }
    wake(wakes);
    log_sweep(swept);
    record_history(self.zone, now);
    reap_dead(false);
    if (self.leaving) {
        follow_queue_timeouts(self);
    } else {
        sources::take_over_usage(sources::UsageHandover(self.root->usage_fd), self.zone);
    }
    if (self.slot != core::kNone) {
        drain();
    } else {
        admit_early_requests();  // nobody can ring for it
    }
    ngx_add_timer(event, kHeartbeat);
}

void start_timers(Worker& self, ngx_log_t* log) {
    self.timer_connection.fd = static_cast<ngx_socket_t>(-1);
    self.heartbeat.handler = on_heartbeat;
    self.heartbeat.log = log;
    self.heartbeat.data = &self.timer_connection;
    self.heartbeat.cancelable = 1;
    // spread the workers over the interval
    ngx_add_timer(&self.heartbeat, 1 + random32() % kHeartbeat);
    self.self_wake.handler = on_self_wake;
    self.self_wake.log = log;
    self.self_wake.data = &self.timer_connection;
}

std::string_view engine_key(std::string_view engine_id) {
    const MainConf* conf = running_conf();
    return conf == nullptr ? std::string_view{} : announced_engine_key(*conf, engine_id);
}

void start_sources(Worker& self, ngx_cycle_t* cycle, const MainConf& conf) {
    if (!conf.options->usage_url.empty()) {
        sources::start_usage(cycle, conf.options->usage_url, conf.options->usage_addresses, self.zone);
    }
    sources::Hooks hooks;
    hooks.zone = &self.zone;
    hooks.now_us = now_us;
    hooks.wall_s = wall_s;
    hooks.wake = wake;
    hooks.engine_key = engine_key;
    sources::start(cycle, conf.options->clients, conf.options->redis, hooks);
}

}  // namespace

ngx_int_t start_worker(ngx_cycle_t* cycle) {
    if (ngx_process != NGX_PROCESS_WORKER && ngx_process != NGX_PROCESS_SINGLE) {
        return NGX_OK;
    }
    MainConf* conf = main_conf(cycle);
    if (conf == nullptr || conf->zone == nullptr) {
        return NGX_OK;
    }
    Worker& self = worker();
    const auto* context = static_cast<const ZoneContext*>(conf->zone->data);
    self.zone = context->zone;
    self.root = context->root;
    self.receivers.assign(self.zone.plan().requests, nullptr);
    // the worker that died may be the one we replace
    reap_dead(true);
    core::WakeSet wakes;
    apply_configuration(*conf, self.zone, cycle->log, wakes);
    wake(wakes);
    self.timeouts_version = publish_queue_timeouts(*conf, self.zone, self.root->queue_timeouts);
    if (!join(self, cycle->log)) {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "llm: all %uD process slots (or worker_connections) are taken; "
                      "this worker refuses every request until one is free",
                      core::kMaxProcesses);
    }
    start_timers(self, cycle->log);
    self.started = true;
    LLM_START_TEST_FAULTS(self.zone);
    start_sources(self, cycle, *conf);
    return NGX_OK;
}

void stop_worker(ngx_cycle_t*) {
    Worker& self = worker();
    if (!self.started) {
        return;
    }
    self.started = false;
    sources::stop();
    // without a master nobody comes after this process
    sources::finish_usage(
        sources::UsageHandover(ngx_process == NGX_PROCESS_WORKER ? self.root->usage_fd : -1));
    if (self.heartbeat.timer_set) {
        ngx_del_timer(&self.heartbeat);
    }
    if (self.self_wake.posted) {
        ngx_delete_posted_event(&self.self_wake);
    }
    leave_zone(self);
}

core::Zone& zone() {
    return worker().zone;
}

uint32_t process_slot() {
    return worker().slot;
}

int64_t now_us() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<int64_t>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1000;
}

int64_t wall_s() {
    return ngx_time();
}

uint32_t random32() {
    // splitmix64 (Steele, Lea, Flood, 2014), seeded by nginx's generator, which nginx seeds per worker
    static uint64_t state = static_cast<uint64_t>(ngx_random()) << 32 ^ static_cast<uint64_t>(ngx_random());
    state += 0x9e3779b97f4a7c15;
    uint64_t mixed = (state ^ state >> 30) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ mixed >> 27) * 0x94d049bb133111eb;
    return static_cast<uint32_t>(mixed >> 32);
}

void wake(const core::WakeSet& wakes) {
    if (wakes.empty()) {
        return;
    }
    Worker& self = worker();
    wakes.for_each([&](uint32_t slot) {
        if (slot == self.slot) {
            if (self.started) {
                ngx_post_event(&self.self_wake, &ngx_posted_events);
            }
            return;
        }
        const uint64_t one = 1;
        // a full counter (2^64 - 1 unread writes) would mean that the target is awake anyway
        [[maybe_unused]] const ssize_t written =
            write(self.root->wake_fd[slot % kWakeFds], &one, sizeof(one));
    });
}

bool leaving() {
    return worker().leaving || ngx_exiting || ngx_quit || ngx_terminate;
}

void set_event_receiver(core::Ticket ticket, Request* request) {
    if (ticket.index < worker().receivers.size()) {
        worker().receivers[ticket.index] = request;
    }
}

}  // namespace llm::nginx
