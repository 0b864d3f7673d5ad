#include "ngx_module/nginx/headers.hpp"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "ngx_module/core/text/request_id.hpp"
#include "ngx_module/nginx/request_memory.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

// Credentials must not leave the gateway, and our own headers must not be forged.
[[gnu::always_inline]] inline bool stays_here(std::string_view name) {
    if (name.size() >= 6 && same_bytes(name.substr(0, 6), "x-llm-")) {
        return true;
    }
    switch (name.size()) {
        case 7:
            return same_bytes(name, "api-key");
        case 9:
            return same_bytes(name, "x-api-key");
        case 12:
            return same_bytes(name, "x-request-id");
        case 13:
            return same_bytes(name, "authorization");
        case 19:
            return same_bytes(name, "proxy-authorization");
        default:
            return false;
    }
}

// With underscores_in_headers an engine behind CGI or WSGI takes `x_api_key` for `x-api-key`.
bool stays_here_in_disguise(std::string_view name) {
    static constexpr size_t kLongest = std::string_view("proxy-authorization").size();
    char dashed[kLongest];
    // what is longer can only begin with x-llm-
    const size_t size = std::min(name.size(), kLongest);
    for (size_t i = 0; i < size; ++i) {
        dashed[i] = name[i] == '_' ? '-' : name[i];
    }
    const std::string_view start(dashed, size);
    return name.size() <= kLongest ? stays_here(start) : start.starts_with("x-llm-");
}

// The hash of a lower-case name, as ngx_hash_key() computes it.
constexpr ngx_uint_t hash_of(std::string_view name) {
    ngx_uint_t hash = 0;
    for (char c : name) {
        hash = ngx_hash(hash, static_cast<u_char>(c));
    }
    return hash;
}

// A header whose lower-case name lives forever.
template <ngx_uint_t hash>
void write_header(ngx_table_elt_t& header, std::string_view name, const ngx_str_t& value) {
    header = {};
    header.hash = hash;
    header.key = to_ngx(name);
    header.lowcase_key = header.key.data;
    header.value = value;
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

constexpr std::string_view kAuthorization = "authorization";
constexpr size_t kRequestIdSize = 32;

// A fresh id in the kRequestIdSize bytes at `text`.
ngx_str_t new_request_id(u_char* text) {
    std::array<uint8_t, 16> random;
    random_bytes(random);
    const std::array<char, kRequestIdSize> id = core::format_request_id(random);
    ngx_memcpy(text, id.data(), id.size());
    return {id.size(), text};
}

// Makes an array the request's list of headers.
void set_headers(ngx_http_request_t* r, ngx_table_elt_t* headers, ngx_uint_t count, ngx_uint_t room) {
    ngx_list_t& list = r->headers_in.headers;
    list.part = {headers, count, nullptr};
    list.last = &list.part;
    list.size = sizeof(ngx_table_elt_t);
    list.nalloc = room;
    list.pool = r->pool;
}

// nullptr when memory is short.
ngx_table_elt_t* push_response_header(ngx_http_request_t* r, std::string_view name, const ngx_str_t& value) {
    auto* header = static_cast<ngx_table_elt_t*>(ngx_list_push(&r->headers_out.headers));
    if (header == nullptr) {
        return nullptr;
    }
    *header = {};
    header->hash = 1;
    header->key = to_ngx(name);
    header->value = value;
    return header;
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
           !same_name(view(header->value), "identity");
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
    auto* text = static_cast<u_char*>(ngx_pnalloc(request.r->pool, kRequestIdSize));
    if (text == nullptr) {
        return false;
    }
    request.request_id = new_request_id(text);
    return true;
}

bool set_engine_headers(Request& request) {
    constexpr std::string_view kRequestId = "x-request-id";
    constexpr std::string_view kPriority = "x-llm-priority";
    constexpr std::string_view kBearer = "Bearer ";
    ngx_http_request_t* r = request.r;
    ngx_uint_t most = 3;
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        most += part->nelts;
    }
    // the list, and behind it the texts of its new elements
    const size_t text_size = kRequestIdSize + NGX_INT32_LEN + 1 + kBearer.size() + request.target.key.len;
    auto* const headers =
        static_cast<ngx_table_elt_t*>(take_memory(request, most * sizeof(ngx_table_elt_t) + text_size));
    if (headers == nullptr) {
        return false;
    }
    auto* text = reinterpret_cast<u_char*>(headers + most);
    ngx_table_elt_t* end = headers;
    const ngx_table_elt_t* given_id = nullptr;
    const auto* server =
        static_cast<const ngx_http_core_srv_conf_t*>(ngx_http_get_module_srv_conf(r, ngx_http_core_module));
    const bool underscores = server->underscores_in_headers != 0;
    for_each_header(r->headers_in.headers, [&](const ngx_table_elt_t& header) {
        const std::string_view name = lower_case_name(header);
        if (!stays_here(name) && (!underscores || !stays_here_in_disguise(name))) {
            *end++ = header;
        } else if (given_id == nullptr && name == kRequestId) {
            given_id = &header;
        }
        return true;
    });
    if (request.request_id.len == 0) {
        const bool usable = given_id != nullptr && core::valid_request_id(view(given_id->value));
        request.request_id = usable ? given_id->value : new_request_id(text);
        text += kRequestIdSize;
    }
    write_header<hash_of(kRequestId)>(*end++, kRequestId, request.request_id);
    auto* const digits = reinterpret_cast<char*>(text);
    const char* const last =
        std::to_chars(digits, digits + NGX_INT32_LEN + 1, 100 - request.engine_class).ptr;
    write_header<hash_of(kPriority)>(*end++, kPriority, {static_cast<size_t>(last - digits), text});
    text += NGX_INT32_LEN + 1;
    if (request.target.key.len != 0) {
        u_char* const key = ngx_cpymem(text, kBearer.data(), kBearer.size());
        ngx_memcpy(key, request.target.key.data, request.target.key.len);
        write_header<hash_of(kAuthorization)>(*end++, kAuthorization,
                                              {kBearer.size() + request.target.key.len, text});
    }
    if (!request.headers_replaced) {
        request.headers_replaced = true;
        request.client_headers = r->headers_in.headers;
    }
    set_headers(r, headers, static_cast<ngx_uint_t>(end - headers), most);
    return true;
}

