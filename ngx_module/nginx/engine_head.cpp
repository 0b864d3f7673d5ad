// The head of an engine's answer, when it is whole and ordinary: what ngx_http_proxy_process_status_line()
// and ngx_http_proxy_process_header() do with it.
#include "ngx_module/core/text/response_head.hpp"
#include "ngx_module/nginx/ordinary_proxy.hpp"

namespace llm::nginx {
namespace {

// Outlives reloads: what it keeps are entries of ngx_http_upstream_headers_in[], a constant of nginx's.
core::HeaderNames names;

const char* as_char(const u_char* at) {
    return reinterpret_cast<const char*>(at);
}

// Each field's name with its nginx handler, or false when one is not ordinary.
bool intern_names(ngx_http_request_t* r, const core::ResponseHead& head, const char* readable_end,
                  const core::HeaderName* (&found)[core::ResponseHead::kMaxFields]) {
    for (size_t i = 0; i < head.count; ++i) {
        const std::string_view name = head.fields[i].name;
        found[i] =
            names.intern(name, static_cast<size_t>(readable_end - name.data()), [r](core::HeaderName& entry) {
                auto* umcf = static_cast<ngx_http_upstream_main_conf_t*>(
                    ngx_http_get_module_main_conf(r, ngx_http_upstream_module));
                entry.user = ngx_hash_find(&umcf->headers_in_hash, entry.hash,
                                           reinterpret_cast<u_char*>(entry.lower), entry.length);
            });
        if (found[i] == nullptr) {
            return false;
        }
    }
    return true;
}

ngx_table_elt_t* push_header(ngx_http_upstream_t& u) {
    auto* header = static_cast<ngx_table_elt_t*>(ngx_list_push(&u.headers_in.headers));
    if (header != nullptr) {
        *header = {};
    }
    return header;
}

// An empty field, which keeps nginx from writing its own.
bool push_empty(ngx_http_upstream_t& u, std::string_view name, std::string_view lower, ngx_uint_t hash) {
    ngx_table_elt_t* header = push_header(u);
    if (header == nullptr) {
        return false;
    }
    header->hash = hash;
    header->key = to_ngx(name);
    header->lowcase_key = to_ngx(lower).data;
    return true;
}

constexpr ngx_uint_t hash_of(std::string_view name) {
    ngx_uint_t hash = 0;
    for (char c : name) {
        hash = ngx_hash(hash, static_cast<u_char>(c));
    }
    return hash;
}

ngx_int_t take_fields(ngx_http_request_t* r, const core::ResponseHead& head, const char* begin, u_char* copy,
                      const core::HeaderName* const (&found)[core::ResponseHead::kMaxFields]) {
    ngx_http_upstream_t& u = *r->upstream;
    for (size_t i = 0; i < head.count; ++i) {
        const core::HeadField& field = head.fields[i];
        ngx_table_elt_t* header = push_header(u);
        if (header == nullptr) {
            return NGX_ERROR;
        }
        header->hash = found[i]->hash;
        header->key = {field.name.size(), copy + (field.name.data() - begin)};
        header->value = {field.value.size(), copy + (field.value.data() - begin)};
        header->lowcase_key = to_ngx({found[i]->lower, found[i]->length}).data;
        header->key.data[header->key.len] = '\0';
        header->value.data[header->value.len] = '\0';
        const auto* known = static_cast<const ngx_http_upstream_header_t*>(found[i]->user);
        if (known != nullptr) {
            const ngx_int_t result = known->handler(r, header, known->offset);
            if (result != NGX_OK) {
                return result == NGX_HTTP_UPSTREAM_INVALID_HEADER ? result : NGX_ERROR;
            }
        }
    }
    return NGX_OK;
}

}  // namespace

ngx_int_t read_ordinary_head(Request& request) {
    ngx_http_request_t* r = request.r;
    ngx_http_upstream_t& u = *r->upstream;
    const char* const begin = as_char(u.buffer.pos);
    const char* const readable_end = as_char(u.buffer.end);
    core::ResponseHead head;
    const core::HeaderName* found[core::ResponseHead::kMaxFields];
    if (!core::parse_response_head(begin, as_char(u.buffer.last), readable_end, head) ||
        !intern_names(r, head, readable_end, found)) {
        return NGX_DECLINED;
    }
    const auto bytes = static_cast<size_t>(head.end - begin);
    auto* copy = static_cast<u_char*>(ngx_pnalloc(r->pool, bytes));
    if (copy == nullptr) {
        return NGX_ERROR;
    }
    ngx_memcpy(copy, begin, bytes);
    u.buffer.pos += bytes;
    if (u.state != nullptr && u.state->status == 0) {
        u.state->status = head.status;
    }
    u.headers_in.status_n = head.status;
    u.headers_in.status_line = {head.status_line.size(), copy + (head.status_line.data() - begin)};
    if (const ngx_int_t result = take_fields(r, head, begin, copy, found); result != NGX_OK) {
        return result;
    }
    if ((u.headers_in.server == nullptr && !push_empty(u, "Server", "server", hash_of("server"))) ||
        (u.headers_in.date == nullptr && !push_empty(u, "Date", "date", hash_of("date")))) {
        return NGX_ERROR;
    }
    if (u.headers_in.chunked) {
        u.headers_in.content_length_n = -1;
    }
    if (head.status == NGX_HTTP_NO_CONTENT || head.status == NGX_HTTP_NOT_MODIFIED ||
        (!u.headers_in.chunked && u.headers_in.content_length_n == 0)) {
        u.keepalive = !u.headers_in.connection_close;
    }
    return NGX_OK;
}

}  // namespace llm::nginx
