// The path of a request through nginx's phases, its suspension in the queue, and its end.
#include "ngx_module/nginx/request.hpp"

#include "ngx_module/nginx/abnormal_end.hpp"
#include "ngx_module/nginx/auth.hpp"
#include "ngx_module/nginx/body.hpp"
#include "ngx_module/nginx/compat.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/error_page.hpp"
#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/news.hpp"
#include "ngx_module/nginx/ordinary_proxy.hpp"
#include "ngx_module/nginx/queue.hpp"
#include "ngx_module/nginx/queue_keepalive.hpp"
#include "ngx_module/nginx/request_memory.hpp"
#include "ngx_module/nginx/start_up.hpp"
#include "ngx_module/nginx/target.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/web/handlers.hpp"

namespace llm::nginx {
namespace {

uint64_t last_serial = 0;

// Runs when the request ends, before the log phase. Its address marks the cleanup that holds our Request.
void on_cleanup(void* data) {
    auto& request = *static_cast<Request*>(data);
    forget_news(request);
    stop_waiting_for_sources(request);
    stop_keepalive(request);
    end_request(request);
    if (request.broken_off) {
        make_close_abnormal(request.r);
    }
    // an internal redirect may have cleared it, and the log phase finds no cleanup any more
    ngx_http_set_ctx(request.r, &request, ngx_http_llm_dispatch_module);
}

Request* find_after_redirect(ngx_http_request_t* r) {
    for (ngx_http_cleanup_t* cleanup = r->main->cleanup; cleanup != nullptr; cleanup = cleanup->next) {
        if (cleanup->handler == on_cleanup) {
            return static_cast<Request*>(cleanup->data);
        }
    }
    return nullptr;
}

bool is_models_listing(const ngx_http_request_t* r) {
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return false;
    }
    const std::string_view uri = view(r->uri);
    return uri == "/v1/models" || uri.starts_with("/v1/models/");
}

// An OPTIONS request (CORS preflight) carries no token and no body: any engine can answer it.
ngx_int_t pass_options(Request& request) {
    uint32_t engine;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        engine = core::any_usable_engine(lock, now, random32());
        read_target(lock, engine);
    }
    if (engine == core::kNone) {
        return refuse(request, ErrorCode::no_engine);
    }
    if (!set_target(request)) {
        return refuse(request, ErrorCode::internal_error);
    }
    request.stage = Stage::bypass;
    request.attempts = 1;
    return NGX_DECLINED;
}

void on_body(ngx_http_request_t* r) {
    Request* request = get_request(r);
    if (request == nullptr || request->stage != Stage::reading) {
        return;  // read at once: the caller goes on by itself
    }
    request->stage = Stage::fresh;
    // reading has set it to do nothing
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}

// A 408 that nginx is told of in the usual way makes it close the connection without a word.
void send_timeout_answer(ngx_http_request_t* r) {
    ngx_http_finalize_request(r, ngx_http_special_response_handler(r, NGX_HTTP_REQUEST_TIME_OUT));
}

void on_body_timeout(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_log_error(NGX_LOG_INFO, r->connection->log, NGX_ETIMEDOUT, "client timed out");
    request.body_timed_out = true;
    r->connection->read->timedout = 0;
    r->keepalive = 0;
    r->lingering_close = 0;  // nothing comes from there
#if (NGX_HTTP_V2)
    if (r->stream != nullptr) {
        r->stream->skip_data = 1;
    }
#endif
    send_timeout_answer(r);
}

// Something has happened while the body is on its way.
void read_on(ngx_http_request_t* r) {
    Request& request = *get_request(r);
    if (r->connection->read->timedout) {
        on_body_timeout(request);
    } else {
        request.read_body(r);
    }
}

