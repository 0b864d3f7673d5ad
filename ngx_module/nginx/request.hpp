// One client request on its way through the gateway: the process-local half of what the core keeps in the
// zone.
//
// Life: the access phase authenticates; the precontent phase reads the body, scans it and submits to the
// core, which grants or queues; a queued request is suspended until its grant rings (worker.cpp); then
// nginx's proxy runs, with our balancer (balancer.cpp) and our filters (response_filter.cpp); the cleanup
// ends whatever is still held.
//
// A Request lives as long as the request's pool (request_memory.hpp) and is found through r->ctx; internal
// redirects clear that, so it is also found among the request's cleanups (get_request).
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/core/text/control_keys.hpp"
#include "ngx_module/nginx/error_answer.hpp"

namespace llm::nginx {

enum class Stage : uint8_t {
    fresh,    // nothing submitted yet
    early,    // suspended, waits for the first clients and engines of a new zone (start_up.hpp)
    reading,  // the body is on its way
    queued,  // waits for a grant: suspended, or, where an engine has lost it, in nginx's proxy (dead_end.hpp)
    running,  // holds a lease (until `lease_released`), proxied to an engine
    bypass,   // proxied without a lease (OPTIONS)
    ended,    // refused, or finished: may be submitted anew after an internal redirect
};

enum class AuthState : uint8_t {
    unknown,      // not looked at yet
    missing,      // no token
    malformed,    // an Authorization header that holds no token
    rejected,     // no such token, or it expired, or is disabled
    unavailable,  // cannot be told at present
    ok,
};

// What the balancer connects to; the strings live as long as the request.
struct Target {
    uint32_t engine = core::kNone;
    ngx_str_t id = ngx_null_string;
    ngx_str_t url = ngx_null_string;
    ngx_str_t host = ngx_null_string;  // Host header
    ngx_str_t* name = nullptr;         // `host` once more: nginx keeps a pointer to it beyond the attempt
    ngx_str_t key = ngx_null_string;
    bool tls = false;
    sockaddr* address = nullptr;
    socklen_t address_len = 0;
    // for usage records
    ngx_str_t organisation = ngx_null_string;
    uint32_t max_running = 0;
    uint32_t held = 0;  // seats at the grant, this request's included
    double tokens_per_second_per_user = 0;
};

struct StreamScan;      // stream_scan.hpp
struct QueueKeepalive;  // queue_keepalive.hpp
struct BegunStream;     // begun_stream.hpp

struct Request {
    ngx_http_request_t* r;
    ngx_http_cleanup_t cleanup;  // among those of nginx's request
    uint64_t serial;             // tells this request from another one at the same address, later
    u_char* room;                // request_memory.hpp
    uint32_t room_used;
    Stage stage;
    ngx_queue_t early;  // linked while `stage` is early

    // who
    AuthState auth;
    TokenHash token_hash;
    ngx_str_t client;  // name; empty for the anonymous client
    ngx_str_t organisation;
    bool chat;         // client_type = chat
    bool never_waits;  // its threshold is 0
    core::RoutingMode default_mode;

    // what: from the body
    bool scanned;
    ngx_str_t model;         // as routed to
    ngx_str_t client_model;  // as the client wrote it
    bool stream;
    bool has_priority;
    int32_t client_priority;
    core::RoutingMode mode;
    uint32_t seats;
    uint32_t prompt_tokens;      // estimate
    uint32_t max_output_tokens;  // 0 = not said
    core::PrefixKeys prefix;     // with llm_routing prefix
    bool wants_usage;            // the client asked for stream_options.include_usage itself
    bool usage_injected;         // we asked for it in the client's place, and hide the answer
    core::Span model_span, priority_span, stream_options_span, include_usage_span;
    uint64_t object_end;
    bool object_empty, stream_options_empty;
    ngx_http_event_handler_pt read_body;  // nginx's own handler while the body is on its way
    off_t body_limit;                     // client_max_body_size where the body is read; 0 = none
    bool body_timed_out;
    off_t waiting_bytes;  // of the body, in memory while the request waits
    // as they came, once they were replaced by what an engine may see
    ngx_http_request_body_t* client_body;
    off_t client_body_length;
    ngx_list_t client_headers;  // size 0 = never replaced
    bool headers_replaced;      // at present

