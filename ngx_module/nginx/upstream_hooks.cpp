#include "ngx_module/nginx/upstream_hooks.hpp"

#include <algorithm>

#include "ngx_module/nginx/abnormal_end.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/dead_end.hpp"
#include "ngx_module/nginx/head_lines.hpp"
#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/news.hpp"
#include "ngx_module/nginx/queue.hpp"
#include "ngx_module/nginx/response_filter.hpp"
#include "ngx_module/nginx/target.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

constexpr ngx_uint_t kEarlyHints = 103;  // nginx reads the head of the answer proper behind it

// Whether nginx will send the request once more after a failure of this type, as ngx_http_upstream_next() asks.
bool user_repeats_after(const ngx_http_request_t& r, ngx_uint_t failure) {
    const ngx_http_upstream_t& u = *r.upstream;
    if (u.request_sent && (r.method & (NGX_HTTP_POST | NGX_HTTP_LOCK | NGX_HTTP_PATCH)) != 0) {
        failure |= NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;
    }
    return (u.conf->next_upstream & failure) == failure;
}

// Other attempts that the location still allows after a failure of this type: the user's proxy_next_upstream* bound
// ours.
uint32_t retries_left(const Request& request, ngx_uint_t failure) {
    const ngx_http_upstream_t& u = *request.r->upstream;
    const ngx_msec_t timeout = u.conf->next_upstream_timeout;
    if (!user_repeats_after(*request.r, failure) ||
        (timeout != 0 && ngx_current_msec - u.peer.start_time >= timeout)) {
        return 0;
    }
    const auto retries = static_cast<ngx_uint_t>(loc_conf(request.r).retries);
    const ngx_uint_t tries = u.conf->next_upstream_tries;
    return static_cast<uint32_t>(tries != 0 ? std::min(retries, tries - 1) : retries);
}

core::RetryAnswer ask_for_retry(Request& request, core::Failure cause, uint32_t retries,
                                core::WhenFull full) {
    core::WakeSet wakes;
    core::RetryAnswer answer;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        tell_news(lock, request, now, wakes);
        answer = core::retry(lock, request.ticket, cause, retries, full, now, random32(), wakes);
        read_target(lock, answer.engine);
    }
    wake(wakes);
    return answer;
}

bool take_answer(Request& request, const core::RetryAnswer& answer) {
    if (answer.action != core::RetryAction::again) {
        return false;
    }
    request.attempts = answer.attempts;
    request.lease_released = false;
    if (!set_target(request)) {
        return false;
    }
    request.target_changed = true;
    return true;
}

// The failure that a status of the engine stands for, if the user lets nginx repeat after it; `flag` is its type.
bool repeatable_status(const ngx_http_request_t& r, core::Failure& cause, ngx_uint_t& flag) {
    switch (r.upstream->headers_in.status_n) {
        case NGX_HTTP_TOO_MANY_REQUESTS:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_429;
            cause = core::Failure::status_429;
            break;
        case NGX_HTTP_INTERNAL_SERVER_ERROR:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_500;
            cause = core::Failure::status_5xx;
            break;
        case NGX_HTTP_BAD_GATEWAY:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_502;
            cause = core::Failure::status_5xx;
            break;
        case NGX_HTTP_GATEWAY_TIME_OUT:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_504;
            cause = core::Failure::status_5xx;
            break;
        case NGX_HTTP_SERVICE_UNAVAILABLE:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_503;
            cause = core::Failure::status_503;
            break;
        case NGX_HTTP_FORBIDDEN:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_403;
            cause = core::Failure::status_4xx;
            break;
        case NGX_HTTP_NOT_FOUND:
            flag = NGX_HTTP_UPSTREAM_FT_HTTP_404;
            cause = core::Failure::status_4xx;
            break;
        default:
            return false;
    }
    return user_repeats_after(r, flag);
}

ngx_int_t process_header(ngx_http_request_t* r);

// Proxy exchanges its own callback when it goes from the status line to the headers, and back for another
// attempt.
void keep_wrapped(Request& request) {
    ngx_http_upstream_t& u = *request.r->upstream;
    if (u.process_header != process_header) {
        request.process_header = u.process_header;
        u.process_header = process_header;
    }
}