// Reads the body. NGX_OK: it is there. NGX_DONE: wait, the phases will run again. Else a status.
ngx_int_t read_body(Request& request) {
    ngx_http_request_t* r = request.r;
    if (r->request_body != nullptr) {
        return NGX_OK;
    }
    const auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    request.body_limit = core->client_max_body_size;
    const ngx_int_t status = ngx_http_read_client_request_body(r, on_body);
    if (status >= NGX_HTTP_SPECIAL_RESPONSE || status == NGX_ERROR) {
        request.stage = Stage::reading;  // and stays there: error_page must not send on what came of it
        return status;
    }
    // The call took a reference for its callback, which must not outlive this phase: with it a body that
    // grows too large while it arrives would never be closed.
    r->main->count--;
    if (status == NGX_AGAIN) {
        request.stage = Stage::reading;
        request.read_body = r->read_event_handler;
        r->read_event_handler = read_on;
        return NGX_DONE;
    }
    return NGX_OK;
}

// llm_model decides the model, when it has a value.
ngx_int_t apply_model_directive(Request& request) {
    const LocConf& conf = loc_conf(request.r);
    request.model = request.client_model;
    if (conf.model == nullptr) {
        return NGX_OK;
    }
    ngx_str_t value;
    if (ngx_http_complex_value(request.r, conf.model, &value) != NGX_OK) {
        return NGX_ERROR;
    }
    if (value.len > 0) {
        request.model = value;
    }
    return NGX_OK;
}

ngx_int_t prepare(Request& request) {
    ngx_http_request_t* r = request.r;
    // HTTP/2 and later need not say that a body follows
    if (r->headers_in.content_length_n <= 0 && !r->headers_in.chunked &&
        r->http_version < NGX_HTTP_VERSION_20) {
        return refuse(request, ErrorCode::model_required);
    }
    if (has_content_encoding(r)) {
        return refuse(request, ErrorCode::unsupported_encoding);
    }
    const ngx_int_t read = read_body(request);
    if (read != NGX_OK) {
        return read;
    }
    if (!request.scanned) {
        Refusal refusal;
        if (!scan_body(request, refusal)) {
            return refuse(request, refusal);
        }
        request.scanned = true;
    }
    if (apply_model_directive(request) != NGX_OK) {
        return NGX_ERROR;
    }
    if (request.model.len == 0) {
        return refuse(request, ErrorCode::model_required);
    }
    return NGX_OK;
}

// error_page sends the request on: it is submitted once more, and nothing of the first time may remain.
void begin_anew(Request& request) {
    request.refusal = {};
    if (request.stage == Stage::fresh) {
        return;
    }
    abandon_request(request);
    request.outcome_counted = false;
    request.stage = Stage::fresh;
    request.target = {};
    request.head_seen = request.cut_off = request.end_in_doubt = false;
    request.finished_upstream = nullptr;
    request.ended_by_engine = false;
    request.scan = nullptr;
    request.usage = {};
    request.untold_status = 0;
    request.untold_release = false;
    request.dispatched_us = request.first_token_us = 0;
    request.attempts = 0;
    if (request.client_body != nullptr) {
        // the places of the control keys are those of the client's own body
        request.r->request_body = request.client_body;
        request.r->headers_in.content_length_n = request.client_body_length;
        request.client_body = nullptr;
    }
}

// error_page sends the request to a location that does not dispatch: neither the client's token nor the
// engine's key is for whoever answers there.
ngx_int_t leave_dispatching(ngx_http_request_t* r) {
    Request* request = r->internal ? get_request(r) : nullptr;
    if (request != nullptr && request->stage == Stage::queued) {
        end_request(*request);  // post_action: the client has left, and the location takes its time
    }
    if (request == nullptr || request->client_headers.size == 0) {
        return NGX_DECLINED;
    }
    request->target.key.len = 0;
    return set_engine_headers(*request) ? NGX_DECLINED : NGX_ERROR;
}

// A subrequest has what its request had when it was made. One that mirrors a request on its way to an engine
// goes elsewhere, and the engine's key is not for there.
ngx_int_t begin_subrequest(ngx_http_request_t* r) {
    const Request* request = get_request(r);
    if (request == nullptr || !request->headers_replaced || request->target.key.len == 0) {
        return NGX_DECLINED;
    }
    return drop_authorization(r) ? NGX_DECLINED : NGX_ERROR;
}

