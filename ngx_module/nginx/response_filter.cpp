#include "ngx_module/nginx/response_filter.hpp"

#include <algorithm>
#include <new>

#include "ngx_module/nginx/abnormal_end.hpp"
#include "ngx_module/nginx/answer_headers.hpp"
#include "ngx_module/nginx/begun_stream.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/error_page.hpp"
#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/news.hpp"
#include "ngx_module/nginx/request_memory.hpp"
#include "ngx_module/nginx/stream_scan.hpp"
#include "ngx_module/nginx/usage_hiding.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {

namespace {

// How often the core hears of a stream's tokens, whichever comes first: each time takes the zone's lock.
constexpr uint64_t kChargeTokens = 16;
constexpr ngx_msec_t kChargeInterval = 200;  // ms

ngx_http_output_header_filter_pt next_header_filter;
ngx_http_output_body_filter_pt next_body_filter;

bool is_event_stream(const ngx_http_request_t* r) {
    constexpr std::string_view kType = "text/event-stream";
    return r->headers_out.content_type.len >= kType.size() &&
           ngx_strncasecmp(r->headers_out.content_type.data, to_ngx(kType).data, kType.size()) == 0;
}

bool has_response_encoding(const ngx_http_request_t* r) {
    return r->headers_out.content_encoding != nullptr && r->headers_out.content_encoding->hash != 0 &&
           r->headers_out.content_encoding->value.len != 0;
}

bool begin_scan(Request& request) {
    ngx_http_request_t* r = request.r;
    void* memory = take_memory(request, sizeof(StreamScan));
    if (memory == nullptr) {
        return false;
    }
    auto* scan = new (memory) StreamScan();
    scan->event_stream = is_event_stream(r);
    scan->refused = r->headers_out.status >= 300;
    scan->readable = r->headers_out.status >= 200 && !scan->refused && !has_response_encoding(r);
    if (scan->readable) {
        r->filter_need_in_memory = 1;  // or sendfile passes what proxy_buffering put into a file unread
    }
    scan->scan.reset(scan->event_stream ? core::UsageScan::Framing::sse : core::UsageScan::Framing::json);
    scan->charged_at = ngx_current_msec;
    scan->hides_usage = scan->readable && scan->event_stream && request.usage_injected;
    if (scan->hides_usage) {
        ngx_http_clear_content_length(r);  // an event less
    }
    request.scan = scan;
    return true;
}

// nginx's proxy sends what it does not buffer without limit_rate: it would cancel the timer of a write that a
// long head has put off.
void lift_limit_rate(ngx_http_request_t* r) {
    if (!r->upstream->buffering) {
        r->limit_rate = 0;
        r->limit_rate_set = 1;
    }
}

// Whether nothing follows an engine's head.
bool head_is_all(const ngx_http_request_t& r) {
    const ngx_uint_t status = r.headers_out.status;
    return r.upstream->headers_in.content_length_n == 0 || status == NGX_HTTP_NO_CONTENT ||
           status == NGX_HTTP_NOT_MODIFIED || r.method == NGX_HTTP_HEAD;
}

bool add_gateway_headers(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_str_t waited = to_ngx("0");  // most requests never wait
    if (const int64_t ms = queue_ms(request); ms != 0) {
        waited.data = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT64_LEN));
        if (waited.data == nullptr) {
            return false;
        }
        waited.len = static_cast<size_t>(ngx_sprintf(waited.data, "%L", ms) - waited.data);
    }
    drop_gateway_headers(r);
    return set_request_id(request) && add_response_header(r, "x-request-id", request.request_id) &&
           add_response_header(r, "x-llm-queue-ms", waited);
}

// A stream that has begun must not get another head where an internal redirect has led it, nor one that only
// announces an answer.
ngx_int_t pass_head(ngx_http_request_t* r, ngx_http_output_header_filter_pt next) {
    Request* request = r == r->main ? get_request(r) : nullptr;
    return request != nullptr && request->begun != nullptr ? take_head(*request) : next(r);
}

// The answer of a location that does not dispatch. One that error_page has led a request to keeps what goes
// with the refusal, as nginx itself keeps the WWW-Authenticate of auth_basic.
bool add_headers_elsewhere(ngx_http_request_t* r) {
    Request* request = get_request(r);
    if (request == nullptr || request->stage == Stage::fresh || request->begun != nullptr) {
        return true;  // fresh: only a variable was asked for
    }
    return add_gateway_headers(*request) && (!is_refusal(*request) || add_refusal_headers(*request));
}

