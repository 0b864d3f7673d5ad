// What the gateway does to answers: turns nginx's own error pages into OpenAI error objects, adds its
// headers, reads usage from what the engine sends, and ends broken streams so that clients notice.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Puts the header and body filters into nginx's chains (postconfiguration of the filter module).
ngx_int_t install_response_filters(ngx_conf_t* cf);

// True when the engine closed an event stream that the framing cannot show to be unfinished: no [DONE] came.
bool answer_is_cut_off(const Request& request);

// Tells the client of a stream that it has failed: one error event, if the last byte sent ended an event.
void send_error_event(Request& request, ErrorCode code);

// Takes what the scan has found into request.usage.
void collect_usage(Request& request);

}  // namespace llm::nginx