// Proxy's callbacks, which it keeps to itself: that for the status line and the one it exchanges it for.
ngx_int_t (*proxy_status)(ngx_http_request_t* r) = nullptr;
ngx_int_t (*proxy_lines)(ngx_http_request_t* r) = nullptr;

// Proxy's own callback sees the status line alone first, so that the usual header lines behind it can be taken
// the short way; then the rest. NGX_AGAIN: the rest is to be read by request.process_header.
ngx_int_t take_usual_lines(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_http_upstream_t& u = *r->upstream;
    if (request.process_header == proxy_status) {
        if (const StatusLine line = status_line(u.buffer); line.status != 0) {
            request.process_header = proxy_lines;
            const ngx_int_t result = take_header_lines(request, u, line);
            return result == NGX_OK ? NGX_AGAIN : result;
        }
    }
    u_char* const line_end = status_line_end(u.buffer);
    if (line_end == nullptr) {
        return NGX_AGAIN;
    }
    const auto parse_status = request.process_header;
    u_char* const last = u.buffer.last;
    u.buffer.last = line_end;
    ngx_int_t result = request.process_header(r);
    u.buffer.last = last;
    keep_wrapped(request);
    if (result != NGX_AGAIN || request.process_header == parse_status || r->state != 0) {
        return result;
    }
    // another callback: the status line was good
    if (view(u.conf->module) == "proxy") {
        proxy_status = parse_status;
        proxy_lines = request.process_header;
    }
    if (u.headers_in.status_n != kEarlyHints) {
        result = take_header_lines(request, u, {});
        return result == NGX_OK ? NGX_AGAIN : result;
    }
    return NGX_AGAIN;
}

ngx_int_t call_parser(Request& request) {
    ngx_http_request_t* r = request.r;
    if (r->state == 0) {
        const ngx_int_t result = take_usual_lines(request);
        if (result != NGX_AGAIN) {
            return result;
        }
    }
    const ngx_int_t result = request.process_header(r);
    keep_wrapped(request);
    return result;
}

// 100, 103 and the like announce the answer, they are none. A switch of protocols is one.
bool is_interim(const ngx_http_upstream_t& u) {
    const ngx_uint_t status = u.headers_in.status_n;
    return status >= NGX_HTTP_CONTINUE && status < NGX_HTTP_OK && status != NGX_HTTP_SWITCHING_PROTOCOLS;
}

// Makes proxy read another head, as nginx does it before another attempt, but for the bytes that are there.
bool expect_another_head(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_http_upstream_t& u = *r->upstream;
    ngx_memzero(&u.headers_in, sizeof(u.headers_in));
    u.headers_in.content_length_n = -1;
    u.headers_in.last_modified_time = -1;
    if (ngx_list_init(&u.headers_in.headers, r->pool, 8, sizeof(ngx_table_elt_t)) != NGX_OK ||
        ngx_list_init(&u.headers_in.trailers, r->pool, 2, sizeof(ngx_table_elt_t)) != NGX_OK ||
        request.reinit_request(r) != NGX_OK) {
        return false;
    }
    u.keepalive = 0;
    keep_wrapped(request);
    return true;
}

// What is no HTTP nginx would take for an answer in HTTP/0.9; no engine speaks that.
ngx_int_t parse_head(Request& request) {
    ngx_http_request_t* r = request.r;
    const ngx_uint_t client_version = r->http_version;
    ngx_int_t result;
    for (;;) {
        result = call_parser(request);
        if (result != NGX_OK || !is_interim(*r->upstream)) {
            break;
        }
        if (!expect_another_head(request)) {
            return NGX_ERROR;
        }
    }
    if (result == NGX_OK && r->upstream->headers_in.status_n == 0) {
        r->http_version = client_version;
        return NGX_HTTP_UPSTREAM_INVALID_HEADER;
    }
    return result;
}

