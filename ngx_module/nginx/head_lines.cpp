#include "ngx_module/nginx/head_lines.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "ngx_module/nginx/request_memory.hpp"

namespace llm::nginx {

#if defined(__x86_64__)
namespace {

constexpr size_t kLongestName = 30;  // compared in two vectors, with its colon
constexpr size_t kMostLines = 32;
constexpr size_t kVersionSize = sizeof("HTTP/1.1 ") - 1;

// Lower case of what a name may consist of, 0 for everything else. nginx allows more than this, and treats it
// in its own way.
constexpr std::array<u_char, 256> kNameBytes = [] {
    std::array<u_char, 256> table{};
    for (unsigned c = 0; c < table.size(); ++c) {
        const bool upper = c >= 'A' && c <= 'Z';
        const bool other = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
        table[c] = static_cast<u_char>(upper ? c + 'a' - 'A' : other ? c : 0);
    }
    return table;
}();

// A header name that engines send, with what nginx computes from its letters each time. Never changes once it
// is filled, as headers of requests point into it.
struct Name {
    alignas(16) u_char line[32]{};  // what a line begins with: the name as it was sent, a colon
    uint32_t compared = 0;  // a bit for each of these bytes
    uint32_t size = 0;      // without the colon; 0 = free
    ngx_uint_t hash = 0;
    const ngx_http_upstream_header_t* known = nullptr;  // of a table of nginx's that is constant
    mutable const Name* next = nullptr;  // the line that came after this one last time
    u_char text[32]{};   // zero-terminated, as nginx does it
    u_char lower[32]{};
};

Name names[64];
const Name* first_name = names;

struct Line {
    const Name* name;
    const u_char* text;  // the value
    size_t size;
};

inline uint32_t equal_bytes(const u_char* p, __m128i to) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return static_cast<uint32_t>(_mm_movemask_epi8(_mm_cmpeq_epi8(x, to)));
}

inline uint32_t below(size_t count) {
    return (1u << count) - 1;
}

// Whether the 32 bytes at `p` begin with that name and a colon. The caller finds out whether so many were sent.
inline bool begins_with(const u_char* p, const Name& name) {
    uint32_t same = equal_bytes(p, _mm_load_si128(reinterpret_cast<const __m128i*>(name.line)));
    if (name.size >= 16) {
        same |= equal_bytes(p + 16, _mm_load_si128(reinterpret_cast<const __m128i*>(name.line + 16))) << 16;
    }
    return (~same & name.compared) == 0;
}

// Writes what belongs to a name that is seen for the first time. False when it is none of the usual form.
bool learn(Name& name, const u_char* text, size_t size, ngx_http_request_t* r) {
    Name learned;
    for (size_t i = 0; i < size; ++i) {
        const u_char c = kNameBytes[text[i]];
        if (c == 0) {
            return false;
        }
        learned.line[i] = learned.text[i] = text[i];
        learned.lower[i] = c;
        learned.hash = ngx_hash(learned.hash, c);
    }
    learned.line[size] = ':';
    learned.compared = below(size + 1);
    auto* conf = static_cast<ngx_http_upstream_main_conf_t*>(
        ngx_http_get_module_main_conf(r, ngx_http_upstream_module));
    learned.known = static_cast<const ngx_http_upstream_header_t*>(
        ngx_hash_find(&conf->headers_in_hash, learned.hash, learned.lower, size));
    learned.size = static_cast<uint32_t>(size);
    learned.next = names;
    name = learned;
    return true;
}

// The record of the name of the line that begins at `p`. nullptr when it is not of the usual form, or there is
// no room for another one.
const Name* search_name(const u_char* p, const u_char* last, ngx_http_request_t* r) {
    size_t size = 0;
    while (p + size < last && p[size] != ':') {
        if (++size > kLongestName) {
            return nullptr;
        }
    }
    if (size == 0 || p + size == last) {
        return nullptr;
    }
    for (Name& name : names) {
        if (name.size == 0) {
            return learn(name, p, size, r) ? &name : nullptr;
        }
        if (begins_with(p, name)) {
            return &name;
        }
    }
    return nullptr;
}

// Where the value at `p` ends: at a carriage return before `limit` with a line feed behind it, before `last`.
// nullptr when it ends otherwise, or not at all. Reads up to 16 bytes from every byte before `limit`.
inline const u_char* value_end(const u_char* p, const u_char* limit, const u_char* last) {
    const __m128i carriage_return = _mm_set1_epi8('\r');
    const __m128i line_feed = _mm_set1_epi8('\n');
    for (; p < limit; p += 16) {
        const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
        const __m128i odd =
            _mm_or_si128(_mm_cmpeq_epi8(x, _mm_setzero_si128()),
                         _mm_or_si128(_mm_cmpeq_epi8(x, carriage_return), _mm_cmpeq_epi8(x, line_feed)));
        const auto mask = static_cast<uint32_t>(_mm_movemask_epi8(odd));
        if (mask != 0) {
            const u_char* const end = p + std::countr_zero(mask);
            return end + 1 < last && end[0] == '\r' && end[1] == '\n' ? end : nullptr;
        }
    }
    return nullptr;
}

// Enters a line into the list. The value lies in the request's pool.
inline ngx_int_t enter(ngx_http_request_t* r, ngx_http_upstream_t& u, const Name& name, u_char* value,
                       size_t size) {
    ngx_list_t& list = u.headers_in.headers;
    auto* header = list.last->nelts < list.nalloc
                       ? static_cast<ngx_table_elt_t*>(list.last->elts) + list.last->nelts++
                       : static_cast<ngx_table_elt_t*>(ngx_list_push(&list));
    if (header == nullptr) {
        return NGX_ERROR;
    }
    *header = {};
    header->hash = name.hash;
    header->key = {name.size, const_cast<u_char*>(name.text)};
    header->value = {size, value};
    header->lowcase_key = const_cast<u_char*>(name.lower);
    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0, "llm engine header: \"%V: %V\"", &header->key,
                   &header->value);
    return name.known != nullptr ? name.known->handler(r, header, name.known->offset) : NGX_OK;
}

}  // namespace

