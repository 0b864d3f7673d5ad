#include "ngx_module/nginx/answer_headers.hpp"

#include <algorithm>
#include <iterator>

#include "ngx_module/nginx/headers.hpp"

namespace llm::nginx {
namespace {

bool is_ours(std::string_view name) {
    return (name[0] | 0x20) == 'x' && (same_name(name, "x-request-id") || same_name(name, "x-llm-queue-ms"));
}

// Those X-Accel-* that nginx knows are not passed unless the user's proxy_pass_header says so: its part.
bool nginx_knows(std::string_view accel) {
    constexpr std::string_view kNames[] = {"redirect", "limit-rate", "buffering", "charset", "expires"};
    return std::any_of(std::begin(kNames), std::end(kNames),
                       [accel](std::string_view name) { return same_name(accel, name); });
}

// Headers that are between the engine and us (RFC 9110, 7.6.1). nginx itself keeps back Connection,
// Keep-Alive and Transfer-Encoding.
bool ends_here(std::string_view name) {
    constexpr std::string_view kAccel = "x-accel-";
    switch (name[0] | 0x20) {
        case 'x':
            return same_name(name.substr(0, kAccel.size()), kAccel) &&
                   !nginx_knows(name.substr(kAccel.size()));
        case 'u':
            return same_name(name, "upgrade");
        case 't':
            return same_name(name, "te");
        case 'p':
            return same_name(name, "proxy-connection");
        default:
            return false;
    }
}

// Whether a value of the header Connection, a list, holds that word.
bool names_it(std::string_view list, std::string_view word) {
    while (!list.empty()) {
        const size_t comma = std::min(list.find(','), list.size());
        std::string_view item = list.substr(0, comma);
        list.remove_prefix(std::min(comma + 1, list.size()));
        while (!item.empty() && (item.front() == ' ' || item.front() == '\t')) {
            item.remove_prefix(1);
        }
        while (!item.empty() && (item.back() == ' ' || item.back() == '\t')) {
            item.remove_suffix(1);
        }
        if (same_name(item, word)) {
            return true;
        }
    }
    return false;
}

template <class Drops>
void drop_headers(ngx_http_request_t* r, Drops drops) {
    for (ngx_list_part_t* part = &r->headers_out.headers.part; part != nullptr; part = part->next) {
        auto* header = static_cast<ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; ++i) {
            if (header[i].key.len != 0 && drops(view(header[i].key))) {
                header[i].hash = 0;
            }
        }
    }
}

}  // namespace

void drop_hop_by_hop_headers(ngx_http_request_t* r) {
    drop_headers(r, ends_here);
    const ngx_table_elt_t* connection = r->upstream->headers_in.connection;
    if (connection != nullptr && connection->value.len > sizeof("keep-alive") - 1) {  // it names others
        const std::string_view list = view(connection->value);
        drop_headers(r, [list](std::string_view name) { return names_it(list, name); });
    }
}

void drop_gateway_headers(ngx_http_request_t* r) {
    drop_headers(r, is_ours);
}

}  // namespace llm::nginx