// error_page after a body that could not be read: there is nothing to send on, and `error_page 413 = …` has
// nginx forget the status.
ErrorCode body_error(const Request& request) {
    const ngx_http_request_t* r = request.r;
    const ngx_http_request_body_t* body = r->request_body;
    const off_t most = request.body_limit;  // not that of the location it was sent to
    if (request.body_timed_out) {
        return ErrorCode::request_timeout;
    }
    if (body == nullptr || most == 0) {
        return ErrorCode::bad_request;
    }
    const off_t announced =
        body->chunked != nullptr ? r->headers_in.content_length_n + body->chunked->size : off_t{0};
    return announced > most || body->received > most ? ErrorCode::body_too_large : ErrorCode::bad_request;
}

ngx_int_t refuse_unread(Request& request) {
    const ngx_int_t status = refuse(request, body_error(request));
    if (status != NGX_HTTP_REQUEST_TIME_OUT) {
        return status;
    }
    send_timeout_answer(request.r);
    return NGX_DONE;
}

// post_action sends the body once more, and nginx closes its file when the answer begins.
void keep_body_for_post_action(ngx_http_request_t* r) {
    const auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(r, ngx_http_core_module));
    if (core->post_action.data != nullptr) {
        r->preserve_body = 1;
    }
}

ngx_int_t start(Request& request) {
    ngx_http_request_t* r = request.r;
    if (request.auth == AuthState::unknown && !authenticate(request)) {
        return NGX_ERROR;
    }
    if (r->method == NGX_HTTP_OPTIONS && has_no_token(request)) {
        return pass_options(request);
    }
    if (another_module_vouches(request)) {
        accept_anonymous(request);
    }
    if (request.auth != AuthState::ok) {
        return refuse(request, auth_error(request));
    }
    if (is_models_listing(r)) {
        request.stage = Stage::bypass;
        r->content_handler = web::models_handler;
        return NGX_DECLINED;
    }
    const ngx_int_t ready = prepare(request);
    return ready == NGX_OK ? submit_request(request) : ready;
}

// The phases have come to us, for the first time or once more.
ngx_int_t go_on(Request& request) {
    switch (request.stage) {
        case Stage::running:
            if (request.finished_upstream == nullptr) {
                return NGX_DECLINED;  // resumed, or redirected within nginx: it keeps what it has
            }
            break;  // its engine has failed
        case Stage::bypass:
            if (request.target.address != nullptr) {
                return NGX_DECLINED;
            }
            break;  // a listing of models that found nothing
        case Stage::queued:
            return NGX_DONE;
        case Stage::reading:
            return refuse_unread(request);
        default:
            break;
    }
    begin_anew(request);
    return start(request);
}

}  // namespace

Request* get_request(ngx_http_request_t* r) {
    auto* request = static_cast<Request*>(ngx_http_get_module_ctx(r->main, ngx_http_llm_dispatch_module));
    if (request == nullptr && (r->main->internal || r->main->filter_finalize)) {
        request = find_after_redirect(r);
        if (request != nullptr) {
            ngx_http_set_ctx(r->main, request, ngx_http_llm_dispatch_module);
        }
    }
    return request;
}

Request* make_request(ngx_http_request_t* r) {
    Request* request = get_request(r);
    if (request != nullptr) {
        return request;
    }
    ngx_http_request_t* main = r->main;
    request = new_request(main);
    if (request == nullptr) {
        return nullptr;
    }
    request->r = main;
    request->serial = ++last_serial;
    request->seats = 1;
    request->model_index = core::kNone;
    request->arrived_us = now_us();
    request->cleanup = {on_cleanup, request, main->cleanup};
    main->cleanup = &request->cleanup;
    ngx_http_set_ctx(main, request, ngx_http_llm_dispatch_module);
    return request;
}

