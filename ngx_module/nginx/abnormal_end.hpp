// The end of an answer that broke off. Where chunks or a length frame the answer their lack shows it; to a
// client of HTTP/1.0 the close of the connection is the end, so it gets a reset instead.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// Whether the client can tell the end of this answer by nothing but the close. The head has been sent.
bool only_close_ends(const ngx_http_request_t* r);

// When the connection is closed, the client's end sees a reset (and no close_notify of TLS). What it has not
// received yet is lost. Nothing changes where the framing shows the end.
void make_close_abnormal(const ngx_http_request_t* r);

}  // namespace llm::nginx
