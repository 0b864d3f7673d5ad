// The directives: their table and what turns their words into configuration. Every refusal names the
// directive, the value and what is allowed; nginx adds file and line.
#include "ngx_module/nginx/ngx.hpp"

#include <cmath>

#include "ngx_module/nginx/balancer.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/conf_words.hpp"
#include "ngx_module/nginx/source_directives.hpp"
#include "ngx_module/nginx/test_faults.hpp"
#include "ngx_module/nginx/zone.hpp"
#include "ngx_module/web/handlers.hpp"

namespace llm::nginx {
namespace {

// ---- scalars ----------------------------------------------------------------------------------------------

struct EnumSpec {
    const char* allowed;  // for the error message
    ngx_conf_enum_t values[8];
};

char* set_enum(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* field = reinterpret_cast<ngx_uint_t*>(static_cast<char*>(conf) + cmd->offset);
    if (*field != NGX_CONF_UNSET_UINT) {
        return kDuplicate;
    }
    const auto* spec = static_cast<const EnumSpec*>(cmd->post);
    const std::string_view word = view(words(cf)[1]);
    for (const ngx_conf_enum_t* value = spec->values; value->name.len != 0; ++value) {
        if (view(value->name) == word) {
            *field = value->value;
            return NGX_CONF_OK;
        }
    }
    return refuse(cf, words(cf)[1], spec->allowed);
}

char* set_flag(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* field = reinterpret_cast<ngx_flag_t*>(static_cast<char*>(conf) + cmd->offset);
    if (*field != NGX_CONF_UNSET) {
        return kDuplicate;
    }
    const std::string_view word = view(words(cf)[1]);
    if (word != "on" && word != "off") {
        return refuse(cf, words(cf)[1], "allowed: on, off");
    }
    *field = word == "on";
    return NGX_CONF_OK;
}

char* set_time(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* field = reinterpret_cast<ngx_msec_t*>(static_cast<char*>(conf) + cmd->offset);
    if (*field != NGX_CONF_UNSET_MSEC) {
        return kDuplicate;
    }
    ngx_msec_t value = 0;
    if (!parse_milliseconds(view(words(cf)[1]), value) || value == 0) {
        return refuse(cf, words(cf)[1], "expected a time above 0, such as 500ms, 60s or 5m");
    }
    *field = value;
    return NGX_CONF_OK;
}

char* set_time_or_off(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* field = reinterpret_cast<ngx_msec_t*>(static_cast<char*>(conf) + cmd->offset);
    if (*field != NGX_CONF_UNSET_MSEC) {
        return kDuplicate;
    }
    if (view(words(cf)[1]) == "off") {
        *field = 0;
        return NGX_CONF_OK;
    }
    ngx_msec_t value = 0;
    if (!parse_milliseconds(view(words(cf)[1]), value) || value == 0) {
        return refuse(cf, words(cf)[1], "expected a time above 0, such as 30s, or off");
    }
    *field = value;
    return NGX_CONF_OK;
}

char* set_queue_size(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* main = static_cast<MainConf*>(conf);
    if (main->queue_size != NGX_CONF_UNSET_UINT) {
        return kDuplicate;
    }
    uint32_t value = 0;
    if (!parse_integer(view(words(cf)[1]), value) || value == 0) {
        return refuse(cf, words(cf)[1], "expected a number of requests, at least 1");
    }
    main->queue_size = value;
    main->options->queue_size_place = place_of(cf);
    return NGX_CONF_OK;
}

char* set_retries(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* loc = static_cast<LocConf*>(conf);
    if (loc->retries != NGX_CONF_UNSET) {
        return kDuplicate;
    }
    uint32_t value = 0;
    if (!parse_integer(view(words(cf)[1]), value) || value > 100) {
        return refuse(cf, words(cf)[1], "expected a number in 0..100");
    }
    loc->retries = value;
    return NGX_CONF_OK;
}

// ---- the others of http{} ---------------------------------------------------------------------------------

char* set_zone(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* main = static_cast<MainConf*>(conf);
    if (main->zone_name.data != nullptr) {
        return kDuplicate;
    }
    const ssize_t size = ngx_parse_size(&words(cf)[2]);
    if (size == NGX_ERROR) {
        return refuse(cf, words(cf)[2], "expected a size such as 64m");
    }
    if (words(cf)[1].len == 0) {
        return refuse(cf, words(cf)[1], "the zone needs a name");
    }
    const std::string problem = check_zone_size(static_cast<size_t>(size));
    if (!problem.empty()) {
        return refuse(cf, words(cf)[2], problem.c_str());
    }
    main->zone_name = words(cf)[1];
    main->zone_size = static_cast<size_t>(size);
    return NGX_CONF_OK;
}

char* set_min_throughput(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    const std::string text(view(words(cf)[1]));
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    if (text.empty() || end != text.c_str() + text.size() || !std::isfinite(value) || value < 0 ||
        value > 1e5 || text.find_first_not_of("0123456789.") != std::string::npos) {
        return refuse(cf, words(cf)[1], "expected tokens per second in 0..100000 (0 = off)");
    }
    if (cf->args->nelts == 2) {
        if (options.min_throughput_set) {
            return kDuplicate;
        }
        options.min_throughput = value;
        options.min_throughput_set = true;
        return NGX_CONF_OK;
    }
    std::string_view model;
    if (!take_parameter(words(cf)[2], "model", model) || model.empty() || model.size() > core::kMaxModelBytes) {
        return refuse(cf, words(cf)[2], "the only parameter is model=NAME, of 1 to 255 bytes");
    }
    for (const auto& [name, ignored] : options.min_throughput_by_model) {
        if (name == model) {
            return kDuplicate;
        }
    }
    if (options.min_throughput_by_model.size() == core::kMaxThroughputRules) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"llm_min_throughput\": more than %uD lines with model=",
                           core::kMaxThroughputRules);
        return kError;
    }
    options.min_throughput_by_model.emplace_back(model, value);
    return NGX_CONF_OK;
}