ngx_int_t access_handler(ngx_http_request_t* r) {
    if (loc_conf(r).dispatch == 0) {
        return NGX_DECLINED;
    }
    Request* request = make_request(r);
    if (request == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (request->stage == Stage::fresh && must_wait_for_sources()) {
        return wait_for_sources(*request);
    }
    if (!authenticate(*request)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (request->stage != Stage::fresh && request->stage != Stage::ended) {
        return NGX_OK;  // an internal redirect: it was let in before
    }
    if (request->auth == AuthState::ok ||
        (r->method == NGX_HTTP_OPTIONS && request->auth == AuthState::missing)) {
        return NGX_OK;
    }
    return refuse(*request, auth_error(*request));
}

ngx_int_t precontent_handler(ngx_http_request_t* r) {
    if (r != r->main) {
        return begin_subrequest(r);
    }
    if (loc_conf(r).dispatch == 0) {
        return leave_dispatching(r);
    }
    Request* request = make_request(r);
    if (request == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    const ngx_int_t result = go_on(*request);
    if (result == NGX_DECLINED && request->stage == Stage::running) {
        keep_body_for_post_action(r);
        shorten_proxy(*request);
    }
    return result;
}

ngx_int_t refuse(Request& request, const Refusal& refusal) {
    request.refusal = refusal;
    request.stage = Stage::ended;
    const LocConf& conf = loc_conf(request.r);
    if (conf.compat == kCompatAristote) {
        set_compat_answer(request, request.refusal);
    }
    if (request.refusal.compat_status == NGX_HTTP_OK) {
        return send_compat_ok(request);  // error_page has no say in a 200
    }
    return request.refusal.compat_status != 0 ? request.refusal.compat_status
                                              : error_info(refusal.code).status;
}

ngx_int_t refuse(Request& request, ErrorCode code) {
    return refuse(request, refusal_of(code));
}

Refusal refusal_of(ErrorCode code) {
    Refusal refusal;
    refusal.code = code;
    if (error_info(code).status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        refusal.retry_after_ms = 1000 + random32() % 4000;  // spread, so that not all come back at once
        refusal.should_retry = code != ErrorCode::aborted;  // or clients undo what an administrator did
    }
    return refusal;
}

int64_t queue_ms(const Request& request) {
    if (request.submitted_us == 0) {
        return 0;
    }
    const int64_t end = request.dispatched_us != 0 ? request.dispatched_us : now_us();
    return (end - request.submitted_us) / 1000;
}

bool final_outcome(const Request& request, core::Outcome& outcome) {
    const auto status = static_cast<ngx_int_t>(request.r->headers_out.status);
    if (request.outcome_counted) {
        outcome = request.outcome;
    } else if (request.stage == Stage::bypass && request.target.address == nullptr) {
        return false;  // a listing of models, found or not
    } else if (request.stage == Stage::bypass && request.ended_by_engine) {
        outcome = request.outcome;  // it has no lease whose end would count it
    } else if (request.refusal.code != ErrorCode::none) {
        outcome = error_info(request.refusal.code).outcome;
    } else if (request.stage == Stage::running && request.ended_by_engine) {
        outcome = request.outcome;  // asked for between the engine's end and the request's
    } else if (request.stage == Stage::fresh && loc_conf(request.r).dispatch == 0) {
        return false;  // only a variable was asked for, where nothing is dispatched
    } else if (request.stage == Stage::early || request.r->connection->error) {
        outcome = core::Outcome::cancelled_queued;
    } else if (request.stage == Stage::reading) {
        outcome = error_info(body_error(request)).outcome;  // the answer came from where error_page led
    } else if (status >= NGX_HTTP_BAD_REQUEST) {
        outcome = error_info(code_of_status(status)).outcome;
    } else {
        return false;  // answered by nginx itself, such as a redirect
    }
    return true;
}

ngx_int_t log_handler(ngx_http_request_t* r) {
    if (r != r->main) {
        return NGX_OK;  // log_subrequest
    }
    Request* request = get_request(r);
    if (request == nullptr) {
        // nginx answered before any of our phases: too large by Content-Length, malformed, denied
        if (loc_conf(r).dispatch != 0 && r->headers_out.status != 0) {
            core::count_outcome(zone(), core::kNone,
                                error_info(code_of_status(r->headers_out.status)).outcome);
        }
        return NGX_OK;
    }
    if (request->outcome_counted || !final_outcome(*request, request->outcome)) {
        return NGX_OK;
    }
    request->outcome_counted = true;
    core::count_outcome(zone(), request->model_index, request->outcome);
    return NGX_OK;
}

}  // namespace llm::nginx