// nginx has read a response head (or something that is none).
ngx_int_t process_header(ngx_http_request_t* r) {
    Request& request = *get_request(r);
    const ngx_int_t result = parse_head(request);
    // a head that proxy_buffer_size does not hold too: the engine has answered, nginx cannot take it
    const bool too_big = result == NGX_AGAIN && r->upstream->buffer.last == r->upstream->buffer.end;
    if (result == NGX_HTTP_UPSTREAM_INVALID_HEADER || too_big) {
        request.garbage = true;
    }
    if (result != NGX_OK || request.stage != Stage::running || is_from_cache(r)) {
        return result;
    }
    ngx_http_upstream_t& u = *r->upstream;
    core::Failure cause;
    ngx_uint_t flag;
    if (repeatable_status(*r, cause, flag)) {
        request.retry_ready = move_to_next_engine(request, cause, flag);
        if (request.retry_ready) {
            return NGX_OK;  // nginx sees tries > 1 and goes to the next peer
        }
    } else {
        head_arrived(request, static_cast<uint32_t>(u.headers_in.status_n));
    }
    u.peer.tries = 1;  // the engine's own answer passes
    request.head_seen = true;
    return NGX_OK;
}

// nginx is about to send the request once more.
ngx_int_t reinit_request(ngx_http_request_t* r) {
    Request& request = *get_request(r);
    const ngx_int_t result = request.reinit_request(r);
    keep_wrapped(request);
    // The buffer that a body's file was being sent with is lost but counted, and nginx makes no second one.
    // That the body was read with it takes once more, but a request that has waited may have given it up
    // (waiting_body.hpp).
    ngx_output_chain_ctx_t& output = r->upstream->output;
    if (output.free == nullptr) {
        output.allocated = 0;
    }
    return result;
}

// Bytes of the body have arrived. When they were the last, the engine is free, however slowly the client
// reads.
ngx_int_t input_filter(void* data, ssize_t bytes) {
    auto* r = static_cast<ngx_http_request_t*>(data);
    Request& request = *get_request(r);
    const ngx_int_t result = request.input_filter(data, bytes);
    if (result != NGX_ERROR && r->upstream->length == 0) {
        release_lease(request);
    }
    return result;
}

// Proxy chooses its input filter here, once it knows the framing.
ngx_int_t input_filter_init(void* data) {
    auto* r = static_cast<ngx_http_request_t*>(data);
    Request& request = *get_request(r);
    const ngx_int_t result = request.input_filter_init(data);
    if (result == NGX_OK && !r->upstream->buffering) {
        request.input_filter = r->upstream->input_filter;
        r->upstream->input_filter = input_filter;
    }
    return result;
}

core::Outcome outcome_of(const Request& request, ngx_int_t status) {
    if (status == 0 || status == NGX_DECLINED) {
        return core::Outcome::completed;
    }
    if (status == NGX_HTTP_GATEWAY_TIME_OUT && !request.head_seen) {
        return core::Outcome::timeout;
    }
    return status >= NGX_HTTP_INTERNAL_SERVER_ERROR ? core::Outcome::engine_error
                                                    : core::Outcome::cancelled_running;
}

// A header filter has nginx answer in the engine's place: a range that is not there (416), a condition that
// does not hold (412).
bool filter_has_answered(const ngx_http_request_t& r, ngx_int_t status) {
    return !r.upstream->header_sent && (status == NGX_HTTP_RANGE_NOT_SATISFIABLE || r.filter_finalize);
}

// nginx says NGX_ERROR when the client's connection breaks, and when the framing of the engine's body does: a
// chunk that is none. Only the latter leaves the client's connection whole.
bool framing_is_broken(const Request& request, ngx_int_t status) {
    const ngx_connection_t& client = *request.r->connection;
    return status == NGX_ERROR && request.head_seen && !client.error && !client.timedout;
}