ngx_int_t header_filter(ngx_http_request_t* r) {
    if (r != r->main || r->headers_out.status < 200) {
        return pass_head(r, next_header_filter);
    }
    if (loc_conf(r).dispatch == 0) {
        return add_headers_elsewhere(r) ? pass_head(r, next_header_filter) : NGX_ERROR;
    }
    Request* request = make_request(r);
    if (request == nullptr) {
        return NGX_ERROR;
    }
    if (is_own_error_page(*request)) {
        if (!begin_error_page(*request)) {
            return NGX_ERROR;
        }
    } else if (r->upstream != nullptr && request->stage == Stage::bypass) {
        lift_limit_rate(r);
        drop_hop_by_hop_headers(r);
    } else if (r->upstream != nullptr && request->stage == Stage::running) {
        lift_limit_rate(r);
        drop_hop_by_hop_headers(r);
        if (!begin_scan(*request)) {
            return NGX_ERROR;
        }
        if (request->scan->event_stream && !add_response_header(r, "X-Accel-Buffering", to_ngx("no"))) {
            return NGX_ERROR;
        }
        if (is_from_cache(r) || head_is_all(*r)) {
            // no engine has anything to do for it, and the client may see its end with the head
            release_lease(*request);
        }
    }
    if (request->begun != nullptr) {
        return take_head(*request);
    }
    if (!add_gateway_headers(*request)) {
        return NGX_ERROR;
    }
    return next_header_filter(r);
}

#ifdef NGX_HTTP_UPSTREAM_EARLY_HINTS
ngx_http_output_header_filter_pt next_early_hints_filter;

ngx_int_t early_hints_filter(ngx_http_request_t* r) {
    const Request* request = r == r->main ? get_request(r) : nullptr;
    return request != nullptr && request->begun != nullptr ? NGX_OK : next_early_hints_filter(r);
}
#endif

// Tells the core of tokens in batches: it charges them to the client and measures the engine's speed with
// them.
void charge(Request& request, StreamScan& stream) {
    const uint64_t tokens = stream.scan.content_events();
    if (tokens == stream.seen) {
        return;
    }
    const int64_t now = now_us();
    stream.seen = tokens;
    stream.seen_at_us = now;
    const bool first = stream.charged == 0;
    if (!first && tokens - stream.charged < kChargeTokens &&
        ngx_current_msec - stream.charged_at < kChargeInterval) {
        return;
    }
    if (first) {
        request.first_token_us = now;
    }
    stream.charged = tokens;
    stream.charged_at = ngx_current_msec;
    core::WakeSet wakes;
    {
        core::ZoneLock lock(zone());
        tell_news(lock, request, now, wakes);
        core::charge(lock, request.ticket, static_cast<uint32_t>(tokens),
                     request.r->connection->buffered != 0, now, wakes);
    }
    wake(wakes);
}

// Returns what is to be passed on, usually the chain itself.
ngx_chain_t* scan_answer(Request& request, ngx_chain_t* in) {
    StreamScan& stream = *request.scan;
    if (stream.hides_usage) {
        in = hide_usage(request, in);
    } else {
        for (const ngx_chain_t* link = in; link != nullptr; link = link->next) {
            if (const std::string_view bytes = memory_of(*link->buf); !bytes.empty()) {
                stream.scan.feed(bytes);
            }
        }
    }
    if (stream.event_stream && request.stage == Stage::running && !is_from_cache(request.r)) {
        charge(request, stream);
    }
    return in;
}

bool has_last(const ngx_chain_t* in) {
    while (in != nullptr && !in->buf->last_buf) {
        in = in->next;
    }
    return in != nullptr;
}

// Bytes that the engine still owes; -1: neither Content-Length nor chunks say where its answer ends.
off_t length_to_come(const ngx_http_upstream_t& u) {
    return u.buffering && u.pipe != nullptr ? u.pipe->length : u.length;
}

// Whether an answer whose length the client was told still misses bytes after so many more. Without them it
// would look whole.
bool stays_incomplete(const ngx_http_request_t* r, off_t more) {
    return r->headers_out.content_length_n == -1 || length_to_come(*r->upstream) > more;
}

// All of an answer has passed whose engine ended long before.
void judge_end(Request& request) {
    request.end_in_doubt = false;
    if (request.scan->scan.done()) {
        return;
    }
    request.outcome = core::Outcome::engine_error;
    request.cut_off = request.broken_off = true;
    if (only_close_ends(request.r)) {
        request.r->connection->error = 1;  // no lingering, which begins with an orderly end
    }
}

