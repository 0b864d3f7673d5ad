// The module as nginx sees it: configuration contexts, phases, process hooks. No logic lives here.
#include "ngx_module/nginx/ngx.hpp"

#include <new>

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/error_answer.hpp"
#include "ngx_module/nginx/proxy_defaults.hpp"
#include "ngx_module/nginx/request.hpp"
#include "ngx_module/nginx/response_filter.hpp"
#include "ngx_module/nginx/variables.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/nginx/zone.hpp"

namespace llm::nginx {
namespace {

void destroy_options(void* data) {
    static_cast<Options*>(data)->~Options();
}

void* create_main_conf(ngx_conf_t* cf) {
    auto* conf = static_cast<MainConf*>(ngx_pcalloc(cf->pool, sizeof(MainConf)));
    ngx_pool_cleanup_t* cleanup = ngx_pool_cleanup_add(cf->pool, sizeof(Options));
    if (conf == nullptr || cleanup == nullptr) {
        return nullptr;
    }
    conf->options = new (cleanup->data) Options();
    cleanup->handler = destroy_options;
    cleanup->data = conf->options;

    conf->aging = NGX_CONF_UNSET_MSEC;
    conf->scheduler = NGX_CONF_UNSET_UINT;
    conf->queue_size = NGX_CONF_UNSET_UINT;
    conf->threshold_scope = NGX_CONF_UNSET_UINT;
    conf->routing = NGX_CONF_UNSET_UINT;
    conf->client_priority = NGX_CONF_UNSET_UINT;
    conf->usage = NGX_CONF_UNSET_UINT;
    return conf;
}

char* init_main_conf(ngx_conf_t* cf, void* data) {
    auto* conf = static_cast<MainConf*>(data);
    ngx_conf_init_msec_value(conf->aging, 30000);
    ngx_conf_init_uint_value(conf->scheduler, 0);
    ngx_conf_init_uint_value(conf->queue_size, 0);
    ngx_conf_init_uint_value(conf->threshold_scope, 0);
    ngx_conf_init_uint_value(conf->routing, 0);
    ngx_conf_init_uint_value(conf->client_priority, 0);
    ngx_conf_init_uint_value(conf->usage, kUsageOff);
    // Directives that only tune what others bring into being do not count.
    const Options& options = *conf->options;
    conf->in_use = conf->in_use || conf->zone_name.data != nullptr || !options.engines.empty() ||
                   options.clients_set || options.redis_set || conf->usage != kUsageOff ||
                   conf->queue_size != 0;
    if (conf->zone_name.data == nullptr) {
        conf->zone_name = to_ngx("llm");
        conf->zone_size = kDefaultZoneSize;
    }
    // `cf` stands at http level here, the top of every chain of levels
    auto* http_level =
        static_cast<LocConf*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_llm_dispatch_module));
    http_level->proxy_level = {nullptr, current_proxy_conf(cf)};
    return NGX_CONF_OK;
}

void* create_loc_conf(ngx_conf_t* cf) {
    auto* conf = static_cast<LocConf*>(ngx_pcalloc(cf->pool, sizeof(LocConf)));
    if (conf == nullptr) {
        return nullptr;
    }
    conf->dispatch = NGX_CONF_UNSET;
    conf->queue_timeout = NGX_CONF_UNSET_MSEC;
    conf->engine_priority = NGX_CONF_UNSET_UINT;
    conf->usage_inject = NGX_CONF_UNSET;
    conf->retries = NGX_CONF_UNSET;
    conf->queue_keepalive = NGX_CONF_UNSET_MSEC;
    conf->compat = NGX_CONF_UNSET_UINT;
    conf->observe = NGX_CONF_UNSET;
    return conf;
}

char* merge_loc_conf(ngx_conf_t* cf, void* parent_data, void* child_data) {
    auto* parent = static_cast<LocConf*>(parent_data);
    auto* child = static_cast<LocConf*>(child_data);
    ngx_conf_merge_value(child->dispatch, parent->dispatch, 0);
    if (child->model == nullptr) {
        child->model = parent->model;
    }
    ngx_conf_merge_msec_value(child->queue_timeout, parent->queue_timeout, 60000);
    ngx_conf_merge_uint_value(child->engine_priority, parent->engine_priority, kEnginePriorityOff);
    ngx_conf_merge_value(child->usage_inject, parent->usage_inject, 0);
    ngx_conf_merge_value(child->retries, parent->retries, 1);
    ngx_conf_merge_msec_value(child->queue_keepalive, parent->queue_keepalive, 0);
    ngx_conf_merge_uint_value(child->compat, parent->compat, kCompatOff);
    ngx_conf_merge_value(child->observe, parent->observe, 0);

    child->proxy_level = {&parent->proxy_level, current_proxy_conf(cf)};
    auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    if (core->noname && child->handler == kNoHandler) {
        // `if` and limit_except change a location, they are none
        child->handler = parent->handler;
        child->handle = parent->handle;
        child->path = parent->path;
        if (core->lmt_excpt && core->handler == nullptr) {
            core->handler = child->handle;  // nginx takes none from the location around it
        }
    }
    if (child->handler != kNoHandler) {
        child->dispatch = 0;  // an inherited llm_dispatch means the locations that proxy
    }
    auto* main = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_dispatch_module));
    if (child->dispatch || child->handler != kNoHandler) {
        main->in_use = true;
    }
    // Only locations proxy: a server's own level is left alone, so that its other locations keep nginx's
    // defaults.
    const bool is_location = core->name.len != 0 || core->noname;
    if (!child->dispatch || !is_location) {
        return NGX_CONF_OK;
    }
    note_queue_timeout(cf, *main, *child);
    return set_proxy_defaults(cf, child->proxy_level, core->name);
}

