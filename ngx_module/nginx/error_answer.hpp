// Every refusal of the gateway: its status, its OpenAI error object, its headers.
//
// A handler refuses by noting a Refusal and returning its status. nginx then runs its own machinery
// (error_page, discarding the body, closing), and the response filter replaces the HTML that nginx would
// send. So error_page works, and what nginx raises by itself (413, 502, 403 of allow/deny) looks the same as
// what we raise.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstdint>
#include <string_view>

#include "ngx_module/core/types.hpp"

namespace llm::nginx {

enum class ErrorCode : uint8_t {
    none,
    invalid_api_key,
    model_not_allowed,
    access_denied,
    invalid_json,
    bad_request,
    model_required,
    model_not_found,
    body_too_large,
    unsupported_encoding,
    threshold,
    max_running,
    tokens_per_minute,
    queue_full,
    queue_timeout,
    no_engine,
    auth_unavailable,
    engine_error,
    engine_timeout,
    request_timeout,
    not_found,
    method_not_allowed,
    internal_error,
    aborted,
    other,
};

// Why a request is refused, and what the answer says besides.
struct Refusal {
    ErrorCode code = ErrorCode::none;
    ngx_str_t param = ngx_null_string;   // control key at fault
    ngx_str_t detail = ngx_null_string;  // more exact words for `message`
    uint32_t retry_after_ms = 0;         // 0 = no Retry-After
    bool should_retry = true;
    bool has_limits = false;  // x-ratelimit-*
    uint32_t limit_requests = 0;
    uint32_t remaining_requests = 0;
    uint32_t reset_ms = 0;
    // llm_compat aristote
    ngx_str_t compat_body = ngx_null_string;  // the exact answer, where that system has one
    ngx_int_t compat_status = 0;
    ngx_str_t compat_detail = ngx_null_string;  // the value at fault, for its message
};

struct ErrorInfo {
    ngx_int_t status;
    std::string_view type;
    std::string_view code;
    std::string_view message;
    core::Outcome outcome;
};

const ErrorInfo& error_info(ErrorCode code);

// The code for a status that nginx raised by itself in a dispatching location.
ErrorCode code_of_status(ngx_int_t status);

// The code for a rejection of the core.
ErrorCode code_of_outcome(core::Outcome outcome);

// The JSON body of a refusal, in the request's pool; data == nullptr when memory is short. `status` is what
// the client sees (it differs from the code's own when nginx chose it).
ngx_str_t error_body(ngx_pool_t* pool, const Refusal& refusal, ngx_int_t status);

// The body of a refusal of which there is no more to say than its code.
ngx_str_t error_body(ngx_pool_t* pool, ErrorCode code);

// Such an object as one server-sent event, for streams that have begun: "data: {…}\n\n", to be sent at once. nullptr
// when memory is short, also for the object itself.
ngx_buf_t* event_buffer(ngx_pool_t* pool, const ngx_str_t& object);

}  // namespace llm::nginx
