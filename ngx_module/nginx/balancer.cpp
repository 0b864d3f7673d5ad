#include "ngx_module/nginx/balancer.hpp"

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/dead_end.hpp"
#include "ngx_module/nginx/news.hpp"
#include "ngx_module/nginx/request.hpp"
#include "ngx_module/nginx/upstream_hooks.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

// nginx asks `tries` whether another attempt may follow: with one it passes a 429/502/503 on, with none it
// gives up.
constexpr ngx_uint_t kMayRepeat = 2;

Request& request_of(void* data) {
    return *static_cast<Request*>(data);
}

// The request that nginx has built names the engine (Host, key): another engine needs another one.
bool rebuild_request(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_http_upstream_t* u = r->upstream;
    u->request_bufs = r->request_body != nullptr ? r->request_body->bufs : nullptr;
    return u->create_request(r) == NGX_OK;
}

ngx_int_t get_peer(ngx_peer_connection_t* peer, void* data) {
    Request& request = request_of(data);
    request.retry_ready = false;
    request.garbage = false;
    if (request.stage == Stage::queued) {
        return enter_dead_end(request, *peer);
    }
    [[maybe_unused]] ngx_http_upstream_t* u = request.r->upstream;  // in an nginx without TLS
    if (request.target_changed) {
        request.target_changed = false;
        if (!rebuild_request(request)) {
            return NGX_ERROR;
        }
    }
#if (NGX_HTTP_SSL)
    if (request.target.tls && (u->conf->ssl == nullptr || u->conf->ssl->ctx == nullptr)) {
        ngx_log_error(NGX_LOG_ERR, peer->log, 0,
                      "engine \"%V\" speaks https: proxy_pass must be https:// as well", &request.target.id);
        return NGX_BUSY;
    }
    u->ssl = request.target.tls;
    u->ssl_name = request.target.host;
#endif
    peer->sockaddr = request.target.address;
    peer->socklen = request.target.address_len;
    peer->name = request.target.name;
    peer->cached = 0;
    peer->connection = nullptr;
    return NGX_OK;
}

// Why the attempt failed, as far as nginx lets it be seen here.
core::Failure failure_of(const Request& request, const ngx_peer_connection_t& peer) {
    const ngx_http_upstream_t* u = request.r->upstream;
    if (request.garbage) {
        return core::Failure::garbage;
    }
    return peer.connection == nullptr || !u->request_sent ? core::Failure::connect : core::Failure::reset;
}

// The same as nginx will call it when it asks proxy_next_upstream.
ngx_uint_t type_of(const Request& request, const ngx_peer_connection_t& peer) {
    if (request.garbage) {
        return NGX_HTTP_UPSTREAM_FT_INVALID_HEADER;
    }
    const ngx_connection_t* connection = peer.connection;
    return connection != nullptr && (connection->write->timedout || connection->read->timedout)
               ? NGX_HTTP_UPSTREAM_FT_TIMEOUT
               : NGX_HTTP_UPSTREAM_FT_ERROR;
}

void on_failure(Request& request, ngx_peer_connection_t& peer) {
    const ngx_http_upstream_t* u = request.r->upstream;
    if (request.retry_ready) {
        return;  // the status was judged when the head came in
    }
    if (u->request_sent && peer.connection != nullptr && peer.connection->read->timedout) {
        peer.tries = 0;  // the engine was silent for proxy_read_timeout: 504 at once
        return;
    }
    if (peer.cached && !request.garbage) {
        peer.tries = kMayRepeat;  // an idle connection that had died: the same engine again, free of charge
        return;
    }
    const core::Failure cause = failure_of(request, peer);
    peer.tries = move_to_next_engine(request, cause, type_of(request, peer)) ? kMayRepeat : 0;
}

// A request without a lease has failed. For a died idle connection nginx itself adds an attempt.
void on_bypass_failure(Request& request, ngx_peer_connection_t& peer) {
    const bool silent = peer.connection != nullptr && peer.connection->read->timedout;
    peer.tries = !silent && !peer.cached && pass_to_another_engine(request, type_of(request, peer)) ? 1 : 0;
}

