#include "ngx_module/nginx/suspension.hpp"

namespace llm::nginx {
namespace {

// HTTP/3: a client that has sent its whole request, and wants no answer any more, says so where it would be
// written.
void test_writing([[maybe_unused]] ngx_http_request_t* r) {
#if (NGX_HTTP_V3)
    ngx_connection_t* connection = r->connection;
    if (connection->quic == nullptr || !connection->write->error) {
        return;
    }
    connection->error = 1;
    ngx_log_error(NGX_LOG_INFO, connection->log, 0, "client prematurely closed its stream");
    ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
#endif
}

}  // namespace

bool watch_client(ngx_http_request_t* r) {
    ngx_event_t* read = r->connection->read;
    if (read->ready) {
        ngx_post_event(read, &ngx_posted_events);  // what is there may be the end of the connection
    } else if (ngx_handle_read_event(read, 0) != NGX_OK) {
        return false;
    }
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = test_writing;
    return true;
}

void resume(ngx_http_request_t* r) {
    ngx_connection_t* connection = r->connection;
    ngx_http_set_log_request(connection->log, r);
    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
    ngx_http_run_posted_requests(connection);
}

void break_off(ngx_http_request_t* r, ngx_int_t status) {
    ngx_connection_t* connection = r->connection;
    r->keepalive = 0;  // nginx does not ask for it after an error, but behind post_action
    ngx_http_finalize_request(r, status);
    ngx_http_run_posted_requests(connection);
}

}  // namespace llm::nginx
