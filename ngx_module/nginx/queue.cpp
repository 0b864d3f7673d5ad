#include "ngx_module/nginx/queue.hpp"

#include <algorithm>

#include "ngx_module/nginx/auth.hpp"
#include "ngx_module/nginx/body.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/dead_end.hpp"
#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/news.hpp"
#include "ngx_module/nginx/queue_keepalive.hpp"
#include "ngx_module/nginx/response_filter.hpp"
#include "ngx_module/nginx/suspension.hpp"
#include "ngx_module/nginx/target.hpp"
#include "ngx_module/nginx/test_faults.hpp"
#include "ngx_module/nginx/upstream_hooks.hpp"
#include "ngx_module/nginx/usage_log.hpp"
#include "ngx_module/nginx/waiting_body.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

constexpr ngx_msec_t kGrantRace = 500;          // ms; how long a timeout that met a grant waits for it
constexpr ngx_msec_t kQueueFullEvery = 10'000;  // ms; between two log lines about a full queue

core::RequestArgs make_args(const Request& request, const core::ClientView& client) {
    const LocConf& conf = loc_conf(request.r);
    core::RequestArgs args;
    args.client = &client;
    args.model = view(request.model);
    args.mode = request.mode;
    args.client_priority = request.has_priority ? std::max(request.client_priority, 0) : -1;
    args.seats = request.seats;
    args.prompt_tokens = request.prompt_tokens;
    args.max_output_tokens = request.max_output_tokens;
    args.prefix = request.prefix.bytes != 0 ? &request.prefix : nullptr;
    args.stream = request.stream;
    args.observe = conf.observe != 0;
    args.exceeds = conf.compat == kCompatAristote;
    args.process = process_slot();
    args.cookie = request.serial;
    args.queue_timeout_us = static_cast<int64_t>(conf.queue_timeout) * 1000;
    args.random = random32();
    return args;
}

template <class Answer>
Refusal make_refusal(core::Outcome reason, const Answer& answer) {
    Refusal refusal;
    refusal.code = code_of_outcome(reason);
    const ngx_int_t status = error_info(refusal.code).status;
    if (status == NGX_HTTP_TOO_MANY_REQUESTS || status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        refusal.retry_after_ms = std::max<uint32_t>(answer.retry_after_ms, 1);
        refusal.should_retry = answer.should_retry;
    }
    refusal.has_limits = status == NGX_HTTP_TOO_MANY_REQUESTS;
    refusal.limit_requests = answer.limit_requests;
    refusal.remaining_requests = answer.remaining_requests;
    refusal.reset_ms = answer.reset_ms;
    return refusal;
}

// A full queue wants its operator's attention, but not a line per refused request.
void log_queue_full(const Request& request) {
    static bool logged = false;
    static ngx_msec_t last = 0;
    static ngx_uint_t silent = 0;
    if (logged && ngx_current_msec - last < kQueueFullEvery) {
        ++silent;
        return;
    }
    ngx_log_error(NGX_LOG_WARN, request.r->connection->log, 0,
                  "llm: the queue is full: refused a request of \"%V\", and %ui more since the last such line; "
                  "the zone holds %uD requests (llm_zone), waiting ones are bounded by llm_queue_size too",
                  &request.client, silent, zone().plan().requests);
    logged = true;
    last = ngx_current_msec;
    silent = 0;
}

// The lease is held: makes everything ready for the proxy. `attempts`: begun, this one included. False when memory is
// short.
bool go_on(Request& request, uint32_t attempts, int64_t now) {
    request.stage = Stage::running;
    set_event_receiver(request.ticket, &request);  // an administrator may end it
    request.attempts = attempts;
    request.lease_released = false;
    request.dispatched_us = now;
    request.target_changed = attempts > 1;
    return (attempts > 1 || rewrite_body(request)) && set_target(request);
}

void leave_queue(Request& request) {
    if (request.queue_timer.timer_set) {
        ngx_del_timer(&request.queue_timer);
    }
    leave_keepalive(request);
    forget_dead_end(request);
    set_event_receiver(request.ticket, nullptr);
    body_is_wanted(request);
}

// Ends a suspended request with a refusal. Nothing of it may be touched afterwards.
void refuse_suspended(Request& request, const Refusal& refusal) {
    ngx_http_request_t* r = request.r;
    ngx_connection_t* connection = r->connection;
    ngx_http_set_log_request(connection->log, r);
    stop_upstream(r);
    const ngx_int_t status = refuse(request, refusal);
    if (status != NGX_DONE) {  // NGX_DONE: answered already, the request may be gone
        ngx_http_finalize_request(r, status);
    }
    ngx_http_run_posted_requests(connection);
}

void refuse_suspended(Request& request, ErrorCode code) {
    refuse_suspended(request, refusal_of(code));
}

