#include "engine_worker/server/api_routes.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include "engine_worker/server/api_error.hpp"

namespace llm::engine {
namespace {

// What a path takes, as the Allow header says it; empty: there is no such path. `*` is the server as a whole.
std::string_view methods_of(std::string_view path) {
    using Route = std::pair<std::string_view, std::string_view>;
    constexpr std::string_view kRead = "GET, HEAD, OPTIONS";
    constexpr std::string_view kWrite = "POST, OPTIONS";
    constexpr std::string_view kKept = "GET, HEAD, DELETE, OPTIONS";
    constexpr std::string_view kBoth = "GET, HEAD, POST, OPTIONS";
    static constexpr std::array<Route, 15> kRoutes = {{
        {"*", kBoth},
        {kDetokenize, kWrite},
        {"/drain", kWrite},
        {"/health", kRead},
        {"/load", kRead},
        {"/metrics", kRead},
        {"/ping", kBoth},
        {"/ready", kRead},
        {kTokenize, kWrite},
        {"/version", kRead},
        {kModels, kRead},
        {kChat, kWrite},
        {kCompletions, kWrite},
        {kEmbeddings, kWrite},
        {kResponses, kWrite},
    }};
    for (const auto& [name, methods] : kRoutes) {
        if (name == path) {
            return methods;
        }
    }
    if (path.starts_with(kOneResponse)) {
        return path.ends_with("/cancel") ? kWrite : path.ends_with("/input_items") ? kRead : kKept;
    }
    return path.starts_with("/v1/models/") ? kRead : std::string_view();
}

bool contains_method(std::string_view list, std::string_view method) {
    for (size_t at = 0; at < list.size();) {
        const size_t comma = std::min(list.find(',', at), list.size());
        if (list.substr(at, comma - at) == method) {
            return true;
        }
        at = comma + 2;
    }
    return false;
}

}  // namespace

bool is_probe(std::string_view path) {
    constexpr std::array<std::string_view, 6> kProbes = {"/health", "/load",  "/metrics",
                                                         "/ping",   "/ready", "/version"};
    return std::find(kProbes.begin(), kProbes.end(), path) != kProbes.end();
}

bool answered_by_routes(const HttpRequest& request, HttpReply& reply) {
    const std::string_view methods = methods_of(request.path);
    if (request.method == "OPTIONS" && !methods.empty()) {
        reply = text_reply(200, "");
        reply.headers.emplace_back("allow", methods);
        if (!request.header("access-control-request-method").empty()) {  // a browser asks before it sends
            reply.headers.emplace_back("access-control-allow-methods", methods);
            reply.headers.emplace_back("access-control-max-age", "600");
            if (const std::string_view wanted = request.header("access-control-request-headers"); !wanted.empty()) {
                reply.headers.emplace_back("access-control-allow-headers", wanted);
            }
        }
        return true;
    }
    if (methods.empty() || request.path == "*") {
        throw ApiError(404, "invalid_request_error", "not_found",
                       "There is nothing at " + request.path + ".");
    }
    if (!contains_method(methods, request.method)) {
        ApiError error(405, "invalid_request_error", "method_not_allowed",
                       "This endpoint takes " + std::string(methods) + ".");
        error.allow = methods;
        throw error;
    }
    return false;
}

HttpReply text_reply(int status, std::string body) {
    HttpReply reply;
    reply.status = status;
    reply.content_type = "text/plain; charset=utf-8";
    reply.body = std::move(body);
    return reply;
}

}  // namespace llm::engine
