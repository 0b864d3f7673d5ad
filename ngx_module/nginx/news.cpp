#include "ngx_module/nginx/news.hpp"

#include "ngx_module/nginx/queue.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

void tell_now(Request& request) {
    core::WakeSet wakes;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        tell_news(lock, request, now, wakes);
    }
    wake(wakes);
}

// Whether the client's next request, of another worker perhaps, fares worse than waiting a moment for this
// one's seat: it would be refused, or sent to an engine of somebody else's.
bool next_may_need_the_seat(const Request& request) {
    return request.never_waits || request.mode == core::RoutingMode::private_first;
}

void on_posted(ngx_event_t* event) {
    auto& request = *static_cast<Request*>(event->data);
    tell_now(request);
    const bool over = request.ended_by_engine || is_from_cache(request.r);
    if (request.stage == Stage::running && over && request.r->done) {
        end_request(request);  // nginx only lingers for the client's close: nothing can change any more
    }
}

void post(Request& request) {
    ngx_event_t& event = request.news_event;
    event.handler = on_posted;
    event.data = &request;
    event.log = request.r->connection->log;
    ngx_post_event(&event, &ngx_posted_events);
}

}  // namespace

void head_arrived(Request& request, uint32_t status) {
    request.untold_status = status;
    request.untold_us = now_us();
    post(request);
}

void release_lease(Request& request) {
    if (request.lease_released || !request.ticket.valid()) {
        return;
    }
    request.lease_released = true;
    request.untold_release = true;
    if (next_may_need_the_seat(request)) {
        tell_now(request);
    } else {
        post(request);
    }
}

void answer_ended(Request& request) {
    post(request);
}

void tell_news(const core::ZoneLock& lock, Request& request, int64_t now, core::WakeSet& wakes) {
    if (request.untold_status != 0) {
        core::response_head(lock, request.ticket, request.untold_status, request.untold_us, random32(),
                            wakes);
        request.untold_status = 0;
    }
    if (request.untold_release) {
        core::release_lease(lock, request.ticket, now, wakes);
        request.untold_release = false;
    }
}

void forget_news(Request& request) {
    if (request.news_event.posted) {
        ngx_delete_posted_event(&request.news_event);
    }
}

}  // namespace llm::nginx
