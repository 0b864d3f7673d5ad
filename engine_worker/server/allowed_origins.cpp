#include "engine_worker/server/allowed_origins.hpp"

#include <algorithm>

namespace llm::engine {
namespace {

// scheme "://" host [":" port], in printable ASCII and without a path; browsers send it in lower case.
bool is_origin(std::string_view text) {
    const size_t scheme = text.find("://");
    if (scheme == std::string_view::npos || scheme == 0 || scheme + 3 == text.size()) {
        return false;
    }
    return std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c < 0x7f && !(c >= 'A' && c <= 'Z'); }) &&
           text.find_first_of("/?#@*", scheme + 3) == std::string_view::npos;
}

}  // namespace

std::string AllowedOrigins::parse(std::string_view list) {
    all_ = list == "*";
    origins_.clear();
    if (all_ || list == "none") {
        return "";
    }
    for (size_t at = 0; at <= list.size();) {
        const size_t comma = std::min(list.find(',', at), list.size());
        const std::string_view one = list.substr(at, comma - at);
        if (!is_origin(one)) {
            return "expected *, none, or origins like https://chat.example.org, separated by commas";
        }
        origins_.emplace_back(one);
        at = comma + 1;
    }
    return "";
}

HttpHeaders AllowedOrigins::headers_for(std::string_view origin) const {
    HttpHeaders out;
    if (all_) {
        if (!origin.empty()) {
            out.emplace_back("access-control-allow-origin", "*");
        }
        return out;
    }
    if (!origins_.empty()) {
        out.emplace_back("vary", "Origin");  // also to who names none: caches must not mix them up
    }
    if (std::find(origins_.begin(), origins_.end(), origin) != origins_.end()) {
        out.emplace_back("access-control-allow-origin", origin);
    }
    return out;
}

}  // namespace llm::engine
