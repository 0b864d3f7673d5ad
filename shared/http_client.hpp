// A blocking HTTP(S) client for programs that ask now and then: llmctl and llm-reporter. Over libcurl; not
// for what nginx loads.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llm {

struct HttpRequest {
    std::string method = "GET";
    std::string url;                                           // http:// or https://
    std::vector<std::pair<std::string, std::string>> headers;  // name, value
    std::string body;
};

struct HttpReply {
    int status = 0;
    std::string content_type;  // as sent, empty = none
    std::string body;
};

struct HttpClientOptions {
    double timeout_s = 10;              // for a whole exchange
    double connect_timeout_s = 5;       // of this, for the connection
    size_t max_body = size_t{8} << 20;  // bytes of an answer
    std::string ca_file;                // certificates to trust instead of the system's
};

// Keeps its connection open between requests to one server. Not for two threads at once. Neither redirections
// nor the environment's proxies are followed: what is asked is the server that was named.
class HttpClient {
  public:
    explicit HttpClient(const HttpClientOptions& options = {});
    ~HttpClient();
    HttpClient(const HttpClient&) = delete;
    HttpClient& operator=(const HttpClient&) = delete;

    // Empty, and `out` holds the answer whatever its status; or one line saying why there is none, the same
    // one for the same reason.
    std::string send(const HttpRequest& request, HttpReply& out);
    std::string get(const std::string& url, HttpReply& out);

    // Whether the last failure was "nobody answers there": refused, unknown host, no route.
    bool unreachable() const { return unreachable_; }

  private:
    HttpClientOptions options_;
    void* curl_;
    bool unreachable_ = false;
};

// `text` as one segment of a path: everything but unreserved characters (RFC 3986) becomes %XX, '/' too.
std::string percent_encode(std::string_view text);

// Whether `text` is an http(s) URL with a host and without blanks; the reason otherwise, empty = it is.
std::string check_http_url(std::string_view text);

}  // namespace llm
