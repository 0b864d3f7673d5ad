// The directives: their table and what turns their words into configuration. Every refusal names the
// directive, the value and what is allowed; nginx adds file and line.
#include "ngx_module/nginx/ngx.hpp"

#include <charconv>
#include <cmath>
#include <cstdio>

#include "ngx_module/nginx/balancer.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/zone.hpp"
#include "ngx_module/web/handlers.hpp"

namespace llm::nginx {
namespace {

char* const kError = static_cast<char*>(NGX_CONF_ERROR);
char* const kDuplicate = const_cast<char*>("is duplicate");

ngx_str_t* words(ngx_conf_t* cf) {
    return static_cast<ngx_str_t*>(cf->args->elts);
}

char* refuse(ngx_conf_t* cf, const ngx_str_t& value, const char* allowed) {
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"%V\": invalid value \"%V\", %s", &words(cf)[0], &value,
                       allowed);
    return kError;
}

// The text after "name=" when the word begins so.
bool take_parameter(const ngx_str_t& word, std::string_view name, std::string_view& value) {
    const std::string_view text = view(word);
    if (!text.starts_with(name) || text.size() == name.size() || text[name.size()] != '=') {
        return false;
    }
    value = text.substr(name.size() + 1);
    return true;
}

template <class Integer>
bool parse_integer(std::string_view text, Integer& out) {
    const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
    return !text.empty() && result.ec == std::errc() && result.ptr == text.data() + text.size();
}

bool parse_milliseconds(std::string_view text, ngx_msec_t& out) {
    ngx_str_t copy = to_ngx(text);
    const ngx_int_t parsed = ngx_parse_time(&copy, 0);
    if (parsed == NGX_ERROR) {
        return false;
    }
    out = static_cast<ngx_msec_t>(parsed);
    return true;
}

// "file:PATH" read whole, the last newline dropped. Keys live in files so that the configuration can be shown
// around.
char* read_key_file(ngx_conf_t* cf, std::string_view source, std::string& out) {
    constexpr size_t kMaxKeyBytes = 4096;
    ngx_str_t path = copy_to_pool(cf->pool, source.substr(5));
    if (path.data == nullptr || ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
        return kError;
    }
    FILE* file = std::fopen(reinterpret_cast<const char*>(path.data), "re");
    if (file == nullptr) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno, "\"%V\": cannot open key file \"%V\"", &words(cf)[0],
                           &path);
        return kError;
    }
    char buffer[kMaxKeyBytes + 1];
    size_t size = std::fread(buffer, 1, sizeof(buffer), file);
    std::fclose(file);
    while (size > 0 && (buffer[size - 1] == '\n' || buffer[size - 1] == '\r')) {
        --size;
    }
    const std::string_view key(buffer, size);
    for (unsigned char c : key) {
        if (c <= 0x20 || c >= 0x7f) {
            size = 0;
        }
    }
    if (size == 0 || size > kMaxKeyBytes) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\": key file \"%V\" must hold one line of 1 to 4096 visible ASCII characters",
                           &words(cf)[0], &path);
        return kError;
    }
    out = key;
    return NGX_CONF_OK;
}

// --- scalars
// -------------------------------------------------------------------------------------------------------

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

// --- llm_zone
// --------------------------------------------------------------------------------------------------------

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

// --- where clients and engines come from
// ----------------------------------------------------------------------------