StatusLine status_line(const ngx_buf_t& buffer) {
    const u_char* const p = buffer.pos;
    if (buffer.last - p < 64 || !same_bytes({reinterpret_cast<const char*>(p), 9}, "HTTP/1.1 ")) {
        return {};
    }
    const u_char* const digits = p + kVersionSize;
    const unsigned hundreds = digits[0] - unsigned{'0'};
    const unsigned tens = digits[1] - unsigned{'0'};
    const unsigned ones = digits[2] - unsigned{'0'};
    if (hundreds < 2 || hundreds > 9 || tens > 9 || ones > 9 || (digits[3] != ' ' && digits[3] != '\r')) {
        return {};
    }
    const u_char* const end = value_end(digits + 3, p + 48, buffer.last);
    return end == nullptr ? StatusLine{}
                          : StatusLine{hundreds * 100 + tens * 10 + ones, static_cast<size_t>(end - digits)};
}

u_char* status_line_end(const ngx_buf_t& buffer) {
    constexpr std::string_view kVersion = "HTTP/1.";
    constexpr size_t kLongest = 128;
    const auto size = static_cast<size_t>(buffer.last - buffer.pos);
    if (size < kVersion.size() || std::memcmp(buffer.pos, kVersion.data(), kVersion.size()) != 0) {
        return nullptr;
    }
    auto* end = static_cast<u_char*>(std::memchr(buffer.pos, '\n', size < kLongest ? size : kLongest));
    return end != nullptr ? end + 1 : nullptr;
}

ngx_int_t take_header_lines(Request& request, ngx_http_upstream_t& u, const StatusLine& status) {
    ngx_http_request_t* r = request.r;
    ngx_buf_t& buffer = u.buffer;
    const u_char* const last = buffer.last;
    const u_char* const first = buffer.pos;
    const u_char* p = first + (status.status != 0 ? kVersionSize + status.size + 2 : 0);
    Line lines[kMostLines];
    size_t count = 0;
    const Name** expected = &first_name;  // engines send the same lines in the same order
    // Vectors may reach behind what was sent, but not behind the buffer: near its end lines are nginx's. 32
    // bytes of a name are looked at, and 16 from every byte of a value.
    const u_char* const near_end = std::min<const u_char*>(last, buffer.end - 32);
    while (count < kMostLines && p < near_end && *p != '\r') {
        Line& line = lines[count];
        line.name = *expected;
        if (!begins_with(p, *line.name) || line.name->size == 0) {
            line.name = search_name(p, last, r);
            if (line.name == nullptr) {
                break;
            }
            *expected = line.name;
        }
        expected = &line.name->next;
        const u_char* text = p + line.name->size + 1;
        if (text >= last || *text != ' ' || text[1] == ' ') {
            break;
        }
        ++text;
        const u_char* const end = value_end(text, near_end, last);
        if (end == nullptr || end == text || end[-1] == ' ') {
            break;
        }
        line.text = text;
        line.size = static_cast<size_t>(end - text);
        p = end + 2;
        ++count;
    }
    const auto size = static_cast<size_t>(p - first);
    if (size == 0) {
        return NGX_OK;
    }
    auto* const copy = static_cast<u_char*>(take_memory(request, size));
    if (copy == nullptr) {
        return NGX_ERROR;
    }
    ngx_memcpy(copy, first, size);
    buffer.pos += size;
    if (status.status != 0) {
        if (u.state != nullptr && u.state->status == 0) {
            u.state->status = status.status;
        }
        u.headers_in.status_n = status.status;
        u.headers_in.status_line = {status.size, copy + kVersionSize};
    }
    for (size_t i = 0; i < count; ++i) {
        const Line& line = lines[i];
        u_char* const value = copy + (line.text - first);
        value[line.size] = '\0';  // where the carriage return was
        const ngx_int_t result = enter(r, u, *line.name, value, line.size);
        if (result != NGX_OK) {
            return result;
        }
    }
    return NGX_OK;
}

#else

StatusLine status_line(const ngx_buf_t&) {
    return {};
}

u_char* status_line_end(const ngx_buf_t&) {
    return nullptr;
}

ngx_int_t take_header_lines(Request&, ngx_http_upstream_t&, const StatusLine&) {
    return NGX_OK;
}

#endif  // __x86_64__

}  // namespace llm::nginx