// The upstream is over: 0 complete, a status for a failure, NGX_ERROR or 499 when it was the client's doing.
void finalize_request(ngx_http_request_t* r, ngx_int_t status) {
    Request& request = *get_request(r);
    request.finished_upstream = r->upstream;
    if (!r->header_sent) {
        restore_client_headers(request);
    }
    if (request.stage == Stage::queued) {  // its client has left, or nginx cannot go on: nobody waits in the dead end
        status >= NGX_HTTP_INTERNAL_SERVER_ERROR ? abandon_request(request) : end_request(request);
    } else if (request.stage == Stage::bypass) {
        request.ended_by_engine = true;
        request.outcome = outcome_of(request, status);
    } else if (request.stage == Stage::running) {
        bool cut_off = false;
        const bool replaced = request.head_seen && filter_has_answered(*r, status);
        if (!replaced && framing_is_broken(request, status)) {
            status = NGX_HTTP_BAD_GATEWAY;
        }
        if (status == 0 && request.head_seen && answer_is_cut_off(request)) {
            // closed without [DONE]: looks complete, is not; unless proxy_buffering still holds the end
            if ((r->buffered & NGX_HTTP_COPY_BUFFERED) != 0) {
                request.end_in_doubt = true;
            } else {
                status = NGX_HTTP_BAD_GATEWAY;
                cut_off = true;
            }
        }
        request.ended_by_engine = true;
        answer_ended(request);
        // proxy_intercept_errors: the engine has answered, the client gets error_page's words for it
        const bool intercepted = request.head_seen && request.scan == nullptr &&
                                 status >= NGX_HTTP_BAD_REQUEST &&
                                 static_cast<ngx_uint_t>(status) == r->upstream->headers_in.status_n;
        request.outcome = intercepted || replaced ? core::Outcome::completed : outcome_of(request, status);
        if (status > 0 && request.head_seen) {
            send_error_event(request, status == NGX_HTTP_GATEWAY_TIME_OUT ? ErrorCode::engine_timeout
                                                                          : ErrorCode::engine_error);
        }
        collect_usage(request);
        if (status != 0 && status != NGX_DECLINED && !replaced && request.head_seen && r->header_sent) {
            request.broken_off = true;
            if (status > 0 && (cut_off || only_close_ends(r))) {
                (void)ngx_http_send_special(r, NGX_HTTP_FLUSH);  // what nginx has held back until now
            }
            request.cut_off = cut_off;
            if (only_close_ends(r)) {
                r->connection->error = 1;  // no lingering, which begins with an orderly end
            }
        }
    }
    request.finalize_request(r, status);
}

}  // namespace

void wrap_upstream(Request& request) {
    ngx_http_upstream_t* u = request.r->upstream;
    if (request.wrapped_upstream == u) {
        return;
    }
    request.wrapped_upstream = u;
    request.process_header = u->process_header;
    request.finalize_request = u->finalize_request;
    request.input_filter_init = u->input_filter_init;
    request.reinit_request = u->reinit_request;
    u->reinit_request = reinit_request;
    u->process_header = process_header;
    u->finalize_request = finalize_request;
    if (u->input_filter_ctx == request.r) {  // not so with grpc_pass, whose filters get something else
        u->input_filter_init = input_filter_init;
    }
}

void stop_upstream(ngx_http_request_t* r) {
    ngx_http_upstream_t* u = r->upstream;
    if (u != nullptr && u->cleanup != nullptr && *u->cleanup != nullptr) {
        r->main->count++;  // nginx ends this with giving a reference back
        (*u->cleanup)(r);
    }
}

bool move_to_next_engine(Request& request, core::Failure cause, ngx_uint_t type) {
    const bool may_wait = loc_conf(request.r).observe == 0 && dead_end_is_possible(request);
    const core::RetryAnswer answer = ask_for_retry(request, cause, retries_left(request, type),
                                                   may_wait ? core::WhenFull::wait : core::WhenFull::fail);
    return answer.action == core::RetryAction::wait ? queue_again(request, answer.wait_ms)
                                                    : take_answer(request, answer);
}

bool pass_to_another_engine(Request& request, ngx_uint_t type) {
    if (request.attempts > retries_left(request, type)) {
        return false;
    }
    uint32_t engine;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        engine = core::any_usable_engine(lock, now, random32(), request.target.engine);
        read_target(lock, engine);
    }
    if (engine == core::kNone || !set_target(request)) {
        return false;
    }
    ++request.attempts;
    request.target_changed = true;
    return true;
}

}  // namespace llm::nginx
