// Errors as OpenAI clients expect them.
#pragma once

#include <exception>
#include <string>

#include "engine_worker/server/http_server.hpp"

namespace llm::engine {

// Thrown while a request is looked at; becomes the answer.
struct ApiError : std::exception {
    ApiError(int http_status, std::string error_type, std::string error_code, std::string text,
             std::string parameter = "");

    const char* what() const noexcept override { return message.c_str(); }

    int status;
    std::string type;           // "invalid_request_error", "server_error", "rate_limit_error"
    std::string code;           // for programs; empty = null
    std::string message;        // for people
    std::string param;          // the field at fault; empty = null
    int retry_after = 0;        // seconds; 0 = no such header
    std::string allow;          // the Allow header; empty = no such header
    bool authenticate = false;  // with the WWW-Authenticate header
};

// {"error":{"message":…,"type":…,"param":…,"code":…}}
std::string error_json(const ApiError& error);
HttpReply error_reply(const ApiError& error);

// 400: the value of a field is wrong, or the field is known and not supported.
ApiError bad_value(const std::string& param, const std::string& message);
ApiError unsupported(const std::string& param, const std::string& message = "");

}  // namespace llm::engine
