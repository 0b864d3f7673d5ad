#include "ngx_module/nginx/queue_keepalive.hpp"

#include <new>

#include "ngx_module/nginx/begun_stream.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/suspension.hpp"

namespace llm::nginx {

struct QueueKeepalive {
    ngx_event_t timer;
    ngx_msec_t interval;
    ngx_buf_t comment;  // one at a time
};

namespace {

constexpr std::string_view kQueued = ": queued\n\n";
constexpr std::string_view kProcessing = ": processing\n\n";

// HEAD has no stream to keep alive, and a status that error_page has set before is not to become another.
bool is_wanted(const Request& request) {
    const ngx_http_request_t* r = request.r;
    return request.stream && r->method != NGX_HTTP_HEAD &&
           (r->err_status == 0 || r->err_status == NGX_HTTP_OK);
}

// Whether nothing has come yet of the answer that the client waits for.
bool is_silent(const Request& request) {
    return request.stage == Stage::queued || (request.stage == Stage::running && request.begun != nullptr &&
                                              !request.ended_by_engine && is_unanswered(request));
}

// While the client takes nothing, nothing is added to what waits for it.
bool send_comment(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_connection_t* connection = r->connection;
    ngx_buf_t* comment = nullptr;
    if (connection->buffered == 0 && r->buffered == 0) {
        comment = &request.keepalive->comment;
        const std::string_view text = request.stage == Stage::queued ? kQueued : kProcessing;
        comment->start = comment->pos = to_ngx(text).data;
        comment->end = comment->last = comment->start + text.size();
        comment->memory = 1;
        comment->flush = 1;
    }
    if (!send_between(request, comment)) {
        return false;
    }
    // the socket is looked at again at the next comment
    return connection->buffered == 0 || ngx_handle_write_event(connection->write, 0) == NGX_OK;
}

void on_timer(ngx_event_t* event) {
    auto& request = *static_cast<Request*>(static_cast<ngx_connection_t*>(event->data)->data);
    if (!is_silent(request)) {
        return;
    }
    ngx_http_request_t* r = request.r;
    ngx_connection_t* connection = r->connection;
    ngx_http_set_log_request(connection->log, r);
    if ((request.begun != nullptr || begin_stream(request)) && send_comment(request)) {
        ngx_add_timer(event, request.keepalive->interval);
        return;
    }
    if (request.stage == Stage::queued && request.attempts == 0) {  // else nginx's proxy finds out by itself
        break_off(r, connection->error ? NGX_HTTP_CLIENT_CLOSED_REQUEST : NGX_ERROR);
    }
}

}  // namespace

void start_keepalive(Request& request) {
    const ngx_msec_t interval = loc_conf(request.r).queue_keepalive;
    if (interval == 0 || !is_wanted(request)) {
        return;
    }
    if (request.keepalive == nullptr) {
        void* memory = ngx_palloc(request.r->pool, sizeof(QueueKeepalive));
        if (memory == nullptr) {
            return;  // it waits in silence
        }
        request.keepalive = new (memory) QueueKeepalive();
    }
    QueueKeepalive& keepalive = *request.keepalive;
    keepalive.interval = interval;
    keepalive.timer.handler = on_timer;
    keepalive.timer.data = request.queue_timer.data;
    keepalive.timer.log = request.r->connection->log;
    ngx_add_timer(&keepalive.timer, interval);
}

void leave_keepalive(Request& request) {
    if (request.begun == nullptr) {
        stop_keepalive(request);
    }
}

void stop_keepalive(Request& request) {
    if (request.keepalive != nullptr && request.keepalive->timer.timer_set) {
        ngx_del_timer(&request.keepalive->timer);
    }
}

}  // namespace llm::nginx