ngx_int_t body_filter(ngx_http_request_t* r, ngx_chain_t* in) {
    if (r != r->main) {
        return next_body_filter(r, in);
    }
    auto* request = static_cast<Request*>(ngx_http_get_module_ctx(r, ngx_http_llm_dispatch_module));
    if (request == nullptr || in == nullptr) {
        return next_body_filter(r, in);
    }
    const bool replaced = is_replaced(*request);
    if (request->error_body.len != 0 && !replaced) {
        return send_error_page(*request, in, next_body_filter);
    }
    if (request->scan != nullptr && request->scan->readable) {
        if (request->begun != nullptr) {
            note_answer(*request->begun, in);
        }
        in = scan_answer(*request, in);
        if (in == nullptr) {
            return NGX_OK;  // all of it is held back or dropped
        }
    }
    if (replaced) {
        return replace_answer(*request, in, next_body_filter);
    }
    if (request->end_in_doubt && has_last(in)) {
        judge_end(*request);
    }
    if (request->cut_off) {
        return NGX_ERROR;  // closes the connection without the end that would make the answer look complete
    }
    return next_body_filter(r, in);
}

}  // namespace

ngx_int_t install_response_filters(ngx_conf_t*) {
    next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = header_filter;
    next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = body_filter;
#ifdef NGX_HTTP_UPSTREAM_EARLY_HINTS
    next_early_hints_filter = ngx_http_top_early_hints_filter;
    ngx_http_top_early_hints_filter = early_hints_filter;
#endif
    return NGX_OK;
}

bool answer_is_cut_off(const Request& request) {
    const ngx_http_upstream_t* u = request.r->upstream;
    const bool close_delimited =
        length_to_come(*u) == -1 && u->headers_in.content_length_n == -1 && !u->headers_in.chunked;
    return close_delimited && !request.r->header_only && request.scan != nullptr && request.scan->readable &&
           request.scan->event_stream && !request.scan->scan.done();
}

void send_error_event(Request& request, ErrorCode code) {
    if (is_replaced(request)) {
        return end_with_event(request, code);
    }
    ngx_http_request_t* r = request.r;
    StreamScan* stream = request.scan;
    if (stream == nullptr || !stream->event_stream || !stream->readable || !r->header_sent ||
        r->header_only || r->connection->error || !stream->scan.at_event_boundary()) {
        return;  // without a head: a filter behind ours has refused it
    }
    ngx_buf_t* event = event_buffer(r->pool, error_body(r->pool, code));
    if (event == nullptr || !stays_incomplete(r, ngx_buf_size(event))) {
        return;
    }
    ngx_chain_t out{event, nullptr};
    request.scan = nullptr;  // our own event is not the engine's
    ngx_http_output_filter(r, &out);
    request.scan = stream;
}

void collect_usage(Request& request) {
    const StreamScan* stream = request.scan;
    if (is_from_cache(request.r)) {
        request.usage = {};
        request.usage.exact = true;
        return;
    }
    if (stream == nullptr) {
        return;  // no answer: nothing was generated that anybody saw
    }
    core::Usage& usage = request.usage;
    if (!stream->readable) {
        // an error of the engine's own used no tokens; an encoded answer cannot be read
        usage.exact = stream->refused;
        usage.prompt_tokens = usage.exact ? 0 : request.prompt_tokens;
        return;
    }
    usage.streamed_tokens = static_cast<uint32_t>(std::min<uint64_t>(stream->seen, UINT32_MAX));
    usage.last_token_us = stream->seen_at_us;
    if (const auto& reported = stream->scan.usage()) {
        usage.prompt_tokens = static_cast<uint32_t>(std::min<uint64_t>(reported->prompt_tokens, UINT32_MAX));
        usage.cached_tokens = static_cast<uint32_t>(std::min<uint64_t>(reported->cached_tokens, UINT32_MAX));
        usage.completion_tokens =
            static_cast<uint32_t>(std::min<uint64_t>(reported->completion_tokens, UINT32_MAX));
        usage.exact = true;
        return;
    }
    if (stream->scan.error_seen() && !stream->scan.content_seen()) {
        usage.exact = true;  // a refusal that began as a stream
        return;
    }
    usage.prompt_tokens = request.prompt_tokens;
    usage.completion_tokens =
        static_cast<uint32_t>(std::min<uint64_t>(stream->scan.content_events(), UINT32_MAX));
}

}  // namespace llm::nginx