char* set_usage(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    auto* main = static_cast<MainConf*>(conf);
    if (main->usage != NGX_CONF_UNSET_UINT) {
        return kDuplicate;
    }
    const std::string_view word = view(words(cf)[1]);
    main->options->usage_place = place_of(cf);
    if (word == "on") {
        main->usage = kUsageOn;
    } else if (word == "off") {
        main->usage = kUsageOff;
    } else if (word.starts_with("postgresql://") || word.starts_with("postgres://")) {
        main->usage = kUsageUrl;
        main->options->usage_url = word;
    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"llm_usage\": invalid value, allowed: on, off, postgresql://…");
        return kError;
    }
    return NGX_CONF_OK;
}

// ---- handlers ---------------------------------------------------------------------------------------------

char* set_handler(ngx_conf_t* cf, void* conf, Handler handler, ngx_http_handler_pt function) {
    auto* loc = static_cast<LocConf*>(conf);
    if (loc->handler != kNoHandler) {
        return kDuplicate;
    }
    loc->handler = handler;
    auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    loc->handle = core->handler = function;
    loc->path = core->name;
    return NGX_CONF_OK;
}

char* set_health(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    return set_handler(cf, conf, kHealth, web::health_handler);
}

char* set_metrics(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    return set_handler(cf, conf, kMetrics, web::metrics_handler);
}

char* set_status(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Handler handler = kStatus;
    if (cf->args->nelts == 2) {
        const std::string_view word = view(words(cf)[1]);
        if (word == "admin") {
            handler = kStatusAdmin;
        } else if (word != "readonly") {
            return refuse(cf, words(cf)[1], "allowed: readonly, admin");
        }
    }
    // "/llm" of `location /llm/` is sent on to "/llm/", as nginx does before a proxied location
    auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    core->auto_redirect = view(core->name).ends_with('/') ? 1 : 0;
    return set_handler(cf, conf, handler, web::status_handler);
}

// ---- tables -----------------------------------------------------------------------------------------------

#define LLM_POLICY(value) \
    { to_ngx(core::name_of(core::RoutingPolicy::value)), static_cast<ngx_uint_t>(core::RoutingPolicy::value) }
#define LLM_NAME(text, value) \
    { ngx_string(text), static_cast<ngx_uint_t>(value) }
constexpr ngx_conf_enum_t kEnd = {ngx_null_string, 0};

EnumSpec scheduler_spec = {
    "allowed: weighted, strict",
    {LLM_NAME("weighted", core::Scheduler::weighted), LLM_NAME("strict", core::Scheduler::strict), kEnd}};
EnumSpec scope_spec = {
    "allowed: token, queue",
    {LLM_NAME("token", core::ThresholdScope::token), LLM_NAME("queue", core::ThresholdScope::queue), kEnd}};
