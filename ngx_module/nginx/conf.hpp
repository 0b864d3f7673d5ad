// What the directives say, as the rest of the module reads it.
//
// nginx addresses configuration by offsetof(), so MainConf and LocConf are plain C structs in the
// configuration pool. What does not fit such a struct (lists, strings that change length) lives in Options, a
// C++ object that a pool cleanup destroys with the configuration.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <string>
#include <vector>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/nginx/conf_words.hpp"
#include "ngx_module/nginx/proxy_defaults.hpp"
#include "ngx_module/nginx/queue_timeouts.hpp"
#include "ngx_module/sources/sources.hpp"

extern "C" {
extern ngx_module_t ngx_http_llm_dispatch_module;
extern ngx_module_t ngx_http_llm_dispatch_filter_module;
}

namespace llm::nginx {

// An engine written in the configuration: `llm_engine url model=…`.
struct StaticEngine {
    std::string url;
    std::string id;  // host:port unless id= says otherwise
    std::vector<std::string> models;
    uint32_t max_running = 0;  // 0 = nobody says
    std::string org;
    std::string key;  // sent as "Authorization: Bearer <key>"; empty = no header
    bool backup = false;
    sockaddr_storage address{};
    socklen_t address_len = 0;
};

// `llm_engine_key glob file:PATH`: the key of announced engines whose id matches.
struct EngineKey {
    std::string glob;
    std::string key;
};

struct Options {
    std::vector<StaticEngine> engines;
    std::vector<EngineKey> engine_keys;
    std::vector<std::pair<std::string, double>> min_throughput_by_model;
    double min_throughput = 0;  // decoded tokens/s per active user, 0 = off
    bool min_throughput_set = false;
    sources::ClientSourceConfig clients;
    bool clients_set = false;
    ConfPlace clients_place;
    sources::RedisConfig redis;
    bool redis_set = false;
    ConfPlace redis_place;
    std::string usage_url;  // where llm_usage writes to; empty = no records
    ConfPlace usage_place;
    std::vector<sources::HostAddresses> usage_addresses;
    ConfPlace queue_size_place;
    std::vector<QueueTimeout> queue_timeouts;  // of the locations that dispatch
};

enum UsageRecords : ngx_uint_t { kUsageOff, kUsageOn, kUsageUrl };

struct MainConf {
    Options* options;

    ngx_str_t zone_name;
    size_t zone_size;
    ngx_shm_zone_t* zone;  // nullptr when the module is not in use
    bool in_use;           // some location dispatches, shows or configures something of ours

    ngx_uint_t scheduler;        // core::Scheduler
    ngx_msec_t aging;            // 0 = off
    ngx_uint_t queue_size;       // 0 = what the zone holds
    ngx_uint_t threshold_scope;  // core::ThresholdScope
    ngx_uint_t routing;          // core::RoutingPolicy
    ngx_uint_t client_priority;  // core::ClientPriority
    ngx_uint_t usage;            // UsageRecords

    ngx_int_t proxy_host;  // index of proxy's variable

    ngx_resolver_t* resolver;  // of http{}, for host names in engine reports and of Redis
    ngx_msec_t resolver_timeout;
};

// What answers in a location.
enum Handler : ngx_uint_t { kNoHandler, kHealth, kMetrics, kStatus, kStatusAdmin };

enum EnginePriority : ngx_uint_t { kEnginePriorityOff, kEnginePriorityVllm };
enum Compat : ngx_uint_t { kCompatOff, kCompatAristote };

// Whether a location's proxying is ours alone (ordinary_proxy.hpp); found out at its first request.
enum ProxyKind : ngx_uint_t { kProxyUnknown, kProxyOrdinary, kProxyOwn };

struct LocConf {
    ProxyLevel proxy_level;
    ngx_flag_t dispatch;
    ngx_http_complex_value_t* model;
    ngx_msec_t queue_timeout;
    ngx_uint_t engine_priority;
    ngx_flag_t usage_inject;
    ngx_int_t retries;
    ngx_msec_t queue_keepalive;  // 0 = off
    ngx_uint_t compat;
    ngx_flag_t observe;
    ngx_uint_t handler;     // Handler; inherited by `if` and limit_except only, as are the next two
    ngx_http_handler_pt handle;
    ngx_str_t path;         // of the location that has it
    ngx_uint_t proxy_kind;  // ProxyKind; not inherited
    uint64_t identity;      // tells the location from others, across reloads; not inherited
};

inline MainConf& main_conf(ngx_http_request_t* r) {
    return *static_cast<MainConf*>(ngx_http_get_module_main_conf(r, ngx_http_llm_dispatch_module));
}

inline LocConf& loc_conf(ngx_http_request_t* r) {
    return *static_cast<LocConf*>(ngx_http_get_module_loc_conf(r, ngx_http_llm_dispatch_module));
}

// The configuration of a cycle, nullptr when it has no http{}.
MainConf* main_conf(ngx_cycle_t* cycle);

// The configuration that runs; what is being read is not it yet.
inline MainConf* running_conf() {
    return main_conf(const_cast<ngx_cycle_t*>(ngx_cycle));
}

// Defined in directives.cpp.
extern ngx_command_t kCommands[];

}  // namespace llm::nginx
