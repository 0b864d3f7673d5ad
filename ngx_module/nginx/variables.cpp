#include "ngx_module/nginx/variables.hpp"

#include <algorithm>

#include "ngx_module/nginx/auth.hpp"
#include "ngx_module/nginx/body.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

void set_none(ngx_http_variable_value_t* value) {
    value->not_found = 1;
    value->valid = 0;
    value->len = 0;
    value->data = nullptr;
}

ngx_int_t set_text(ngx_http_variable_value_t* value, const ngx_str_t& text) {
    value->valid = 1;
    value->no_cacheable = 1;
    value->not_found = 0;
    value->len = static_cast<unsigned>(text.len);
    value->data = text.data;
    return NGX_OK;
}

// Text from a client's body or another's report: a line break in it must not end the header that somebody
// writes with the variable.
ngx_int_t set_foreign_text(ngx_http_request_t* r, ngx_http_variable_value_t* value, const ngx_str_t& text) {
    const auto is_control = [](u_char c) { return c < 0x20 || c == 0x7f; };
    if (std::none_of(text.data, text.data + text.len, is_control)) {
        return set_text(value, text);
    }
    const ngx_str_t shown = copy_to_pool(r->pool, view(text));
    if (shown.data == nullptr) {
        return NGX_ERROR;
    }
    std::replace_if(shown.data, shown.data + shown.len, is_control, u_char{'?'});
    return set_text(value, shown);
}

ngx_int_t set_number(ngx_http_request_t* r, ngx_http_variable_value_t* value, int64_t number) {
    auto* text = static_cast<u_char*>(ngx_pnalloc(r->pool, NGX_INT64_LEN));
    if (text == nullptr) {
        return NGX_ERROR;
    }
    const u_char* end = ngx_sprintf(text, "%L", number);
    return set_text(value, {static_cast<size_t>(end - text), text});
}

// What a variable shows; `index` in the table below.
enum Shown : uintptr_t {
    kClient,
    kOrg,
    kModel,
    kPriority,
    kStream,
    kQueueMs,
    kQueuePosition,
    kEngine,
    kEngineId,
    kAttempts,
    kTtftMs,
    kPromptTokens,
    kCompletionTokens,
    kOutcome,
};

ngx_int_t show_scanned(const Request& request, ngx_http_variable_value_t* value, Shown what) {
    switch (what) {
        case kModel:
            return set_foreign_text(request.r, value, request.model);
        case kStream:
            return set_text(value, to_ngx(request.stream ? "1" : "0"));
        default:
            return set_number(request.r, value, request.priority);
    }
}

uint32_t queue_position(const Request& request) {
    if (request.stage != Stage::queued) {
        return request.position;
    }
    core::ZoneLock lock(zone());
    return core::queue_position(lock, request.ticket);
}

ngx_int_t show_dispatched(const Request& request, ngx_http_variable_value_t* value, Shown what) {
    switch (what) {
        case kEngine:
            return set_foreign_text(request.r, value, request.target.url);
        case kEngineId:
            return set_foreign_text(request.r, value, request.target.id);
        case kAttempts:
            return set_number(request.r, value, request.attempts);
        case kTtftMs:
            if (request.first_token_us == 0) {
                break;
            }
            return set_number(request.r, value, (request.first_token_us - request.arrived_us) / 1000);
        case kPromptTokens:
            return set_number(request.r, value, request.usage.prompt_tokens);
        default:
            return set_number(request.r, value, request.usage.completion_tokens);
    }
    set_none(value);
    return NGX_OK;
}

ngx_int_t get_identity(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t data) {
    Request* request = make_request(r);
    if (request == nullptr || !authenticate(*request)) {
        return NGX_ERROR;
    }
    const ngx_str_t& text = data == kClient ? request->client : request->organisation;
    if (text.len == 0) {
        set_none(value);
        return NGX_OK;
    }
    return set_foreign_text(r, value, text);
}