char* set_priority_db(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    if (options.clients_set) {
        return kDuplicate;
    }
    options.clients_set = true;
    ngx_msec_t refresh = 30'000;
    ngx_msec_t grace = 3'600'000;
    for (ngx_uint_t i = 2; i < cf->args->nelts; ++i) {
        std::string_view value;
        if (take_parameter(words(cf)[i], "refresh", value)) {
            if (!parse_milliseconds(value, refresh) || refresh < 100) {
                return refuse(cf, words(cf)[i], "refresh= expects a time of at least 100ms");
            }
        } else if (take_parameter(words(cf)[i], "grace", value)) {
            if (!parse_milliseconds(value, grace)) {
                return refuse(cf, words(cf)[i], "grace= expects a time such as 1h");
            }
        } else {
            return refuse(cf, words(cf)[i], "allowed parameters: refresh=TIME, grace=TIME");
        }
    }
    ngx_str_t source = words(cf)[1];
    if (view(source).starts_with("file:")) {
        ngx_str_t path = copy_to_pool(cf->pool, view(source).substr(5));
        if (path.data == nullptr) {
            return kError;
        }
        if (path.len == 0) {
            return refuse(cf, words(cf)[1], "file: needs a path");
        }
        if (ngx_conf_full_name(cf->cycle, &path, 1) != NGX_OK) {
            return kError;
        }
        source = copy_to_pool(cf->pool, "file:" + std::string(view(path)));
        if (source.data == nullptr) {
            return kError;
        }
    }
    const std::string problem = sources::parse_client_source(view(source), refresh, grace, options.clients);
    if (!problem.empty()) {
        // the value may hold a password: it is not repeated
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"llm_priority_db\": %s", problem.c_str());
        return kError;
    }
    return NGX_CONF_OK;
}

char* set_redis(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    if (options.redis_set) {
        return kDuplicate;
    }
    options.redis_set = true;
    const std::string problem = parse_redis_url(view(words(cf)[1]), options.redis.url);
    if (!problem.empty()) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"llm_redis\": invalid URL: %s", problem.c_str());
        return kError;
    }
    options.redis.prefix = "llm:";
    if (cf->args->nelts == 3) {
        std::string_view value;
        if (!take_parameter(words(cf)[2], "prefix", value)) {
            return refuse(cf, words(cf)[2], "the only parameter is prefix=TEXT");
        }
        options.redis.prefix = value;
    }
    return NGX_CONF_OK;
}

char* resolve_engine(ngx_conf_t* cf, StaticEngine& engine) {
    const bool tls = engine.url.starts_with("https://");
    if (!tls && !engine.url.starts_with("http://")) {
        return refuse(cf, words(cf)[1], "expected http(s)://host[:port]");
    }
    const std::string_view authority = std::string_view(engine.url).substr(tls ? 8 : 7);
    if (authority.empty() || authority.find_first_of("/?#@ ") != std::string_view::npos) {
        return refuse(cf, words(cf)[1], "expected http(s)://host[:port], without a path");
    }
    ngx_url_t url;
    ngx_memzero(&url, sizeof(url));
    url.url = copy_to_pool(cf->pool, authority);
    url.default_port = tls ? 443 : 80;
    if (url.url.data == nullptr) {
        return kError;
    }
    if (ngx_parse_url(cf->pool, &url) != NGX_OK || url.naddrs == 0) {
        return refuse(cf, words(cf)[1], url.err != nullptr ? url.err : "the host has no address");
    }
    if (url.addrs[0].socklen > sizeof(engine.address)) {
        return refuse(cf, words(cf)[1], "the address is too long");
    }
    ngx_memcpy(&engine.address, url.addrs[0].sockaddr, url.addrs[0].socklen);
    engine.address_len = url.addrs[0].socklen;
    if (engine.id.empty()) {
        engine.id = authority;
    }
    return NGX_CONF_OK;
}

bool split_models(std::string_view list, std::vector<std::string>& out) {
    while (true) {
        const size_t comma = list.find(',');
        const std::string_view name = list.substr(0, comma);
        if (name.empty() || name.size() > 255) {
            return false;
        }
        out.emplace_back(name);
        if (comma == std::string_view::npos) {
            return true;
        }
        list.remove_prefix(comma + 1);
    }
}

