// Processes: who owns what, who is awake, and the mailboxes through which grants reach their owners.
#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

void set_count(Process& p, uint32_t count) {
    std::atomic_ref<uint32_t>(p.requests).store(count, std::memory_order_relaxed);
}

uint32_t process_end(const Tables& t) {
    return std::atomic_ref<uint32_t>(t.header.process_end).load(std::memory_order_relaxed);
}

// Ends everything that the process owns. Returns the number of leases given back.
uint32_t drop_everything(Core& c, Process& p) {
    uint32_t leases = 0;
    while (p.requests_head != kNone) {
        Request& r = c.requests[p.requests_head];
        const uint32_t account = r.account;
        const RequestState state = state_of(r);
        uint32_t engine = kNone;
        if (state == RequestState::running || state == RequestState::granted) {
            leases += r.lease;
            if (state == RequestState::running) {
                settle_cancelled(c, r, {});
            } else {
                refund(c, r);
            }
            engine = drop_lease(c, r);
        }
        const Outcome outcome =
            state == RequestState::running ? Outcome::cancelled_running : Outcome::cancelled_queued;
        bump(counters_of(c, r.model).outcomes[static_cast<size_t>(outcome)]);
        free_request(c, r);
        after_release(c, account, engine);
    }
    return leases;
}

void beat(Core& c, Process& p) {
    std::atomic_ref<int64_t>(p.heartbeat_us).store(c.now, std::memory_order_relaxed);
    if (p.suspended == 0) {
        return;
    }
    p.suspended = 0;
    for (uint32_t i = p.requests_head; i != kNone; i = c.requests[i].process_next) {
        Request& r = c.requests[i];
        if (r.parked != 0) {
            r.parked = 0;
            enqueue(c, r, true);
        }
    }
    run_all(c);
}

}  // namespace

uint32_t attach_process(const ZoneLock& lock, int32_t pid, uint64_t start_time, int64_t now_us) {
    WakeSet none;
    Core c(lock, now_us, none);
    if (c.header.swept_us == 0) {
        c.header.swept_us = now_us;  // everything may stand still before the first sweep, too
    }
    for (uint32_t i = 0; i < kMaxProcesses; ++i) {
        Process& p = c.processes[i];
        if (p.used != 0) {
            continue;
        }
        // list_processes() reads these without the lock. Whoever reads this epoch there has to see, of `used`
        // too, nothing of the process before.
        std::atomic_ref<uint32_t>(p.epoch).store(p.epoch + 1, std::memory_order_release);
        std::atomic_ref<int32_t>(p.pid).store(pid, std::memory_order_relaxed);
        std::atomic_ref<uint64_t>(p.start_time).store(start_time, std::memory_order_relaxed);
        std::atomic_ref<int64_t>(p.heartbeat_us).store(now_us, std::memory_order_relaxed);
        p.suspended = 0;
        p.requests_head = p.mail_head = p.mail_tail = kNone;
        set_count(p, 0);
        p.signalled = 0;
        if (i >= c.header.process_end) {
            std::atomic_ref<uint32_t>(c.header.process_end).store(i + 1, std::memory_order_relaxed);
        }
        LLM_LABEL();
        std::atomic_ref<uint32_t>(p.used).store(1, std::memory_order_release);
        return i;
    }
    return kNone;
}

void heartbeat(const ZoneLock& lock, uint32_t process, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    beat(c, process);
}

void beat(Core& c, uint32_t process) {
    if (process < kMaxProcesses && c.processes[process].used != 0) {
        beat(c, c.processes[process]);
    }
    if (c.header.run_pending != 0) {
        run_all(c);
    }
}

void detach_process(const ZoneLock& lock, uint32_t process, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    if (process >= kMaxProcesses || c.processes[process].used == 0) {
        return;
    }
    drop_everything(c, c.processes[process]);
    std::atomic_ref<uint32_t>(c.processes[process].used).store(0, std::memory_order_release);
}

uint32_t list_processes(const Zone& zone, ProcessView* out, uint32_t capacity) {
    Tables t(zone);
    uint32_t count = 0;
    for (uint32_t i = 0; i < process_end(t) && count < capacity; ++i) {
        Process& p = t.processes[i];
        // The epoch first: what is read after it is of this process, or of a later one, and then nothing happens
        // when the view is handed to reap_process().
        const uint32_t epoch = std::atomic_ref<uint32_t>(p.epoch).load(std::memory_order_acquire);
        if (std::atomic_ref<uint32_t>(p.used).load(std::memory_order_acquire) == 0) {
            continue;
        }
        ProcessView& v = out[count++];
        v.slot = i;
        v.epoch = epoch;
        v.pid = std::atomic_ref<int32_t>(p.pid).load(std::memory_order_relaxed);
        v.start_time = std::atomic_ref<uint64_t>(p.start_time).load(std::memory_order_relaxed);
        v.heartbeat_us = std::atomic_ref<int64_t>(p.heartbeat_us).load(std::memory_order_relaxed);
        v.requests = std::atomic_ref<uint32_t>(p.requests).load(std::memory_order_relaxed);
    }
    return count;
}