// Closes the connection of a request for which a thread works, or which waits for the lock of a cache: nginx lets go of it
// after that, and takes no answer, nor post_action, before. As its own worker_shutdown_timeout does it.
void close_blocked(ngx_connection_t& connection) {
    connection.close = 1;
    connection.error = 1;
    connection.read->handler(connection.read);
}

// An administrator ends a request that an engine is answering. Nothing of it may be touched afterwards.
void end_running(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_connection_t* connection = r->connection;
    if (r->done) {
        return;  // over: nginx only waits for the client to close, or for a mirror
    }
    ngx_http_set_log_request(connection->log, r);
    request.ended_by_engine = true;
    request.outcome = core::Outcome::cancelled_running;
    if (r->blocked != 0) {
        return close_blocked(*connection);
    }
    if (!r->header_sent) {
        return refuse_suspended(request, ErrorCode::aborted);
    }
    send_error_event(request, ErrorCode::aborted);
    stop_upstream(r);
    break_off(r, NGX_ERROR);
}

void on_queue_timer(ngx_event_t* event) {
    auto& request = *static_cast<Request*>(static_cast<ngx_connection_t*>(event->data)->data);
    core::WakeSet wakes;
    core::Timeout timeout;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        timeout = core::time_out(lock, request.ticket, now, random32(), wakes);
    }
    wake(wakes);
    if (!timeout.ended && !timeout.stale) {
        // Else the grant is on its way. Should it expire before it is taken up, the request waits again.
        ngx_add_timer(event, timeout.again_ms != 0 ? timeout.again_ms : kGrantRace);
        return;
    }
    leave_queue(request);
    if (timeout.stale) {
        request.ticket = {};
        return refuse_suspended(request, ErrorCode::internal_error);
    }
    request.ticket = {};
    refuse_suspended(request, make_refusal(timeout.reason, timeout));
}

// The request waits from now on, until its grant rings or `most` has passed by the core's clock: nginx's, of whole
// milliseconds and as old as this turn of the event loop, is early, so the timer has one more, and asks. It is not
// cancelable: a worker that leaves waits for what is queued in it. False, and the request is over in the core, when
// memory is short.
bool start_waiting(Request& request, ngx_msec_t most) {
    ngx_http_request_t* r = request.r;
    request.stage = Stage::queued;
    // a fake connection: nginx's debug log reads ->fd of an event's data
    auto* holder = static_cast<ngx_connection_t*>(ngx_pcalloc(r->pool, sizeof(ngx_connection_t)));
    if (holder == nullptr) {
        abandon_request(request);
        return false;
    }
    holder->data = &request;
    holder->fd = r->connection->fd;
    request.queue_timer.data = holder;
    request.queue_timer.handler = on_queue_timer;
    request.queue_timer.log = r->connection->log;
    ngx_add_timer(&request.queue_timer, most + 1);
    start_keepalive(request);
    set_event_receiver(request.ticket, &request);
    return true;
}

// Suspends the request until then.
ngx_int_t suspend(Request& request) {
    request.stage = Stage::queued;  // also for the end of a request that cannot be suspended
    if (!watch_client(request.r)) {
        abandon_request(request);
        return refuse(request, ErrorCode::internal_error);
    }
    if (!start_waiting(request, loc_conf(request.r).queue_timeout)) {
        return refuse(request, ErrorCode::internal_error);
    }
    put_body_aside(request);
    return NGX_AGAIN;
}

void on_grant(Request& request) {
    LLM_DELAY_GRANT();
    core::WakeSet wakes;
    uint32_t engine = core::kNone;
    uint32_t attempts = 0;
    bool taken;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        taken = core::take_up(lock, request.ticket, now, engine, wakes);
        if (taken) {
            const core::ServedAs as = core::served_as(lock, request.ticket);
            request.priority = as.priority;
            request.engine_class = as.engine_class;
            attempts = as.attempts;
        }
        read_target(lock, engine);
    }
    wake(wakes);
    if (!taken) {
        return;  // expired: it waits again, and will be granted anew
    }
    leave_queue(request);
    if (!go_on(request, attempts, now)) {
        refuse_suspended(request, ErrorCode::internal_error);
    } else if (attempts == 1) {
        resume(request.r);
    } else {
        leave_dead_end(request);
    }
}

// Makes sure of the outcome of a request that holds a lease and is about to end.
void leave_running(Request& request) {
    set_event_receiver(request.ticket, nullptr);
    request.untold_release = false;  // the end releases
    if (request.ended_by_engine || is_from_cache(request.r)) {
        collect_usage(request);  // with proxy_buffering some of the answer passed after its engine's end
    }
    if (request.ended_by_engine) {
        return;
    }
    // the gateway itself could not go on, or the client left, or nginx answered from its cache
    const ngx_connection_t& client = *request.r->connection;
    const bool answered = request.r->header_sent && !client.error && !client.timedout;
    request.outcome = request.refusal.code != ErrorCode::none ? error_info(request.refusal.code).outcome
                      : answered                              ? core::Outcome::completed
                                                              : core::Outcome::cancelled_running;
}

}  // namespace

