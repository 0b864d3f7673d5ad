// An event stream whose head the client got before an engine answered (queue_keepalive.hpp). Whatever comes
// then has no head of its own: an engine's event stream follows as it is; anything else, of an engine or of
// nginx, becomes one error event and an abnormal end.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

struct BegunStream {
    // What comes of the answer, once its own head was taken away.
    enum class Follows : uint8_t {
        unknown,  // no head yet: comments only
        stream,   // the engine's events
        event,    // what is collected, as one event
        nothing,  // that event has been sent
    };

    Follows follows;
    bool answered;                // bytes of the engine's stream, or its end, have passed
    ngx_http_headers_out_t head;  // as it was sent
    void** contexts;              // the filters' own, since the head: internal redirects clear them
    ngx_uint_t status;            // of the answer that becomes an event
    u_char* collected;            // its body, up to a bound
    size_t collected_size;
    bool collected_all;
};

// Sends the head, on behalf of a request that has sent nothing. From then on request.begun is set, error_page
// has no effect, and nginx may send another head: it goes no further than our header filter. False when the
// client is gone or memory is short: the request cannot go on.
bool begin_stream(Request& request);

// Sends a buffer of ours while nothing of the answer passes; without one, what the client has not taken yet.
// False when the client is gone.
bool send_between(Request& request, ngx_buf_t* buffer);

// No byte of an answer has passed yet.
inline bool is_unanswered(const Request& request) {
    const BegunStream& begun = *request.begun;
    return begun.follows == BegunStream::Follows::unknown ||
           (begun.follows == BegunStream::Follows::stream && !begun.answered);
}

// Takes the head of the answer away, in the header filter, once request.scan or request.error_body say what
// it is. Returns for that filter.
ngx_int_t take_head(Request& request);

// Buffers of the engine's stream are about to pass.
void note_answer(BegunStream& begun, const ngx_chain_t* in);

// Whether the answer becomes an event.
inline bool is_replaced(const Request& request) {
    return request.begun != nullptr && request.begun->follows >= BegunStream::Follows::event;
}

// Collects such an answer and sends the event in the place of its last buffer.
ngx_int_t replace_answer(Request& request, ngx_chain_t* in, ngx_http_output_body_filter_pt next);

// Such an answer has broken off: sends its event.
void end_with_event(Request& request, ErrorCode code);

}  // namespace llm::nginx
