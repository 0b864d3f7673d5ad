#include "ngx_module/nginx/abnormal_end.hpp"

#include <sys/socket.h>

namespace llm::nginx {

bool only_close_ends(const ngx_http_request_t* r) {
    return r->http_version < NGX_HTTP_VERSION_20 && !r->chunked && r->headers_out.content_length_n == -1;
}

void make_close_abnormal(const ngx_http_request_t* r) {
    if (!only_close_ends(r)) {
        return;
    }
    ngx_connection_t* connection = r->connection;
    const linger reset{1, 0};
    if (setsockopt(connection->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)) == -1) {
        ngx_log_error(NGX_LOG_ERR, connection->log, ngx_errno, "setsockopt(SO_LINGER) failed");
    }
#if (NGX_HTTP_SSL)
    if (connection->ssl != nullptr) {
        connection->ssl->no_wait_shutdown = 1;
        connection->ssl->no_send_shutdown = 1;
    }
#endif
}

}  // namespace llm::nginx
