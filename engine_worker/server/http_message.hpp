// One HTTP request, and what is refused before anybody looks at it.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llm::engine {

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;  // names in lower case

struct HttpRequest {
    std::string method;
    std::string target;  // as sent
    std::string path;    // percent-decoded, without the query
    std::string query;   // as sent, without '?'
    int minor_version = 1;
    bool keep_alive = true;
    HttpHeaders headers;
    std::string body;

    // The first header of that name (lower case), or empty.
    std::string_view header(std::string_view name) const;
};

struct HttpReply {
    int status = 200;
    std::string content_type = "application/json";
    HttpHeaders headers;
    std::string body;
};

struct HttpLimits {
    size_t max_head = 32 * 1024;  // request line and headers, bytes
    size_t max_headers = 100;
    size_t max_body = 32 * 1024 * 1024;  // bytes
};

}  // namespace llm::engine
