#include "ngx_module/web/sent_name.hpp"

namespace llm::nginx::web {

std::string sent_name(ngx_http_request_t* r, std::string_view start) {
    std::string_view path = view(r->unparsed_uri);
    path = path.substr(0, path.find_first_of("?#"));
    if (r->valid_unparsed_uri == 0 || !path.starts_with(start)) {
        return {};
    }
    std::string name(path.substr(start.size()));
    auto* const begin = reinterpret_cast<u_char*>(name.data());
    u_char* source = begin;
    u_char* end = begin;
    ngx_unescape_uri(&end, &source, name.size(), 0);
    name.resize(static_cast<size_t>(end - begin));
    return name;
}

}  // namespace llm::nginx::web
