// Header lines of an engine's answer, read with vector compares before nginx's own parser sees them.
//
// An answer's head is the same few lines each time, and nginx looks at every byte of them three times. Lines of
// the usual form ("Name: value", CR LF, all of it in the buffer) are entered into the list of headers here,
// exactly as ngx_http_proxy_process_header() would; at the first line of another form, and at the empty one,
// nginx goes on. So nothing is accepted or refused here that nginx would not.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// Behind the status line, when the buffer begins with a whole one of HTTP/1.x; nullptr otherwise.
u_char* status_line_end(const ngx_buf_t& buffer);

// Takes lines of the usual form from u.buffer.pos, which must be the beginning of a line. NGX_OK, also when
// there was none; what a handler of nginx's has answered otherwise; NGX_ERROR when memory is short.
ngx_int_t take_header_lines(ngx_http_request_t* r, ngx_http_upstream_t& u);

}  // namespace llm::nginx
