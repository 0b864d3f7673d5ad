#include "ngx_module/nginx/start_up.hpp"

#include <algorithm>

#include "ngx_module/core/start_up.hpp"
#include "ngx_module/nginx/suspension.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

// This worker's, in the order in which they came.
struct Early {
    ngx_queue_t requests;
    // Not cancelable: a worker that leaves waits for them too.
    ngx_event_t deadline;
    ngx_connection_t timer_connection;  // what nginx's debug log of the event looks at
};

constinit Early early{};

Request& request_of(ngx_queue_t* link) {
    return *ngx_queue_data(link, Request, early);
}

void on_deadline(ngx_event_t*) {
    admit_early_requests();
}

void start_deadline() {
    early.timer_connection.fd = static_cast<ngx_socket_t>(-1);
    early.deadline.handler = on_deadline;
    early.deadline.data = &early.timer_connection;
    early.deadline.log = ngx_cycle->log;
    const int64_t left_us = core::sources_awaited_until(zone()) - now_us();
    // a millisecond more: nginx's clock, not ours, decides when it is over
    ngx_add_timer(&early.deadline, static_cast<ngx_msec_t>(std::max<int64_t>(left_us, 0) / 1000 + 1));
}

void unlink(Request& request) {
    ngx_queue_remove(&request.early);
    if (ngx_queue_empty(&early.requests) && early.deadline.timer_set) {
        ngx_del_timer(&early.deadline);
    }
}

}  // namespace

bool must_wait_for_sources() {
    const int64_t until = core::sources_awaited_until(zone());
    return until != 0 && now_us() < until;
}

ngx_int_t wait_for_sources(Request& request) {
    if (!watch_client(request.r)) {
        return refuse(request, ErrorCode::internal_error);
    }
    if (early.requests.next == nullptr) {
        ngx_queue_init(&early.requests);
    }
    if (ngx_queue_empty(&early.requests)) {
        start_deadline();
    }
    ngx_queue_insert_tail(&early.requests, &request.early);
    request.stage = Stage::early;
    return NGX_AGAIN;
}

void stop_waiting_for_sources(Request& request) {
    if (request.stage == Stage::early) {
        unlink(request);
    }
}

void admit_early_requests() {
    if (early.requests.next == nullptr || ngx_queue_empty(&early.requests)) {
        return;
    }
    if (must_wait_for_sources()) {
        if (!early.deadline.timer_set) {
            start_deadline();
        }
        return;
    }
    while (!ngx_queue_empty(&early.requests)) {
        Request& request = request_of(ngx_queue_head(&early.requests));
        unlink(request);
        request.stage = Stage::fresh;
        request.auth = AuthState::unknown;  // a variable may have asked before
        resume(request.r);
    }
}

}  // namespace llm::nginx