ngx_int_t add_phase_handler(ngx_conf_t* cf, ngx_http_phases phase, ngx_http_handler_pt handler) {
    auto* core =
        static_cast<ngx_http_core_main_conf_t*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module));
    auto* slot = static_cast<ngx_http_handler_pt*>(ngx_array_push(&core->phases[phase].handlers));
    if (slot == nullptr) {
        return NGX_ERROR;
    }
    *slot = handler;
    return NGX_OK;
}

// `llm_usage on` writes to the database that the clients come from.
std::string prepare_usage(ngx_conf_t* cf, const MainConf& conf) {
    Options& options = *conf.options;
    if (conf.usage == kUsageOn) {
        if (options.clients.kind != sources::ClientSourceConfig::Kind::postgres) {
            return "\"llm_usage on\" needs an llm_priority_db in PostgreSQL, or give it a postgresql:// URL "
                   "of its own";
        }
        options.usage_url = options.clients.location;
    }
    if (options.usage_url.empty()) {
        return {};
    }
    const std::string problem = sources::prepare_usage(cf, options.usage_url, options.usage_addresses);
    return problem.empty() ? problem : "\"llm_usage\": " + problem;
}

ngx_int_t prepare_sources(ngx_conf_t* cf, MainConf& conf) {
    Options& options = *conf.options;
    const auto good = [cf](const ConfPlace& place, const std::string& problem) {
        if (!problem.empty()) {
            const AtPlace there(cf, place);
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "%s", problem.c_str());
        }
        return problem.empty();
    };
    return good(options.clients_place, sources::prepare_clients(cf, options.clients)) &&
                   good(options.redis_place, sources::prepare_redis(cf, options.redis)) &&
                   good(options.usage_place, prepare_usage(cf, conf))
               ? NGX_OK
               : NGX_ERROR;
}

ngx_int_t post_configuration(ngx_conf_t* cf) {
    auto* conf = static_cast<MainConf*>(ngx_http_conf_get_module_main_conf(cf, ngx_http_llm_dispatch_module));
    auto* core_loc =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module));
    conf->resolver = core_loc->resolver;
    conf->resolver_timeout = core_loc->resolver_timeout;
    if (!conf->in_use) {
        return NGX_OK;  // loaded, but nobody uses it: no zone, no timers, no phases
    }

    if (prepare_sources(cf, *conf) != NGX_OK) {
        return NGX_ERROR;
    }
    if (add_zone(cf, *conf) != NGX_OK) {
        return NGX_ERROR;
    }
    if (add_phase_handler(cf, NGX_HTTP_ACCESS_PHASE, access_handler) != NGX_OK ||
        add_phase_handler(cf, NGX_HTTP_PRECONTENT_PHASE, precontent_handler) != NGX_OK ||
        add_phase_handler(cf, NGX_HTTP_LOG_PHASE, log_handler) != NGX_OK) {
        return NGX_ERROR;
    }
    return NGX_OK;
}

ngx_http_module_t module_context = {
    add_variables,       // before the configuration is read
    post_configuration,  // after it
    create_main_conf,   init_main_conf, nullptr, nullptr, create_loc_conf, merge_loc_conf,
};

ngx_http_module_t filter_context = {
    nullptr, install_response_filters, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

MainConf* main_conf(ngx_cycle_t* cycle) {
    // A cycle from before the module was loaded has no place for it in its arrays.
    bool loaded = false;
    for (ngx_uint_t i = 0; i < cycle->modules_n; ++i) {
        loaded = loaded || cycle->modules[i] == &ngx_http_llm_dispatch_module;
    }
    auto* http = loaded
                     ? reinterpret_cast<ngx_http_conf_ctx_t*>(ngx_get_conf(cycle->conf_ctx, ngx_http_module))
                     : nullptr;
    return http == nullptr ? nullptr
                           : static_cast<MainConf*>(http->main_conf[ngx_http_llm_dispatch_module.ctx_index]);
}

}  // namespace llm::nginx

extern "C" {

ngx_module_t ngx_http_llm_dispatch_module = {
    NGX_MODULE_V1,
    &llm::nginx::module_context,
    llm::nginx::kCommands,
    NGX_HTTP_MODULE,
    nullptr,                          // init master
    llm::nginx::adopt_zone,           // init module
    llm::nginx::start_worker,         // init process
    nullptr,                          // init thread
    nullptr,                          // exit thread
    llm::nginx::stop_worker,          // exit process
    llm::nginx::leave_zone_for_good,  // exit master
    NGX_MODULE_V1_PADDING,
};

ngx_module_t ngx_http_llm_dispatch_filter_module = {
    NGX_MODULE_V1, &llm::nginx::filter_context,
    nullptr,       NGX_HTTP_MODULE,
    nullptr,       nullptr,
    nullptr,       nullptr,
    nullptr,       nullptr,
    nullptr,       NGX_MODULE_V1_PADDING,
};

}  // extern "C"
