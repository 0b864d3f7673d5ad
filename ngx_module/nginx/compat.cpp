#include "ngx_module/nginx/compat.hpp"

#include "ngx_module/core/text/json_write.hpp"

namespace llm::nginx {
namespace {

ngx_str_t object(ngx_pool_t* pool, std::string_view before, std::string_view value, std::string_view after) {
    // the value stands inside a longer string: written with its quotes first, then without them
    const size_t escaped = core::JsonWriter::escaped_size(value);
    const size_t capacity = before.size() + escaped + after.size();
    auto* buffer = static_cast<char*>(ngx_pnalloc(pool, capacity + escaped));
    if (buffer == nullptr) {
        return ngx_null_string;
    }
    core::JsonWriter quoted(buffer + capacity, escaped);
    quoted.string(value);
    core::JsonWriter out(buffer, capacity);
    out.raw(before).raw(quoted.text().substr(1, escaped - 2)).raw(after);
    return to_ngx(out.text());
}

void set(Refusal& refusal, ngx_int_t status, std::string_view body) {
    refusal.compat_status = status;
    refusal.compat_body = to_ngx(body);
}

}  // namespace

void set_compat_answer(const Request& request, Refusal& refusal) {
    ngx_pool_t* pool = request.r->pool;
    // its web clients for people show the text of a 200 and hide errors
    const ngx_int_t busy_status = request.chat ? NGX_HTTP_OK : NGX_HTTP_SERVICE_UNAVAILABLE;
    switch (refusal.code) {
        case ErrorCode::invalid_api_key:
            return set(refusal, 401,
                       request.auth == AuthState::missing     ? R"({"error":"No token provided"})"
                       : request.auth == AuthState::malformed ? R"({"error":"Invalid token"})"
                                                              : R"({"error":"Unauthorized"})");
        case ErrorCode::invalid_json:
            if (view(refusal.param) == "routing-mode") {
                refusal.compat_status = 400;
                refusal.compat_body =
                    object(pool, R"({"object":"error","message":"local priority model: )",
                           view(refusal.compat_detail),
                           R"( not recognized: must either be 'any', 'private-first' or 'private-only'"})");
                return;
            }
            return set(refusal, 400, R"({"error":"Invalid JSON Body"})");
        case ErrorCode::model_required:
            return set(refusal, 404,
                       R"({"object":"error","message":"No model specified.","type":"NotFoundError"})");
        case ErrorCode::model_not_found:
            return set(refusal, 404, R"({"object":"error","error":"Unknown model"})");
        case ErrorCode::threshold:
        case ErrorCode::max_running:
        case ErrorCode::tokens_per_minute:
        case ErrorCode::queue_full:
        case ErrorCode::queue_timeout:
            return set(refusal, busy_status, R"({"error":"Too many people using the service"})");
        case ErrorCode::no_engine:
            refusal.compat_status = busy_status;
            refusal.compat_body =
                object(pool, R"({"error":")", view(request.model), R"( is busy, try again later"})");
            return;
        default:
            return;
    }
}

void set_compat_model_answer(ngx_http_request_t* r, std::string_view id, Refusal& refusal) {
    refusal.compat_status = 404;
    refusal.compat_body = object(r->pool, R"({"object":"error","message":"model )", id,
                                 R"( not found","type":"NotFoundError"})");
}

}  // namespace llm::nginx
