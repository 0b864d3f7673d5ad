// nginx's headers for C++. Include this first: ngx_config.h sets feature macros that system headers read.
#pragma once

extern "C" {
#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>
#include <ngx_event_connect.h>
#include <ngx_http.h>
}

#include <cstring>
#include <initializer_list>
#include <string_view>

namespace llm::nginx {

inline std::string_view view(const ngx_str_t& text) {
    return {reinterpret_cast<const char*>(text.data), text.len};
}

// Whether a text of that literal's size is that literal. Compared a word at a time, without a call.
template <size_t size>
inline bool same_bytes(std::string_view text, const char (&literal)[size]) {
    return std::memcmp(text.data(), literal, size - 1) == 0;
}

// An ngx_str_t over bytes that someone else keeps alive. nginx never writes through the strings we hand it.
inline ngx_str_t to_ngx(std::string_view text) {
    return {text.size(), const_cast<u_char*>(reinterpret_cast<const u_char*>(text.data()))};
}

// Copies text to memory that has room for it and returns the end. Empty text may have no address at all, which memcpy
// does not allow.
inline u_char* append_text(u_char* to, std::string_view text) {
    if (!text.empty()) {
        ngx_memcpy(to, text.data(), text.size());
    }
    return to + text.size();
}

// A zero-terminated copy in the pool; data == nullptr when memory is short. len excludes the terminator.
inline ngx_str_t copy_to_pool(ngx_pool_t* pool, std::string_view text) {
    auto* data = static_cast<u_char*>(ngx_pnalloc(pool, text.size() + 1));
    if (data == nullptr) {
        return {0, nullptr};
    }
    *append_text(data, text) = '\0';
    return {text.size(), data};
}

// Zero-terminated copies of several texts in one piece of the pool's memory. False when memory is short.
struct TextCopy {
    ngx_str_t* to;
    std::string_view from;
};
inline bool copy_to_pool(ngx_pool_t* pool, std::initializer_list<TextCopy> copies) {
    size_t bytes = 0;
    for (const TextCopy& copy : copies) {
        bytes += copy.from.size() + 1;
    }
    auto* at = static_cast<u_char*>(ngx_pnalloc(pool, bytes));
    if (at == nullptr) {
        return false;
    }
    for (const TextCopy& copy : copies) {
        *copy.to = {copy.from.size(), at};
        at = append_text(at, copy.from);
        *at++ = '\0';
    }
    return true;
}

// The bytes that a buffer holds in memory; empty for one that only carries flags or a file.
inline std::string_view memory_of(const ngx_buf_t& buffer) {
    return ngx_buf_in_memory(&buffer) ? std::string_view(reinterpret_cast<const char*>(buffer.pos),
                                                         static_cast<size_t>(buffer.last - buffer.pos))
                                      : std::string_view{};
}

// Whether the answer comes from proxy_cache: no engine has worked for it.
inline bool is_from_cache(const ngx_http_request_t* r) {
#if (NGX_HTTP_CACHE)
    return r->cached != 0;
#else
    return false;
#endif
}

// A buffer over bytes that live as long as the pool, as one link of a chain sees it; nullptr when memory is
// short.
inline ngx_buf_t* memory_buffer(ngx_pool_t* pool, std::string_view bytes) {
    auto* buffer = static_cast<ngx_buf_t*>(ngx_pcalloc(pool, sizeof(ngx_buf_t)));
    if (buffer != nullptr) {
        buffer->memory = 1;
        buffer->start = buffer->pos = to_ngx(bytes).data;
        buffer->end = buffer->last = buffer->start + bytes.size();
    }
    return buffer;
}

}  // namespace llm::nginx
