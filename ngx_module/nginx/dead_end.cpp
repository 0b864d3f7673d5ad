#include "ngx_module/nginx/dead_end.hpp"

#include <sys/socket.h>

#include "ngx_module/nginx/queue.hpp"

namespace llm::nginx {
namespace {

ssize_t fail(ngx_connection_t*, u_char*, size_t) {
    return NGX_ERROR;
}

// A socket, because nginx asks it for errors; it has none.
ngx_connection_t* make_connection(ngx_log_t* log) {
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd == -1) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno, "llm: no socket for a request that waits again");
        return nullptr;
    }
    ngx_connection_t* connection = ngx_get_connection(fd, log);
    if (connection == nullptr) {
        close(fd);
        return nullptr;
    }
    connection->recv = fail;
    connection->number = ngx_atomic_fetch_add(ngx_connection_counter, 1);
    return connection;
}

// nginx has noted an attempt and given it proxy_connect_timeout: it is none, and the queue's own timer counts.
void settle(ngx_http_request_t* r) {
    ngx_http_upstream_t& u = *r->upstream;
    if (u.peer.connection->write->timer_set) {
        ngx_del_timer(u.peer.connection->write);
    }
    r->upstream_states->nelts--;
}

void on_settle(ngx_event_t* event) {
    settle(static_cast<Request*>(event->data)->r);
}

}  // namespace

bool dead_end_is_possible(const Request& request) {
    return (request.r->upstream->conf->next_upstream & NGX_HTTP_UPSTREAM_FT_ERROR) != 0;
}

ngx_int_t enter_dead_end(Request& request, ngx_peer_connection_t& peer) {
    if (request.settle_event == nullptr) {
        request.settle_event = static_cast<ngx_event_t*>(ngx_pcalloc(request.r->pool, sizeof(ngx_event_t)));
    }
    peer.connection = request.settle_event != nullptr ? make_connection(peer.log) : nullptr;
    peer.cached = 0;
    if (peer.connection == nullptr) {
        abandon_request(request);
        return NGX_ERROR;
    }
    ngx_event_t& event = *request.settle_event;
    event.handler = on_settle;
    event.data = &request;
    event.log = peer.log;
    ngx_post_event(&event, &ngx_posted_events);  // nginx sets its timer when this function has returned
    return NGX_AGAIN;
}

void leave_dead_end(Request& request) {
    ngx_http_upstream_t& u = *request.r->upstream;
    if (request.settle_event->posted) {
        forget_dead_end(request);
        settle(request.r);
    }
    u.peer.start_time += ngx_current_msec - u.start_time;  // proxy_next_upstream_timeout is for attempts
    u.peer.connection->read->handler(u.peer.connection->read);
}

void forget_dead_end(Request& request) {
    if (request.settle_event != nullptr && request.settle_event->posted) {
        ngx_delete_posted_event(request.settle_event);
    }
}

}  // namespace llm::nginx