void restore_client_headers(Request& request) {
    if (request.headers_replaced) {
        request.headers_replaced = false;
        request.r->headers_in.headers = request.client_headers;
    }
}

bool drop_authorization(ngx_http_request_t* r) {
    ngx_uint_t most = 0;
    for (const ngx_list_part_t* part = &r->headers_in.headers.part; part != nullptr; part = part->next) {
        most += part->nelts;
    }
    auto* const headers = static_cast<ngx_table_elt_t*>(ngx_palloc(r->pool, most * sizeof(ngx_table_elt_t)));
    if (headers == nullptr) {
        return false;
    }
    ngx_table_elt_t* end = headers;
    for_each_header(r->headers_in.headers, [&](const ngx_table_elt_t& header) {
        if (lower_case_name(header) != kAuthorization) {
            *end++ = header;
        }
        return true;
    });
    set_headers(r, headers, static_cast<ngx_uint_t>(end - headers), most);
    return true;
}

bool add_response_header(ngx_http_request_t* r, std::string_view name, const ngx_str_t& value) {
    return push_response_header(r, name, value) != nullptr;
}

bool add_cache_control(ngx_http_request_t* r, const ngx_str_t& value) {
    ngx_table_elt_t* const header = push_response_header(r, "Cache-Control", value);
    if (header == nullptr) {
        return false;
    }
#if (nginx_version >= 1023000)
    r->headers_out.cache_control = header;
    return true;
#else
    ngx_array_t& known = r->headers_out.cache_control;
    if (ngx_array_init(&known, r->pool, 1, sizeof(ngx_table_elt_t*)) != NGX_OK) {
        return false;
    }
    *static_cast<ngx_table_elt_t**>(ngx_array_push(&known)) = header;  // there is room for one
    return true;
#endif
}

}  // namespace llm::nginx
