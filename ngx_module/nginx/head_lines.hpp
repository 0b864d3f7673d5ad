// Header lines of an engine's answer, read with vector compares before nginx's own parser sees them.
//
// An answer's head is the same few lines each time, and nginx looks at every byte of them three times. Lines of
// the usual form ("Name: value", CR LF, all of it in the buffer) are entered into the list of headers here,
// exactly as ngx_http_proxy_process_header() would; at the first line of another form, and at the empty one,
// nginx goes on. So nothing is accepted or refused here that nginx would not.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// A status line of the usual form, "HTTP/1.1 200 OK": of a final status, whole, in the first bytes of a buffer.
struct StatusLine {
    ngx_uint_t status = 0;  // 0 = none of this form
    size_t size = 0;        // from the first digit of the status to the end of the reason
};
StatusLine status_line(const ngx_buf_t& buffer);

// Behind the status line, when the buffer begins with a whole one of HTTP/1.x; nullptr otherwise.
u_char* status_line_end(const ngx_buf_t& buffer);

// Takes lines of the usual form from u.buffer.pos, which must be the beginning of a line; before them the status
// line, when `status` is one, as ngx_http_proxy_process_status_line() would. NGX_OK, also when there was nothing
// to take; what a handler of nginx's has answered otherwise; NGX_ERROR when memory is short.
ngx_int_t take_header_lines(Request& request, ngx_http_upstream_t& u, const StatusLine& status);

}  // namespace llm::nginx