char* add_engine(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    StaticEngine engine;
    engine.url = view(words(cf)[1]);
    for (ngx_uint_t i = 2; i < cf->args->nelts; ++i) {
        const ngx_str_t& word = words(cf)[i];
        std::string_view value;
        if (take_parameter(word, "model", value)) {
            if (!split_models(value, engine.models)) {
                return refuse(cf, word, "model= expects names of 1 to 255 bytes, divided by commas");
            }
        } else if (take_parameter(word, "id", value)) {
            if (value.empty() || value.size() > 127) {
                return refuse(cf, word, "id= expects 1 to 127 bytes");
            }
            engine.id = value;
        } else if (take_parameter(word, "max_running", value)) {
            if (!parse_integer(value, engine.max_running) || engine.max_running == 0 ||
                engine.max_running > 1'000'000) {
                return refuse(cf, word, "max_running= expects a number in 1..1000000");
            }
        } else if (take_parameter(word, "org", value)) {
            if (value.size() > 127) {
                return refuse(cf, word, "org= expects at most 127 bytes");
            }
            engine.org = value;
        } else if (take_parameter(word, "key", value)) {
            if (value.starts_with("file:")) {
                if (read_key_file(cf, value, engine.key) != NGX_CONF_OK) {
                    return kError;
                }
            } else {
                engine.key = value;
            }
        } else if (view(word) == "backup") {
            engine.backup = true;
        } else {
            return refuse(cf, word, "allowed parameters: model=, id=, max_running=, org=, key=, backup");
        }
    }
    if (engine.models.empty()) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "\"llm_engine\": model= is missing for \"%V\"",
                           &words(cf)[1]);
        return kError;
    }
    if (resolve_engine(cf, engine) != NGX_CONF_OK) {
        return kError;
    }
    for (const StaticEngine& other : options.engines) {
        if (other.id == engine.id) {
            ngx_conf_log_error(
                NGX_LOG_EMERG, cf, 0,
                "\"llm_engine\": duplicate id \"%s\"; give each its own id=", engine.id.c_str());
            return kError;
        }
    }
    options.engines.push_back(std::move(engine));
    return NGX_CONF_OK;
}

char* add_engine_key(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    EngineKey key;
    key.glob = view(words(cf)[1]);
    if (!view(words(cf)[2]).starts_with("file:")) {
        return refuse(cf, words(cf)[2], "expected file:PATH");
    }
    if (read_key_file(cf, view(words(cf)[2]), key.key) != NGX_CONF_OK) {
        return kError;
    }
    options.engine_keys.push_back(std::move(key));
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
    if (!take_parameter(words(cf)[2], "model", model) || model.empty() || model.size() > 255) {
        return refuse(cf, words(cf)[2], "the only parameter is model=NAME");
    }
    for (const auto& [name, ignored] : options.min_throughput_by_model) {
        if (name == model) {
            return kDuplicate;
        }
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

// --- handlers
// ----------------------------------------------------------------------------------------------------------

char* set_handler(ngx_conf_t* cf, void* conf, Handler handler, ngx_http_handler_pt function) {
    auto* loc = static_cast<LocConf*>(conf);
    if (loc->handler != kNoHandler) {
        return kDuplicate;
    }
    loc->handler = handler;
    auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    core->handler = function;
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
    return set_handler(cf, conf, handler, web::status_handler);
}

// --- tables
// --------------------------------------------------------------------------------------------------------

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
    {LLM_NAME("throughput", core::RoutingPolicy::throughput),
     LLM_NAME("least_running", core::RoutingPolicy::least_running),
     LLM_NAME("round_robin", core::RoutingPolicy::round_robin),
     LLM_NAME("prefix", core::RoutingPolicy::prefix), LLM_NAME("random", core::RoutingPolicy::random), kEnd}};
EnumSpec client_priority_spec = {
    "allowed: lower, ignore",
    {LLM_NAME("lower", core::ClientPriority::lower), LLM_NAME("ignore", core::ClientPriority::ignore), kEnd}};
EnumSpec engine_priority_spec = {
    "allowed: off, vllm", {LLM_NAME("off", kEnginePriorityOff), LLM_NAME("vllm", kEnginePriorityVllm), kEnd}};
EnumSpec compat_spec = {"allowed: aristote, off",
                        {LLM_NAME("aristote", kCompatAristote), LLM_NAME("off", kCompatOff), kEnd}};
#undef LLM_NAME

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
    ngx_null_command,
};

}  // namespace llm::nginx
