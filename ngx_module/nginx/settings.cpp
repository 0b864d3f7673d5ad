#include "ngx_module/nginx/settings.hpp"

#include <fnmatch.h>
#include <algorithm>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

core::Settings make_settings(const MainConf& conf) {
    const Options& options = *conf.options;
    core::Settings settings;
    settings.scheduler = static_cast<core::Scheduler>(conf.scheduler);
    settings.threshold_scope = static_cast<core::ThresholdScope>(conf.threshold_scope);
    settings.routing = static_cast<core::RoutingPolicy>(conf.routing);
    settings.client_priority = static_cast<core::ClientPriority>(conf.client_priority);
    settings.open_access = options.clients.kind == sources::ClientSourceConfig::Kind::none;
    settings.aging_us = conf.aging == 0 ? -1 : static_cast<int64_t>(conf.aging) * 1000;
    settings.grace_us = static_cast<int64_t>(options.clients.grace_ms) * 1000;
    settings.queue_size = static_cast<uint32_t>(conf.queue_size);
    settings.min_throughput = options.min_throughput;
    for (const auto& [model, tokens_per_second] : options.min_throughput_by_model) {
        core::ThroughputRule& rule = settings.throughput[settings.throughput_rules++];  // set_min_throughput() bounds them
        std::memcpy(rule.model, model.data(), model.size());
        rule.tokens_per_second = tokens_per_second;
    }
    return settings;
}

uint64_t fingerprint(const std::vector<EngineKey>& keys) {
    uint64_t sum = keys.size();
    for (const EngineKey& key : keys) {
        sum = sum * 1099511628211u + std::hash<std::string>()(key.glob);
        sum = sum * 1099511628211u + std::hash<std::string>()(key.key);
    }
    return sum;
}

std::string_view authority(std::string_view url) {
    return url.substr(url.find("://") + 3);
}

}  // namespace

void apply_configuration(const MainConf& conf, core::Zone& zone, ngx_log_t* log, core::WakeSet& wakes) {
    const core::Settings settings = make_settings(conf);
    const auto& engines = conf.options->engines;

    std::vector<std::vector<std::string_view>> models(engines.size());
    std::vector<core::EngineSpec> specs(engines.size());
    const uint64_t keys = fingerprint(conf.options->engine_keys);
    for (size_t i = 0; i < engines.size(); ++i) {
        const StaticEngine& engine = engines[i];
        models[i].assign(engine.models.begin(), engine.models.end());
        core::EngineSpec& spec = specs[i];
        spec.id = engine.id;
        spec.url = engine.url;
        spec.host = authority(engine.url);
        spec.key = engine.key;
        spec.org = engine.org;
        spec.models = models[i].data();
        spec.model_count = static_cast<uint32_t>(models[i].size());
        spec.max_running = engine.max_running;
        spec.tls = engine.url.starts_with("https://");
        spec.backup = engine.backup;
        std::memcpy(spec.address.sockaddr, &engine.address,
                    std::min<size_t>(engine.address_len, sizeof(spec.address.sockaddr)));
        spec.address.length = engine.address_len;
        spec.keys = keys;
    }

    bool applied;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone);
        core::apply_settings(lock, settings, now, wakes);
        applied = core::apply_static_engines(lock, specs.data(), static_cast<uint32_t>(specs.size()),
                                             now, wakes);
    }
    if (!applied) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "llm_engine: the zone cannot hold %uz engines; make llm_zone larger", specs.size());
    }
}

std::string_view announced_engine_key(const MainConf& conf, std::string_view engine_id) {
    const std::string id(engine_id);
    for (const EngineKey& key : conf.options->engine_keys) {
        if (fnmatch(key.glob.c_str(), id.c_str(), 0) == 0) {
            return key.key;
        }
    }
    return {};
}

}  // namespace llm::nginx
