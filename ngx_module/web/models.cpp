// GET /v1/models and /v1/models/{id}, answered from the registered engines.
#include <ctime>
#include <memory>
#include <string>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/core/text/json_write.hpp"
#include "ngx_module/nginx/auth.hpp"
#include "ngx_module/nginx/compat.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/web/handlers.hpp"
#include "ngx_module/web/send.hpp"
#include "ngx_module/web/sent_name.hpp"

namespace llm::nginx::web {
namespace {

constexpr std::string_view kListing = "/v1/models";
constexpr std::string_view kJson = "application/json";

void append_string(std::string& out, std::string_view text) {
    const size_t size = core::JsonWriter::escaped_size(text);
    const size_t at = out.size();
    out.resize(at + size);
    core::JsonWriter(out.data() + at, size).string(text);
}

// `created` in OpenAI's objects: seconds since 1970. The zone keeps monotonic time. Rounded once, at the end:
// it is the same whenever it is asked for.
int64_t created_at(uint64_t created_us) {
    timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    const int64_t wall_us = int64_t{wall.tv_sec} * 1'000'000 + wall.tv_nsec / 1000;
    return (wall_us - (now_us() - static_cast<int64_t>(created_us))) / 1'000'000;
}

void append_model(std::string& out, const core::ModelView& model) {
    out += R"({"id":)";
    append_string(out, model.name);
    out += R"(,"object":"model","created":)";
    out += std::to_string(created_at(model.created_us));
    out += R"(,"owned_by":)";
    append_string(out, model.name);
    out += '}';
}

// The model at `index`, if some engine is registered for it and this client may use it.
bool visible_model(const core::ClientView& client, uint32_t index, core::ModelView& out) {
    bool found;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        found = core::model_view(lock, index, now, out);
    }
    return found && out.engines > 0 && core::client_may_use(client, out.name);
}

ngx_int_t send_list(ngx_http_request_t* r, const core::ClientView& client) {
    std::string body = R"({"object":"list","data":[)";
    bool first = true;
    const uint32_t count = core::model_count(zone());
    for (uint32_t i = 0; i < count; ++i) {
        core::ModelView model;
        if (visible_model(client, i, model)) {
            if (!first) {
                body += ',';
            }
            first = false;
            append_model(body, model);
        }
    }
    body += "]}";
    return send_copy(r, NGX_HTTP_OK, kJson, body);
}

ngx_int_t send_one(ngx_http_request_t* r, const core::ClientView& client, std::string_view id) {
    const uint32_t index = core::find_model(zone(), id);
    core::ModelView model;
    if (index == core::kNone || !visible_model(client, index, model)) {
        Request* request = get_request(r);
        Refusal refusal;
        refusal.code = ErrorCode::model_not_found;
        request->refusal = refusal;
        if (loc_conf(r).compat == kCompatAristote) {
            set_compat_model_answer(r, id, request->refusal);
        }
        return NGX_HTTP_NOT_FOUND;
    }
    std::string body;
    append_model(body, model);
    return send_copy(r, NGX_HTTP_OK, kJson, body);
}

}  // namespace

ngx_int_t models_handler(ngx_http_request_t* r) {
    Request* request = get_request(r);
    if (request == nullptr) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    const core::ClientView* client = client_of(*request);
    if (client == nullptr) {
        return refuse(*request, auth_error(*request));
    }
    std::string_view id = view(r->uri).substr(kListing.size());
    if (!id.empty()) {
        id.remove_prefix(1);
    }
    if (id.empty()) {
        return send_list(r, *client);
    }
    const std::string sent = sent_name(r, "/v1/models/");
    return send_one(r, *client, core::find_model(zone(), sent) != core::kNone ? std::string_view(sent) : id);
}

}  // namespace llm::nginx::web