uint32_t reap_process(const ZoneLock& lock, uint32_t slot, uint32_t epoch, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    if (slot >= kMaxProcesses || c.processes[slot].used == 0 || c.processes[slot].epoch != epoch) {
        return 0;
    }
    Process& p = c.processes[slot];
    p.suspended = 1;  // whatever runs below must not grant to the dead
    const uint32_t leases = drop_everything(c, p);
    LLM_LABEL();
    std::atomic_ref<uint32_t>(p.used).store(0, std::memory_order_release);
    bump(c.header.counters.leases_reaped, uint64_t{leases});
    return leases;
}

void link_to_process(Core& c, Request& r) {
    Process& p = c.processes[r.process];
    const uint32_t i = index_of(c, r);
    r.process_prev = kNone;
    r.process_next = p.requests_head;
    if (p.requests_head != kNone) {
        c.requests[p.requests_head].process_prev = i;
    }
    p.requests_head = i;
    set_count(p, p.requests + 1);
}

void unlink_from_process(Core& c, Request& r) {
    Process& p = c.processes[r.process];
    (r.process_prev != kNone ? c.requests[r.process_prev].process_next : p.requests_head) = r.process_next;
    if (r.process_next != kNone) {
        c.requests[r.process_next].process_prev = r.process_prev;
    }
    set_count(p, p.requests - 1);
}

void put_mail(Core& c, Request& r, Mail mail) {
    take_mail(c, r);
    r.mail = mail;
    Process& p = c.processes[r.process];
    const uint32_t i = index_of(c, r);
    r.mail_next = kNone;
    r.mail_prev = p.mail_tail;
    (p.mail_tail != kNone ? c.requests[p.mail_tail].mail_next : p.mail_head) = i;
    p.mail_tail = i;
    r.mailed = 1;
    if (p.signalled == 0) {
        p.signalled = 1;
        c.wakes.add(r.process);
    }
}

void take_mail(Core& c, Request& r) {
    if (r.mailed == 0) {
        return;
    }
    Process& p = c.processes[r.process];
    (r.mail_prev != kNone ? c.requests[r.mail_prev].mail_next : p.mail_head) = r.mail_next;
    (r.mail_next != kNone ? c.requests[r.mail_next].mail_prev : p.mail_tail) = r.mail_prev;
    r.mailed = 0;
}

void suspend_process(Core& c, Process& p) {
    p.suspended = 1;
    for (uint32_t i = p.requests_head; i != kNone; i = c.requests[i].process_next) {
        Request& r = c.requests[i];
        if (state_of(r) == RequestState::queued && r.parked == 0) {
            dequeue(c, r);
            r.parked = 1;
        }
    }
}

bool owner_is_awake(Core& c, const Request& r) {
    Process& p = c.processes[r.process];
    if (p.suspended != 0) {
        return false;
    }
    if (c.now - p.heartbeat_us <= kHeartbeatLifeUs) {
        return true;
    }
    suspend_process(c, p);
    return false;
}

uint32_t drain_events(const ZoneLock& lock, uint32_t process, Event* out, uint32_t capacity, int64_t now_us) {
    WakeSet none;
    Core c(lock, now_us, none);
    if (process >= kMaxProcesses || c.processes[process].used == 0) {
        return 0;
    }
    Process& p = c.processes[process];
    uint32_t count = 0;
    while (p.mail_head != kNone && count < capacity) {
        Request& r = c.requests[p.mail_head];
        take_mail(c, r);
        Event& event = out[count];
        event = Event();
        event.ticket = {index_of(c, r), r.generation};
        event.cookie = r.cookie;
        event.wait_ms = static_cast<uint32_t>((c.now - r.queued_us) / 1000);
        if (r.mail == Mail::granted) {
            if (state_of(r) != RequestState::granted) {
                continue;  // it went back to the queue meanwhile
            }
            event.kind = EventKind::granted;
            event.engine = r.engine;
        } else {
            event.kind = r.mail == Mail::revoked ? EventKind::revoked : EventKind::aborted;
        }
        ++count;
    }
    if (p.mail_head == kNone) {
        p.signalled = 0;
    }
    return count;
}

}  // namespace llm::core
