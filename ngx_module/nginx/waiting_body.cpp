#include "ngx_module/nginx/waiting_body.hpp"

namespace llm::nginx {
namespace {

constexpr off_t kInMemory = 16 << 20;  // bytes per worker of waiting bodies
constexpr off_t kSmall = 16 << 10;     // not worth a file

off_t waiting_bytes = 0;

// Whether nginx has seen the end of the stream: until then a last frame, though empty, would be put into the
// buffer.
bool is_at_end(const ngx_http_request_t& r) {
#if (NGX_HTTP_V2)
    if (r.stream != nullptr) {
        return r.stream->in_closed;
    }
#endif
    return r.http_version < NGX_HTTP_VERSION_20;
}

// Whether nobody else reads the body: a subrequest, such as a mirror's, has copies of its buffers.
bool is_ours(const ngx_http_request_t& r) {
    return r.request_body != nullptr && r.request_body->bufs != nullptr && r.main->count == 1;
}

off_t bytes_in_memory(const ngx_http_request_body_t& body) {
    off_t bytes = 0;
    for (const ngx_chain_t* link = body.bufs; link != nullptr; link = link->next) {
        bytes += static_cast<off_t>(memory_of(*link->buf).size());
    }
    return bytes;
}

// The buffer it was read with, once nothing of it lies there. nginx takes another one to send a file with.
void free_read_buffer(ngx_http_request_t& r) {
    ngx_http_request_body_t& body = *r.request_body;
    if (!is_at_end(r) || body.buf == nullptr || body.temp_file == nullptr || bytes_in_memory(body) != 0) {
        return;
    }
    ngx_pfree(r.pool, body.buf->start);
    body.buf = nullptr;
}

// As ngx_http_write_request_body() does.
bool move_to_file(ngx_http_request_t& r) {
    const auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(&r, ngx_http_core_module));
    auto* file = static_cast<ngx_temp_file_t*>(ngx_pcalloc(r.pool, sizeof(ngx_temp_file_t)));
    ngx_chain_t* link = ngx_alloc_chain_link(r.pool);
    auto* buffer = static_cast<ngx_buf_t*>(ngx_calloc_buf(r.pool));
    if (file == nullptr || link == nullptr || buffer == nullptr) {
        return false;
    }
    file->file.fd = NGX_INVALID_FILE;
    file->file.log = r.connection->log;
    file->path = core->client_body_temp_path;
    file->pool = r.pool;
    if (ngx_write_chain_to_temp_file(file, r.request_body->bufs) == NGX_ERROR) {
        return false;
    }
    buffer->in_file = 1;
    buffer->file = &file->file;
    buffer->file_last = file->file.offset;
    link->buf = buffer;
    link->next = nullptr;
    r.request_body->bufs = link;
    r.request_body->temp_file = file;
    return true;
}

}  // namespace

void put_body_aside(Request& request) {
    ngx_http_request_t& r = *request.r;
    if (!is_ours(r)) {
        return;
    }
    const off_t bytes = bytes_in_memory(*r.request_body);
    const bool move =
        bytes > kSmall && waiting_bytes + bytes > kInMemory && r.request_body->temp_file == nullptr;
    if (!move || !move_to_file(r)) {
        request.waiting_bytes = bytes;
        waiting_bytes += bytes;
    }
    free_read_buffer(r);
}

void body_is_wanted(Request& request) {
    waiting_bytes -= request.waiting_bytes;
    request.waiting_bytes = 0;
}

}  // namespace llm::nginx
