// Request headers: what of the client's reaches an engine, and what we add.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Calls visit(header) for each element of a list of headers; stops when it returns false.
template <class Visit>
inline void for_each_header(const ngx_list_t& list, Visit visit) {
    for (const ngx_list_part_t* part = &list.part; part != nullptr; part = part->next) {
        const auto* header = static_cast<const ngx_table_elt_t*>(part->elts);
        for (ngx_uint_t i = 0; i < part->nelts; ++i) {
            if (!visit(header[i])) {
                return;
            }
        }
    }
}

inline std::string_view lower_case_name(const ngx_table_elt_t& header) {
    return {reinterpret_cast<const char*>(header.lowcase_key), header.key.len};
}

// Whether these are one name, or token, whose case does not count.
inline bool same_name(std::string_view name, std::string_view other) {
    return name.size() == other.size() &&
           ngx_strncasecmp(to_ngx(name).data, to_ngx(other).data, name.size()) == 0;
}

// A header of the client's by its lower-case name; nullptr when there is none.
const ngx_table_elt_t* find_request_header(ngx_http_request_t* r, std::string_view lower_name);

// A Content-Encoding other than identity: the body cannot be read.
bool has_content_encoding(ngx_http_request_t* r);

// Sets request.request_id: the client's x-request-id when it is harmless, else a new one. False when memory
// is short.
bool set_request_id(Request& request);

// Replaces the request's header list by what the engine of request.target may see: the client's headers
// without its credentials and without x-llm-*, plus the engine's own key, x-request-id and x-llm-priority.
// May be called again for another engine. False when memory is short.
bool set_engine_headers(Request& request);

// The client's own list of headers once more: what error_page sends a request to must see them, auth_request
// above all.
void restore_client_headers(Request& request);

// Takes the header that holds the engine's key out of a subrequest's list. False when memory is short.
bool drop_authorization(ngx_http_request_t* subrequest);

// Adds a response header. False when memory is short.
bool add_response_header(ngx_http_request_t* r, std::string_view name, const ngx_str_t& value);

// Adds the answer's only Cache-Control where `expires` finds it, to write its own value there. False when
// memory is short.
bool add_cache_control(ngx_http_request_t* r, const ngx_str_t& value);

}  // namespace llm::nginx
