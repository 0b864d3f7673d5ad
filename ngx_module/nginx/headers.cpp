#include "ngx_module/nginx/headers.hpp"

#include <sys/random.h>

#include "ngx_module/core/text/request_id.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

// Calls visit(header) for each element; stops when it returns false.
template <class Visit>
void for_each_header(ngx_list_t& list, Visit visit) {
    for (ngx_list_part_t* part = &list.part; part != nullptr; part = part->next) {
        auto* header = static_cast<ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; ++i) {
            if (!visit(header[i])) {
                return;
            }
        }
    }
}

std::string_view lower_case_name(const ngx_table_elt_t& header) {
    return {reinterpret_cast<const char*>(header.lowcase_key), header.key.len};
}

// Credentials must not leave the gateway, and our own headers must not be forged.
bool stays_here(std::string_view name) {
    switch (name.size()) {
        case 7:
            return name == "api-key";
        case 9:
            return name == "x-api-key";
        case 12:
            return name == "x-request-id" || name.starts_with("x-llm-");
        case 13:
            return name == "authorization" || name.starts_with("x-llm-");
        case 19:
            return name == "proxy-authorization" || name.starts_with("x-llm-");
        default:
            return name.starts_with("x-llm-");
    }
}

bool push_header(ngx_list_t& list, std::string_view lower_case, const ngx_str_t& value) {
    auto* header = static_cast<ngx_table_elt_t*>(ngx_list_push(&list));
    if (header == nullptr) {
        return false;
    }
    ngx_memzero(header, sizeof(*header));
    header->key = to_ngx(lower_case);
    header->lowcase_key = header->key.data;
    header->hash = ngx_hash_key(header->key.data, header->key.len);
    header->value = value;
    return true;
}

// 16 unpredictable bytes. The kernel is asked for many at a time: a system call per request would show.
void random_bytes(std::array<uint8_t, 16>& out) {
    static uint8_t pool[1024];
    static size_t used = sizeof(pool);
    if (used + out.size() > sizeof(pool)) {
        if (getrandom(pool, sizeof(pool), 0) != static_cast<ssize_t>(sizeof(pool))) {
            for (uint8_t& byte : pool) {
                byte = static_cast<uint8_t>(random32());
            }
        }
        used = 0;
    }
    ngx_memcpy(out.data(), pool + used, out.size());
    used += out.size();
}

}  // namespace

const ngx_table_elt_t* find_request_header(ngx_http_request_t* r, std::string_view name) {
    const ngx_table_elt_t* found = nullptr;
    for_each_header(r->headers_in.headers, [&](const ngx_table_elt_t& header) {
        if (lower_case_name(header) == name) {
            found = &header;
        }
        return found == nullptr;
    });
    return found;
}

bool has_content_encoding(ngx_http_request_t* r) {
    const ngx_table_elt_t* header = find_request_header(r, "content-encoding");
    return header != nullptr && header->value.len != 0 &&
           !(header->value.len == 8 && ngx_strncasecmp(header->value.data, to_ngx("identity").data, 8) == 0);
}

bool set_request_id(Request& request) {
    if (request.request_id.len != 0) {
        return true;
    }
    const ngx_table_elt_t* header = find_request_header(request.r, "x-request-id");
    if (header != nullptr && core::valid_request_id(view(header->value))) {
        request.request_id = header->value;
        return true;
    }
    std::array<uint8_t, 16> random;
    random_bytes(random);
    const std::array<char, 32> id = core::format_request_id(random);
    request.request_id = copy_to_pool(request.r->pool, {id.data(), id.size()});
    return request.request_id.data != nullptr;
}

bool set_engine_headers(Request& request) {
    ngx_http_request_t* r = request.r;
    if (!set_request_id(request)) {
        return false;
    }
    ngx_list_t headers;
    if (ngx_list_init(&headers, r->pool, 20, sizeof(ngx_table_elt_t)) != NGX_OK) {
        return false;
    }
    bool ok = true;
    for_each_header(r->headers_in.headers, [&](const ngx_table_elt_t& header) {
        if (stays_here(lower_case_name(header))) {
            return true;
        }
        auto* copy = static_cast<ngx_table_elt_t*>(ngx_list_push(&headers));
        ok = copy != nullptr;
        if (ok) {
            *copy = header;
        }
        return ok;
    });
    ok = ok && push_header(headers, "x-request-id", request.request_id);
    if (ok && request.stage != Stage::bypass) {
        auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT32_LEN));
        if (text == nullptr) {
            return false;
        }
        const u_char* end = ngx_sprintf(text, "%D", 100 - request.engine_class);
        ok = push_header(headers, "x-llm-priority", {static_cast<size_t>(end - text), text});
    }
    if (ok && request.target.key.len != 0) {
        auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, sizeof("Bearer ") + request.target.key.len));
        if (text == nullptr) {
            return false;
        }
        const u_char* end = ngx_sprintf(text, "Bearer %V", &request.target.key);
        ok = push_header(headers, "authorization", {static_cast<size_t>(end - text), text});
    }
    if (!ok) {
        return false;
    }
    r->headers_in.headers = headers;
    // the list's own bookkeeping points into itself while it has one part
    if (headers.last == &headers.part) {
        r->headers_in.headers.last = &r->headers_in.headers.part;
    }
    return true;
}

bool add_response_header(ngx_http_request_t* r, std::string_view name, const ngx_str_t& value) {
    auto* header = static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
    if (header == nullptr) {
        return false;
    }
    ngx_memzero(header, sizeof(*header));
    header->hash = 1;
    header->key = to_ngx(name);
    header->value = value;
    return true;
}

}  // namespace llm::nginx
