#include "ngx_module/nginx/error_answer.hpp"

#include "ngx_module/core/text/json_write.hpp"

namespace llm::nginx {
namespace {

using core::Outcome;

constexpr std::string_view kInvalidRequest = "invalid_request_error";
constexpr std::string_view kRateLimit = "rate_limit_error";
constexpr std::string_view kServer = "server_error";

// In the order of ErrorCode.
constexpr ErrorInfo kErrors[] = {
    {0, "", "", "", Outcome::completed},
    // The first words are OpenAI's: client libraries look for them.
    {401, kInvalidRequest, "invalid_api_key",
     "Incorrect API key provided, or none: send a valid token as 'Authorization: Bearer <token>'.",
     Outcome::rejected_invalid_api_key},
    {403, kInvalidRequest, "model_not_allowed", "This token may not use the requested model.",
     Outcome::rejected_model_not_allowed},
    {403, kInvalidRequest, "access_denied", "Access to this address is denied.", Outcome::rejected_access_denied},
    {400, kInvalidRequest, "invalid_json", "The request body is not valid.", Outcome::rejected_invalid_json},
    {400, kInvalidRequest, "bad_request", "The request is malformed.", Outcome::rejected_bad_request},
    {404, kInvalidRequest, "model_required", "The request needs a body with a non-empty 'model'.",
     Outcome::rejected_model_required},
    {404, kInvalidRequest, "model_not_found", "The requested model does not exist.",
     Outcome::rejected_model_not_found},
    {413, kInvalidRequest, "body_too_large", "The request body is too large.",
     Outcome::rejected_body_too_large},
    {415, kInvalidRequest, "unsupported_encoding", "A request body with Content-Encoding is not supported.",
     Outcome::rejected_unsupported_encoding},
    {429, kRateLimit, "threshold", "Too many of your requests are waiting already. Try again later.",
     Outcome::rejected_threshold},
    {429, kRateLimit, "max_running",
     "Your token has reached its limit of requests running at once. Try again later.",
     Outcome::rejected_max_running},
    {429, kRateLimit, "tokens_per_minute",
     "Your token has used up its tokens of this minute. Try again later.",
     Outcome::rejected_tokens_per_minute},
    {429, kRateLimit, "queue_full", "The queue is full. Try again later.", Outcome::rejected_queue_full},
    {429, kRateLimit, "queue_timeout", "The request waited in the queue for too long. Try again later.",
     Outcome::rejected_queue_timeout},
    {503, kServer, "no_engine", "No engine serves this model at the moment. Try again later.",
     Outcome::rejected_no_engine},
    {503, kServer, "auth_unavailable", "Tokens cannot be checked at the moment. Try again later.",
     Outcome::rejected_auth_unavailable},
    {502, kServer, "engine_error", "The engine failed to answer.", Outcome::engine_error},
    {504, kServer, "engine_timeout", "The engine did not answer in time.", Outcome::timeout},
    {408, kInvalidRequest, "request_timeout", "The request was not received in time.",
     Outcome::rejected_request_timeout},
    {404, kInvalidRequest, "not_found", "There is nothing at this address.", Outcome::rejected_not_found},
    {405, kInvalidRequest, "method_not_allowed", "This method is not allowed here.",
     Outcome::rejected_method_not_allowed},
    {500, kServer, "internal_error", "The gateway failed to process the request.",
     Outcome::rejected_internal_error},
    {503, kServer, "aborted", "An administrator has ended this request.", Outcome::cancelled_queued},
    {0, kInvalidRequest, "error", "The request cannot be processed.", Outcome::rejected_error},
};
static_assert(sizeof(kErrors) / sizeof(kErrors[0]) == static_cast<size_t>(ErrorCode::other) + 1);

constexpr size_t kOverhead = 128;  // braces, names and punctuation of the object

// What nginx itself refuses (limit_req, limit_conn, return) has any status.
std::string_view type_of(const ErrorInfo& info, ErrorCode code, ngx_int_t status) {
    if (code != ErrorCode::other) {
        return info.type;
    }
    return status >= 500 ? kServer : status == NGX_HTTP_TOO_MANY_REQUESTS ? kRateLimit : info.type;
}

void write_object(core::JsonWriter& out, const ErrorInfo& info, const Refusal& refusal, ngx_int_t status) {
    out.raw("{\"error\":{\"message\":")
        .string(refusal.detail.len != 0 ? view(refusal.detail) : info.message)
        .raw(",\"type\":")
        .string(type_of(info, refusal.code, status))
        .raw(",\"param\":");
    if (refusal.param.len != 0) {
        out.string(view(refusal.param));
    } else {
        out.raw("null");
    }
    out.raw(",\"code\":").string(info.code).raw("}}");
}

size_t object_size(const ErrorInfo& info, const Refusal& refusal) {
    return kOverhead + core::JsonWriter::escaped_size(view(refusal.detail)) +
           core::JsonWriter::escaped_size(info.message) + core::JsonWriter::escaped_size(view(refusal.param));
}

}  // namespace

const ErrorInfo& error_info(ErrorCode code) {
    return kErrors[static_cast<size_t>(code)];
}

ErrorCode code_of_status(ngx_int_t status) {
    switch (status) {
        case NGX_HTTP_UNAUTHORIZED:
            return ErrorCode::invalid_api_key;
        case NGX_HTTP_FORBIDDEN:
            return ErrorCode::access_denied;
        case NGX_HTTP_NOT_FOUND:
            return ErrorCode::not_found;
        case NGX_HTTP_NOT_ALLOWED:
            return ErrorCode::method_not_allowed;
        case NGX_HTTP_REQUEST_TIME_OUT:
            return ErrorCode::request_timeout;
        case NGX_HTTP_REQUEST_ENTITY_TOO_LARGE:
            return ErrorCode::body_too_large;
        case NGX_HTTP_BAD_REQUEST:
            return ErrorCode::bad_request;
        case NGX_HTTP_BAD_GATEWAY:
            return ErrorCode::engine_error;
        case NGX_HTTP_GATEWAY_TIME_OUT:
            return ErrorCode::engine_timeout;
        case NGX_HTTP_INTERNAL_SERVER_ERROR:
            return ErrorCode::internal_error;
        default:
            return ErrorCode::other;
    }
}

ErrorCode code_of_outcome(core::Outcome outcome) {
    for (size_t i = 1; i < sizeof(kErrors) / sizeof(kErrors[0]); ++i) {
        if (kErrors[i].outcome == outcome) {
            return static_cast<ErrorCode>(i);
        }
    }
    return ErrorCode::internal_error;
}

ngx_str_t error_body(ngx_pool_t* pool, const Refusal& refusal, ngx_int_t status) {
    const ErrorInfo& info = error_info(refusal.code);
    const size_t capacity = object_size(info, refusal);
    auto* buffer = static_cast<char*>(ngx_pnalloc(pool, capacity));
    if (buffer == nullptr) {
        return {0, nullptr};
    }
    core::JsonWriter out(buffer, capacity);
    write_object(out, info, refusal, status);
    return to_ngx(out.text());
}

ngx_str_t error_body(ngx_pool_t* pool, ErrorCode code) {
    Refusal refusal;
    refusal.code = code;
    return error_body(pool, refusal, error_info(code).status);
}

ngx_buf_t* event_buffer(ngx_pool_t* pool, const ngx_str_t& object) {
    constexpr std::string_view kBegin = "data: ";
    constexpr std::string_view kEnd = "\n\n";
    const size_t size = kBegin.size() + object.len + kEnd.size();
    auto* text = object.data != nullptr ? static_cast<u_char*>(ngx_pnalloc(pool, size)) : nullptr;
    if (text == nullptr) {
        return nullptr;
    }
    append_text(append_text(append_text(text, kBegin), view(object)), kEnd);
    ngx_buf_t* buffer = memory_buffer(pool, view({size, text}));
    if (buffer != nullptr) {
        buffer->flush = 1;
    }
    return buffer;
}

}  // namespace llm::nginx