ngx_int_t get_value(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t data) {
    const auto what = static_cast<Shown>(data);
    const Request* request = get_request(r);
    set_none(value);
    if (request == nullptr) {
        return NGX_OK;
    }
    if (what == kOutcome) {
        core::Outcome outcome;
        return final_outcome(*request, outcome) ? set_text(value, to_ngx(core::outcome_name(outcome)))
                                                : NGX_OK;
    }
    if (what == kModel || what == kStream) {
        return request->scanned ? show_scanned(*request, value, what) : NGX_OK;
    }
    if (request->submitted_us == 0 && request->stage != Stage::bypass) {
        return NGX_OK;
    }
    switch (what) {
        case kPriority:
            return request->submitted_us != 0 ? show_scanned(*request, value, what) : NGX_OK;
        case kQueueMs:
            return set_number(r, value, queue_ms(*request));
        case kQueuePosition:
            return set_number(r, value, queue_position(*request));
        default:
            return request->target.engine != core::kNone ? show_dispatched(*request, value, what) : NGX_OK;
    }
}

// nginx's own default of the Host header.
ngx_int_t get_proxy_host(ngx_http_request_t* r, ngx_http_variable_value_t* value) {
    const ngx_http_variable_value_t* host =
        ngx_http_get_flushed_variable(r, static_cast<ngx_uint_t>(main_conf(r).proxy_host));
    if (host == nullptr || host->not_found) {
        set_none(value);
        return NGX_OK;
    }
    return set_text(value, {host->len, host->data});
}

// The Host header of every request to an engine, asked for twice: shorter than the way of the others. Subrequests
// (auth_request, mirror) go elsewhere, but their locations may inherit llm_dispatch and with it the default header.
ngx_int_t get_engine_host(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t) {
    const Request* request = r == r->main ? get_request(r) : nullptr;
    if (request == nullptr || request->target.engine == core::kNone) {
        return get_proxy_host(r, value);
    }
    return set_text(value, request->target.host);
}

// SHA-256 of the body: the key of a response cache for deterministic requests.
ngx_int_t get_body_hash(ngx_http_request_t* r, ngx_http_variable_value_t* value, uintptr_t) {
    set_none(value);
    if (r->main->request_body == nullptr || r->main->request_body->bufs == nullptr) {
        return NGX_OK;
    }
    ngx_str_t digest;
    return hash_body(r->main, digest) ? set_text(value, digest) : NGX_OK;
}

struct Variable {
    std::string_view name;
    ngx_http_get_variable_pt get;
    uintptr_t data;
};

constexpr Variable kVariables[] = {
    {"llm_client", get_identity, kClient},
    {"llm_org", get_identity, kOrg},
    {"llm_model", get_value, kModel},
    {"llm_priority", get_value, kPriority},
    {"llm_stream", get_value, kStream},
    {"llm_queue_ms", get_value, kQueueMs},
    {"llm_queue_position", get_value, kQueuePosition},
    {"llm_engine", get_value, kEngine},
    {"llm_engine_id", get_value, kEngineId},
    {"llm_engine_host", get_engine_host, 0},
    {"llm_attempts", get_value, kAttempts},
    {"llm_ttft_ms", get_value, kTtftMs},
    {"llm_prompt_tokens", get_value, kPromptTokens},
    {"llm_completion_tokens", get_value, kCompletionTokens},
    {"llm_outcome", get_value, kOutcome},
    {"llm_body_hash", get_body_hash, 0},
};

}  // namespace

ngx_int_t add_variables(ngx_conf_t* cf) {
    auto* conf = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_dispatch_module));
    ngx_str_t proxy_host = to_ngx("proxy_host");
    conf->proxy_host = ngx_http_get_variable_index(cf, &proxy_host);
    if (conf->proxy_host == NGX_ERROR) {
        return NGX_ERROR;
    }
    for (const Variable& variable : kVariables) {
        ngx_str_t name = to_ngx(variable.name);
        ngx_http_variable_t* added = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
        if (added == nullptr) {
            return NGX_ERROR;
        }
        added->get_handler = variable.get;
        added->data = variable.data;
    }
    return NGX_OK;
}

}  // namespace llm::nginx