void free_peer(ngx_peer_connection_t* peer, void* data, ngx_uint_t state) {
    Request& request = request_of(data);
    if (request.stage == Stage::bypass) {
        if ((state & NGX_PEER_FAILED) != 0) {
            on_bypass_failure(request, *peer);
        }
        return;
    }
    if ((state & (NGX_PEER_FAILED | NGX_PEER_NEXT)) != 0) {  // the latter: a 403 or 404 that is repeated
        on_failure(request, *peer);
    } else {
        release_lease(request);
    }
}

#if (NGX_HTTP_SSL)
// Sessions are not kept: engines are few, connections are kept alive. nginx calls these without asking.
ngx_int_t set_session(ngx_peer_connection_t*, void*) {
    return NGX_OK;
}

void save_session(ngx_peer_connection_t*, void*) {}
#endif

ngx_int_t init_peer(ngx_http_request_t* r, ngx_http_upstream_srv_conf_t*) {
    if (r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "a subrequest (of ssi, addition, auth_request, mirror, proxy_cache_background_update …) "
                      "cannot be dispatched to an upstream with \"llm_balance\"");
        return NGX_ERROR;
    }
    Request* request = get_request(r);
    if (request == nullptr || loc_conf(r).dispatch == 0 ||
        (request->stage != Stage::running && request->stage != Stage::bypass) ||
        request->target.address == nullptr) {
        ngx_log_error(
            NGX_LOG_ERR, r->connection->log, 0,
            "an upstream with \"llm_balance\" was reached without \"llm_dispatch on\" in the location");
        return NGX_ERROR;
    }
    ngx_http_upstream_t* u = r->upstream;
    u->peer.data = request;
    u->peer.get = get_peer;
    u->peer.free = free_peer;
    u->peer.tries = request->stage == Stage::running ? kMayRepeat : 1;
#if (NGX_HTTP_SSL)
    u->peer.set_session = set_session;
    u->peer.save_session = save_session;
#endif
    wrap_upstream(*request);
    return NGX_OK;
}

ngx_int_t refuse_beside(ngx_conf_t* cf, const ngx_http_upstream_srv_conf_t& upstream, const char* directive) {
    ngx_log_error(
        NGX_LOG_EMERG, cf->log, 0,
        "upstream \"%V\" in %s:%ui: \"%s\" is not allowed beside \"llm_balance\": engines come from "
        "llm_engine and llm_redis",
        &upstream.host, upstream.file_name, upstream.line, directive);
    return NGX_ERROR;
}

ngx_int_t init_upstream(ngx_conf_t* cf, ngx_http_upstream_srv_conf_t* upstream) {
    if (upstream->servers->nelts > 1) {
        return refuse_beside(cf, *upstream, "server");
    }
#if (NGX_HTTP_UPSTREAM_ZONE)
    if (upstream->shm_zone != nullptr) {  // nginx would copy a list of servers there, which we do not have
        return refuse_beside(cf, *upstream, "zone");
    }
#endif
    upstream->peer.init = init_peer;
    return NGX_OK;
}

}  // namespace

char* set_balance(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* upstream = static_cast<ngx_http_upstream_srv_conf_t*>(
        ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module));
    if (upstream->peer.init_upstream == init_upstream) {
        return const_cast<char*>("is duplicate");
    }
    if (upstream->peer.init_upstream != nullptr) {
        return const_cast<char*>("must stand before \"keepalive\" and any other balancing method");
    }
    if (upstream->servers->nelts > 0) {
        return const_cast<char*>(
            "allows no \"server\" beside it: engines come from llm_engine and llm_redis");
    }
    // nginx refuses an upstream without servers
    auto* dummy = static_cast<ngx_http_upstream_server_t*>(ngx_array_push(upstream->servers));
    if (dummy == nullptr) {
        return static_cast<char*>(NGX_CONF_ERROR);
    }
    ngx_memzero(dummy, sizeof(*dummy));
    dummy->down = 1;
    upstream->peer.init_upstream = init_upstream;
    upstream->flags = NGX_HTTP_UPSTREAM_CREATE;
    return NGX_CONF_OK;
}

}  // namespace llm::nginx