    // in the core
    core::Ticket ticket;
    uint32_t model_index;
    int32_t priority;  // effective
    int32_t engine_class;
    uint32_t position;  // at submission
    uint32_t attempts;  // begun; 0 until the first grant
    bool lease_released;
    ngx_event_t queue_timer;
    ngx_event_t* settle_event;  // dead_end.hpp; nullptr = it never waited again
    QueueKeepalive* keepalive;  // nullptr = it never waited with one
    BegunStream* begun;         // nullptr = the client has got no head before the answer's
    // news.hpp: what the core has not been told yet
    ngx_event_t news_event;
    uint32_t untold_status;  // of an answer's head; 0 = none
    int64_t untold_us;       // when that head came
    bool untold_release;     // the lease is not needed any more

    // the engine
    Target target;
    bool head_seen;                          // a response head was passed on
    bool garbage;                            // what came was no HTTP
    bool retry_ready;                        // process_header has already moved the lease, or given it back
    bool target_changed;                     // the request that nginx built is for another engine
    bool end_in_doubt;                       // whether the answer is whole shows when its last bytes pass
    bool cut_off;                            // the answer must not look complete to the client
    bool broken_off;                         // its end must be seen where only the close marks the end
    ngx_http_upstream_t* wrapped_upstream;   // whose callbacks are ours
    ngx_http_upstream_t* finished_upstream;  // its answer is over: later answers are nginx's own
    ngx_int_t (*process_header)(ngx_http_request_t* r);
    ngx_int_t (*reinit_request)(ngx_http_request_t* r);
    void (*finalize_request)(ngx_http_request_t* r, ngx_int_t rc);
    ngx_int_t (*input_filter_init)(void* data);
    ngx_int_t (*input_filter)(void* data, ssize_t bytes);
    StreamScan* scan;
    // ordinary_proxy.hpp: proxy's own, where the shorter way is taken
    ngx_http_handler_pt proxy_handler;
    ngx_int_t (*create_request)(ngx_http_request_t* r);

    // the end
    Refusal refusal;
    core::Outcome outcome;
    bool outcome_counted;  // once, when the request is over
    bool ended_by_engine;  // `outcome` says how the engine's answer ended
    core::Usage usage;
    ngx_str_t request_id;  // x-request-id
    int64_t arrived_us;
    int64_t submitted_us;    // later by the time that engines had it which lost it
    int64_t dispatched_us;   // the last grant; 0 = never
    int64_t first_token_us;  // 0 = none seen
    ngx_str_t error_body;    // JSON that replaces nginx's page, while it is being sent
};

// The request's state; nullptr when there is none yet (get) or memory is short (make). `r` may be a
// subrequest.
Request* get_request(ngx_http_request_t* r);
Request* make_request(ngx_http_request_t* r);

// Phase handlers.
ngx_int_t access_handler(ngx_http_request_t* r);
ngx_int_t precontent_handler(ngx_http_request_t* r);
ngx_int_t log_handler(ngx_http_request_t* r);

// Notes why the request is refused and returns the status for nginx.
ngx_int_t refuse(Request& request, const Refusal& refusal);
ngx_int_t refuse(Request& request, ErrorCode code);

// Milliseconds that the request has waited, or waits, in the queue. 0 when it was never submitted.
int64_t queue_ms(const Request& request);

// How the request ended, for log and metrics; it may be asked for before log_handler() has run. False when it
// is none that counts: a model listing, or a location that does not dispatch.
bool final_outcome(const Request& request, core::Outcome& outcome);

// A refusal that the core has said nothing about; a 503 asks to come back in some seconds.
Refusal refusal_of(ErrorCode code);

}  // namespace llm::nginx