ngx_int_t submit_request(Request& request) {
    const core::ClientView* client = client_of(request);
    if (client == nullptr) {
        return refuse(request, auth_error(request));  // gone since the access phase
    }
    const core::RequestArgs args = make_args(request, *client);
    core::WakeSet wakes;
    core::Verdict verdict;
    request.submitted_us = now_us();
    {
        core::ZoneLock lock(zone());
        verdict = core::submit(lock, args, request.submitted_us, wall_s(), wakes);
        read_target(lock, verdict.engine);
    }
    wake(wakes);
    request.model_index = verdict.model;
    request.priority = verdict.priority;
    request.engine_class = verdict.engine_class;
    if (verdict.decision == core::Decision::rejected) {
        if (verdict.reason == core::Outcome::rejected_queue_full) {
            log_queue_full(request);
        }
        return refuse(request, make_refusal(verdict.reason, verdict));
    }
    request.ticket = verdict.ticket;
    if (args.observe && (verdict.would_queue || verdict.would != core::Outcome::completed)) {
        const ngx_str_t what = to_ngx(verdict.would_queue ? "queued" : core::outcome_name(verdict.would));
        ngx_log_error(NGX_LOG_NOTICE, request.r->connection->log, 0,
                      "llm_observe: request of \"%V\" would be %V", &request.client, &what);
    }
    if (verdict.decision == core::Decision::granted) {
        return go_on(request, 1, request.submitted_us) ? NGX_DECLINED
                                                       : refuse(request, ErrorCode::internal_error);
    }
    request.position = verdict.position;
    return suspend(request);
}

void change_queue_timeout(Request& request, ngx_msec_t timeout) {
    if (request.stage != Stage::queued || timeout == 0) {
        return;
    }
    int64_t left;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        left = core::set_queue_timeout(lock, request.ticket, static_cast<uint32_t>(timeout), now);
    }
    if (left >= 0) {
        ngx_add_timer(&request.queue_timer, static_cast<ngx_msec_t>(left / 1000) + 1);
    }
}

bool queue_again(Request& request, uint32_t wait_ms) {
    request.submitted_us = now_us() - (request.dispatched_us - request.submitted_us);
    request.dispatched_us = 0;
    return start_waiting(request, wait_ms);
}

void handle_event(Request& request, const core::Event& event) {
    if (request.stage != Stage::queued) {
        if (event.kind == core::EventKind::aborted && request.stage == Stage::running) {
            end_running(request);
        }
        return;
    }
    switch (event.kind) {
        case core::EventKind::granted:
            return on_grant(request);
        case core::EventKind::revoked:
            abandon_request(request);
            request.auth = AuthState::rejected;
            return refuse_suspended(request, ErrorCode::invalid_api_key);
        case core::EventKind::aborted:
            abandon_request(request);
            return refuse_suspended(request, ErrorCode::aborted);
    }
}

void end_request(Request& request) {
    if (!request.ticket.valid()) {
        return;
    }
    core::WakeSet wakes;
    if (request.stage == Stage::queued) {
        leave_queue(request);
        request.outcome = core::Outcome::cancelled_queued;
        const int64_t now = now_us();
        core::ZoneLock lock(zone());
        core::cancel(lock, request.ticket, core::Why::client_gone, now, wakes);
    } else {
        core::RequestSummary summary;
        leave_running(request);
        const int64_t now = now_us();
        {
            core::ZoneLock lock(zone());
            tell_news(lock, request, now, wakes);
            summary = core::finish(lock, request.ticket, request.outcome, request.usage, now, wakes);
        }
        if (summary.valid) {
            request.usage = summary.usage;  // what was charged is what the log says
        }
        record_usage(request, summary);
    }
    wake(wakes);
    request.outcome_counted = true;
    request.ticket = {};
    request.stage = Stage::ended;
}

void abandon_request(Request& request) {
    if (!request.ticket.valid()) {
        return;
    }
    core::WakeSet wakes;
    if (request.stage == Stage::queued) {
        leave_queue(request);
        const int64_t now = now_us();
        core::ZoneLock lock(zone());
        core::cancel(lock, request.ticket, core::Why::refused, now, wakes);
    } else {
        leave_running(request);
        const int64_t now = now_us();
        core::ZoneLock lock(zone());
        tell_news(lock, request, now, wakes);
        core::abandon(lock, request.ticket, request.outcome, request.usage, now, wakes);
    }
    wake(wakes);
    request.ticket = {};
    request.stage = Stage::ended;
}

}  // namespace llm::nginx
