#include "engine_worker/server/api_error.hpp"

#include <utility>

#include "shared/json.hpp"

namespace llm::engine {

ApiError::ApiError(int http_status, std::string error_type, std::string error_code, std::string text,
                   std::string parameter)
    : status(http_status),
      type(std::move(error_type)),
      code(std::move(error_code)),
      message(std::move(text)),
      param(std::move(parameter)) {}

std::string error_json(const ApiError& error) {
    using Json = nlohmann::ordered_json;
    const auto or_null = [](const std::string& text) { return text.empty() ? Json() : Json(text); };
    const Json body = {{"error",
                        {{"message", error.message},
                         {"type", error.type},
                         {"param", or_null(error.param)},
                         {"code", or_null(error.code)}}}};
    // Messages may quote what the client sent, whatever its bytes.
    return body.dump(-1, ' ', false, Json::error_handler_t::replace);
}

HttpReply error_reply(const ApiError& error) {
    HttpReply reply;
    reply.status = error.status;
    reply.body = error_json(error);
    if (error.retry_after > 0) {
        reply.headers.emplace_back("retry-after", std::to_string(error.retry_after));
    }
    if (error.authenticate) {
        reply.headers.emplace_back("www-authenticate", "Bearer");
    }
    if (!error.allow.empty()) {
        reply.headers.emplace_back("allow", error.allow);
    }
    return reply;
}

ApiError bad_value(const std::string& param, const std::string& message) {
    return {400, "invalid_request_error", "invalid_value", message, param};
}

ApiError unsupported(const std::string& param, const std::string& message) {
    return {400, "invalid_request_error", "unsupported_parameter",
            message.empty() ? "'" + param + "' is not supported by this engine." : message, param};
}

}  // namespace llm::engine
