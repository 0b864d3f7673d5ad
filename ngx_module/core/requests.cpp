// The request table: slots, states, and how requests leave.
#include <algorithm>

#include "ngx_module/core/core.hpp"

namespace llm::core {

Request* find_request(const Tables& t, Ticket ticket) {
    if (ticket.index >= t.header.plan.requests) {
        return nullptr;
    }
    Request& r = t.requests[ticket.index];
    return r.generation == ticket.generation && state_of(r) != RequestState::free ? &r : nullptr;
}

void set_state(Request& r, RequestState state) {
    std::atomic_ref<uint32_t>(r.state).store(static_cast<uint32_t>(state), std::memory_order_release);
}

void join_waiting(Core& c, Request& r) {
    c.header.queued++;
    c.accounts[r.account].waiting++;
    c.pools[r.pool].waiting++;
    c.models[r.model].waiting++;
    expect_expiry(c, c.accounts[r.account]);
}

void leave_waiting(Core& c, Request& r) {
    const uint32_t pool = r.pool;
    r.pool = lasting_pool(c, pool);
    c.header.queued--;
    c.accounts[r.account].waiting--;
    c.pools[pool].waiting--;
    c.models[r.model].waiting--;
    if (c.pools[pool].waiting == 0 && c.pools[pool].temporary != 0) {
        close_pool(c, pool);
    }
}

void link_grant(Core& c, Request& r) {
    const uint32_t i = index_of(c, r);
    r.flow_next = kNone;
    r.flow_prev = c.header.grant_tail;
    (r.flow_prev != kNone ? c.requests[r.flow_prev].flow_next : c.header.grant_head) = i;
    c.header.grant_tail = i;
    c.header.granted++;
}

void unlink_grant(Core& c, Request& r) {
    (r.flow_prev != kNone ? c.requests[r.flow_prev].flow_next : c.header.grant_head) = r.flow_next;
    (r.flow_next != kNone ? c.requests[r.flow_next].flow_prev : c.header.grant_tail) = r.flow_prev;
    c.header.granted--;
}

void put_back(Core& c, Request& r, uint32_t pool) {
    refund(c, r);
    const uint32_t engine = drop_lease(c, r);
    r.dispatched_us = 0;
    r.attempts = r.failed;
    r.pool = pool;
    LLM_LABEL();
    set_state(r, RequestState::queued);
    LLM_LABEL();
    LLM_TRACE(c, TraceKind::returned, r);
    join_waiting(c, r);
    r.flow = kNone;
    if (c.processes[r.process].suspended != 0) {
        r.parked = 1;
    } else {
        enqueue(c, r, true);
    }
    after_release(c, r.account, engine);
    run_pool(c, pool);  // it may wait for other engines now than before
}

void return_grant(Core& c, Request& r, bool suspend) {
    Process& p = c.processes[r.process];
    if (suspend && p.suspended == 0) {
        suspend_process(c, p);
    }
    take_mail(c, r);
    unlink_grant(c, r);
    const uint32_t pool = pool_to_wait_in(c, r);
    put_back(c, r, pool != kNone ? pool : r.pool);
}

void end_waiting(Core& c, Request& r, Mail mail) {
    if (state_of(r) == RequestState::granted) {
        take_mail(c, r);
        unlink_grant(c, r);
        refund(c, r);
        const uint32_t engine = drop_lease(c, r);
        set_state(r, RequestState::ended);
        LLM_TRACE(c, TraceKind::ended, r);
        put_mail(c, r, mail);
        after_release(c, r.account, engine);
        return;
    }
    dequeue(c, r);
    r.parked = 0;
    r.mail = mail;
    LLM_LABEL();
    set_state(r, RequestState::ended);
    LLM_LABEL();
    LLM_TRACE(c, TraceKind::ended, r);
    leave_waiting(c, r);
    put_mail(c, r, mail);
}

void free_request(Core& c, Request& r) {
    const RequestState state = state_of(r);
    drop_lease(c, r);
    take_mail(c, r);
    if (state == RequestState::queued) {
        dequeue(c, r);
        leave_waiting(c, r);
    } else if (state == RequestState::granted) {
        unlink_grant(c, r);
    } else if (state == RequestState::running) {
        c.header.running--;
    }
    LLM_LABEL();
    set_state(r, RequestState::free);
    LLM_LABEL();
    if (state != RequestState::ended) {
        LLM_TRACE(c, TraceKind::ended, r);
    }
    unlink_from_process(c, r);
    unclaim_account(c, r.account);
    r.flow_next = c.header.free_requests;
    c.header.free_requests = index_of(c, r);
}

bool take_up(const ZoneLock& lock, Ticket ticket, int64_t now_us, uint32_t& engine, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* r = find_request(c, ticket);
    if (r == nullptr) {
        return false;
    }
    if (state_of(*r) == RequestState::running) {
        engine = r->engine;
        return true;
    }
    if (state_of(*r) != RequestState::granted) {
        return false;
    }
    if (now_us - r->granted_us > kGrantLifeUs) {
        return_grant(c, *r, false);  // its owner is alive, only late
        return false;
    }
    take_mail(c, *r);
    unlink_grant(c, *r);
    LLM_LABEL();
    set_state(*r, RequestState::running);
    LLM_LABEL();
    LLM_TRACE(c, TraceKind::started, *r);
    c.header.running++;
    engine = r->engine;
    const int64_t waited = r->granted_us - r->queued_us - int64_t{r->waited_ms} * 1000;
    const int64_t left = std::clamp<int64_t>((r->deadline_us - r->granted_us) / 1000, 0, r->timeout_ms);
    r->waited_ms = r->timeout_ms - static_cast<uint32_t>(left);
    observe_wait(c, *r, waited);
    observe(c.header.dispatch, kDispatchBounds, std::size(kDispatchBounds), now_us - r->granted_us);
    return true;
}

ServedAs served_as(const ZoneLock& lock, Ticket ticket) {
    const Tables t(lock.zone());
    const Request* r = find_request(t, ticket);
    return r == nullptr ? ServedAs{}
                        : ServedAs{r->priority, engine_class_of(class_of(t, t.accounts[r->account], r->priority)),
                                   r->attempts};
}

bool cancel(const ZoneLock& lock, Ticket ticket, Why why, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* found = find_request(c, ticket);
    if (found == nullptr) {
        return false;
    }
    Request& r = *found;
    const RequestState state = state_of(r);
    const uint32_t account = r.account;
    uint32_t engine = kNone;
    if (state == RequestState::granted) {
        refund(c, r);
        engine = drop_lease(c, r);
    } else if (state == RequestState::running) {
        settle_cancelled(c, r, {});
        engine = drop_lease(c, r);
    }
    if (why != Why::refused) {
        const Outcome outcome =
            state == RequestState::running ? Outcome::cancelled_running : Outcome::cancelled_queued;
        bump(counters_of(c, r.model).outcomes[static_cast<size_t>(outcome)]);
    }
    free_request(c, r);
    after_release(c, account, engine);
    return true;
}

Timeout time_out(const ZoneLock& lock, Ticket ticket, int64_t now_us, uint32_t random, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Timeout answer;
    Request* r = find_request(c, ticket);
    answer.stale = r == nullptr;
    if (r == nullptr || state_of(*r) != RequestState::queued) {
        return answer;
    }
    if (r->deadline_us > c.now) {
        answer.again_ms = static_cast<uint32_t>((r->deadline_us - c.now + 999) / 1000);
        return answer;
    }
    const Pool& p = c.pools[r->pool];
    Account& a = c.accounts[r->account];
    answer.ended = true;
    answer.reason =
        pool_usable(c, p) == Usable::yes ? Outcome::rejected_queue_timeout : Outcome::rejected_no_engine;
    const RetryHint hint = retry_hint(c, c.pools[lasting_pool(c, r->pool)], &a, answer.reason, random);
    answer.retry_after_ms = hint.retry_after_ms;
    answer.should_retry = hint.should_retry;
    answer.reset_ms = hint.reset_ms;
    const uint32_t model = r->model;
    const uint32_t account = r->account;
    const int32_t threshold = a.threshold;
    free_request(c, *r);
    const uint32_t waiting = c.header.settings.threshold_scope == ThresholdScope::queue
                                 ? c.models[model].waiting
                                 : waiting_of(c, c.accounts[account], model);
    const QueueRoom room = queue_room(c, threshold, waiting);
    answer.limit_requests = room.limit;
    answer.remaining_requests = room.remaining;
    return answer;
}

int64_t set_queue_timeout(const ZoneLock& lock, Ticket ticket, uint32_t timeout_ms, int64_t now_us) {
    Tables t(lock.zone());
    Request* r = find_request(t, ticket);
    if (r == nullptr || state_of(*r) != RequestState::queued) {
        return -1;
    }
    r->deadline_us += (int64_t{timeout_ms} - r->timeout_ms) * 1000;
    r->timeout_ms = timeout_ms;
    return std::max<int64_t>(r->deadline_us - now_us, 0);
}

uint32_t queue_position(const ZoneLock& lock, Ticket ticket) {
    Tables t(lock.zone());
    const Request* r = find_request(t, ticket);
    return r != nullptr && state_of(*r) == RequestState::queued ? position_of(t, *r) : 0;
}

}  // namespace llm::core