EnumSpec routing_spec = {
    "allowed: throughput, least_running, round_robin, prefix, random",
    {LLM_POLICY(throughput), LLM_POLICY(least_running), LLM_POLICY(round_robin), LLM_POLICY(prefix),
     LLM_POLICY(random), kEnd}};
EnumSpec client_priority_spec = {
    "allowed: lower, ignore",
    {LLM_NAME("lower", core::ClientPriority::lower), LLM_NAME("ignore", core::ClientPriority::ignore), kEnd}};
EnumSpec engine_priority_spec = {
    "allowed: off, vllm", {LLM_NAME("off", kEnginePriorityOff), LLM_NAME("vllm", kEnginePriorityVllm), kEnd}};
EnumSpec compat_spec = {"allowed: aristote, off",
                        {LLM_NAME("aristote", kCompatAristote), LLM_NAME("off", kCompatOff), kEnd}};
#undef LLM_NAME
#undef LLM_POLICY

constexpr ngx_uint_t kEverywhere = NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF;

}  // namespace

ngx_command_t kCommands[] = {
    {ngx_string("llm_zone"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE2, set_zone, NGX_HTTP_MAIN_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_dispatch"), kEverywhere | NGX_CONF_TAKE1, set_flag, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, dispatch), nullptr},
    {ngx_string("llm_balance"), NGX_HTTP_UPS_CONF | NGX_CONF_NOARGS, set_balance, 0, 0, nullptr},
    {ngx_string("llm_priority_db"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, set_priority_db,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("llm_redis"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE12, set_redis, NGX_HTTP_MAIN_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_engine"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, add_engine, NGX_HTTP_MAIN_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_engine_key"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE2, add_engine_key,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("llm_model"), kEverywhere | NGX_CONF_TAKE1, ngx_http_set_complex_value_slot,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, model), nullptr},
    {ngx_string("llm_scheduler"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_enum, NGX_HTTP_MAIN_CONF_OFFSET,
     offsetof(MainConf, scheduler), &scheduler_spec},
    {ngx_string("llm_aging"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_time_or_off, NGX_HTTP_MAIN_CONF_OFFSET,
     offsetof(MainConf, aging), nullptr},
    {ngx_string("llm_min_throughput"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE12, set_min_throughput,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("llm_queue_timeout"), kEverywhere | NGX_CONF_TAKE1, set_time, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, queue_timeout), nullptr},
    {ngx_string("llm_queue_size"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_queue_size,
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
    {ngx_string("llm_threshold_scope"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_enum,
     NGX_HTTP_MAIN_CONF_OFFSET, offsetof(MainConf, threshold_scope), &scope_spec},
    {ngx_string("llm_routing"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_enum, NGX_HTTP_MAIN_CONF_OFFSET,
     offsetof(MainConf, routing), &routing_spec},
    {ngx_string("llm_client_priority"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_enum,
     NGX_HTTP_MAIN_CONF_OFFSET, offsetof(MainConf, client_priority), &client_priority_spec},
    {ngx_string("llm_engine_priority"), kEverywhere | NGX_CONF_TAKE1, set_enum, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, engine_priority), &engine_priority_spec},
    {ngx_string("llm_usage_inject"), kEverywhere | NGX_CONF_TAKE1, set_flag, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, usage_inject), nullptr},
    {ngx_string("llm_retries"), kEverywhere | NGX_CONF_TAKE1, set_retries, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_queue_keepalive"), kEverywhere | NGX_CONF_TAKE1, set_time_or_off,
     NGX_HTTP_LOC_CONF_OFFSET, offsetof(LocConf, queue_keepalive), nullptr},
    {ngx_string("llm_usage"), NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1, set_usage, NGX_HTTP_MAIN_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_compat"), kEverywhere | NGX_CONF_TAKE1, set_enum, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, compat), &compat_spec},
    {ngx_string("llm_observe"), kEverywhere | NGX_CONF_TAKE1, set_flag, NGX_HTTP_LOC_CONF_OFFSET,
     offsetof(LocConf, observe), nullptr},
    {ngx_string("llm_health"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_health, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_metrics"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS, set_metrics, NGX_HTTP_LOC_CONF_OFFSET, 0,
     nullptr},
    {ngx_string("llm_status"), NGX_HTTP_LOC_CONF | NGX_CONF_NOARGS | NGX_CONF_TAKE1, set_status,
     NGX_HTTP_LOC_CONF_OFFSET, 0, nullptr},
    LLM_TEST_DIRECTIVES
    ngx_null_command,
};

}  // namespace llm::nginx
