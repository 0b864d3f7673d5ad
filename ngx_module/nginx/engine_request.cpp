#include "ngx_module/nginx/engine_request.hpp"

#include <charconv>
#include <cstring>

#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/request_memory.hpp"

namespace llm::nginx {
namespace {

// Headers that belong to one connection, or that are written here: never copied from the client (the list of
// ngx_http_proxy_headers[]).
bool is_written_here(std::string_view name) {
    switch (name.size()) {
        case 2:
            return same_bytes(name, "te");
        case 4:
            return same_bytes(name, "host");
        case 6:
            return same_bytes(name, "expect");
        case 7:
            return same_bytes(name, "upgrade");
        case 10:
            return same_bytes(name, "connection") || same_bytes(name, "keep-alive");
        case 14:
            return same_bytes(name, "content-length");
#if (nginx_version >= 1029007)
        case 16:
            return same_bytes(name, "proxy-connection");
#endif
        case 17:
            return same_bytes(name, "transfer-encoding");
        default:
            return false;
    }
}

// The first and the last `Word` of a text, which may overlap.
template <class Word>
inline void put_words(u_char* at, const char* text, size_t size) {
    Word first;
    Word last;
    std::memcpy(&first, text, sizeof(Word));
    std::memcpy(&last, text + size - sizeof(Word), sizeof(Word));
    std::memcpy(at, &first, sizeof(Word));
    std::memcpy(at + size - sizeof(Word), &last, sizeof(Word));
}

// Most texts of a head are short: a call of memcpy() would cost more than the copy.
[[gnu::always_inline]] inline u_char* put(u_char* at, std::string_view text) {
    const size_t size = text.size();
    if (size > 32) {
        std::memcpy(at, text.data(), size);
    } else if (size >= 16) {
        put_words<unsigned __int128>(at, text.data(), size);
    } else if (size >= 8) {
        put_words<uint64_t>(at, text.data(), size);
    } else if (size >= 4) {
        put_words<uint32_t>(at, text.data(), size);
    } else {
        for (size_t i = 0; i < size; ++i) {
            at[i] = static_cast<u_char>(text[i]);
        }
    }
    return at + size;
}

constexpr std::string_view kLineEnd = "\r\n";

// A link of a chain and what it links, in one piece of memory.
struct Link {
    ngx_chain_t chain;
    ngx_buf_t buffer;
};

size_t length_of(const ngx_chain_t* chain) {
    size_t length = 0;
    for (; chain != nullptr; chain = chain->next) {
        ++length;
    }
    return length;
}

// The chain of a request: its head, in the first of `links`, then buffers of our own over the body's bytes
// (nginx moves their positions while it sends, and a retry starts from the body's).
void chain_up(ngx_http_upstream_t& u, Link* links, u_char* head, u_char* head_end) {
    Link* link = links;
    link->buffer = {};
    link->buffer.start = link->buffer.pos = head;
    link->buffer.last = link->buffer.end = head_end;
    link->buffer.temporary = 1;
    link->chain.buf = &link->buffer;
    for (const ngx_chain_t* body = u.request_bufs; body != nullptr; body = body->next) {
        Link* const next = link + 1;
        next->buffer = *body->buf;
        next->chain.buf = &next->buffer;
        link->chain.next = &next->chain;
        link = next;
    }
    link->chain.next = nullptr;
    link->buffer.flush = 1;
    u.request_bufs = &links->chain;
}

}  // namespace

ngx_int_t create_engine_request(ngx_http_request_t* r) {
    constexpr std::string_view kVersionAndHost = " HTTP/1.1\r\nHost: ";
    constexpr std::string_view kContentLength = "\r\nContent-Length: ";
    Request& request = *get_request(r);
    ngx_http_upstream_t* u = r->upstream;
    const std::string_view host = view(request.target.host);
    if (u->cacheable || u->method.len != 0 || r->request_body_no_buffering ||
        r->headers_in.content_length_n < 0 || host.empty()) {
        return request.create_request(r);
    }
    size_t bytes = r->method_name.len + 1 + r->unparsed_uri.len + kVersionAndHost.size() + host.size() +
                   kContentLength.size() + NGX_OFF_T_LEN + 2 * kLineEnd.size();
    for_each_header(r->headers_in.headers, [&](const ngx_table_elt_t& header) {
        bytes += header.key.len + 2 + header.value.len + kLineEnd.size();
        return true;  // counts those too that will not be passed: they are few
    });
    const size_t links_size = (1 + length_of(u->request_bufs)) * sizeof(Link);
    auto* const memory = static_cast<u_char*>(take_memory(request, links_size + bytes));
    if (memory == nullptr) {
        return NGX_ERROR;
    }
    u_char* const head = memory + links_size;
    u_char* at = put(head, view(r->method_name));
    *at++ = ' ';
    u->uri = {r->unparsed_uri.len, at};
    at = put(at, view(r->unparsed_uri));
    at = put(put(put(at, kVersionAndHost), host), kContentLength);
    auto* const digits = reinterpret_cast<char*>(at);
    at += std::to_chars(digits, digits + NGX_OFF_T_LEN, r->headers_in.content_length_n).ptr - digits;
    at = put(at, kLineEnd);
    for_each_header(r->headers_in.headers, [&](const ngx_table_elt_t& header) {
        if (!is_written_here(lower_case_name(header))) {
            at = put(at, view(header.key));
            *at++ = ':';
            *at++ = ' ';
            at = put(put(at, view(header.value)), kLineEnd);
        }
        return true;
    });
    at = put(at, kLineEnd);
    chain_up(*u, reinterpret_cast<Link*>(memory), head, at);
    return NGX_OK;
}

}  // namespace llm::nginx
