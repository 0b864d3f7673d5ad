#include "ngx_module/sources/sources.hpp"

#include <algorithm>
#include <memory>
#include <utility>

#include "ngx_module/sources/client_db.hpp"
#include "ngx_module/sources/client_watch.hpp"
#include "ngx_module/sources/engine_feed.hpp"
#include "ngx_module/sources/engine_sink.hpp"
#include "ngx_module/sources/pg_url.hpp"
#include "ngx_module/sources/tls_context.hpp"

namespace llm::nginx::sources {
namespace {

// Everything that runs, in the order in which it is made; torn down the other way round.
struct Running {
    Hooks hooks;
    PgEndpoint database_endpoint;
    RespEndpoint redis_endpoint;
    std::unique_ptr<ClientWatch> watch;
    std::unique_ptr<ClientDb> database;
    std::unique_ptr<EngineSink> engines;
    std::unique_ptr<EngineFeed> feed;
};

Running* running = nullptr;  // no object with a constructor: this file is loaded into the master too

std::string resolve_redis(RedisConfig& redis) {
    PeerAddress numeric;
    if (redis.url.host.empty() || parse_numeric_address(redis.url.host, redis.url.port, numeric)) {
        return {};
    }
    const std::string problem = resolve_now(redis.url.host, redis.url.port, redis.addresses);
    // all are tried in turn; of "localhost" the one where servers listen that know of IPv4 only
    std::stable_partition(redis.addresses.begin(), redis.addresses.end(),
                          [](const PeerAddress& each) { return each.get()->sa_family == AF_INET; });
    return problem.empty() ? problem : "\"llm_redis\": " + problem;
}

std::string prepare_database(ngx_conf_t* cf, const std::string& text, std::vector<HostAddresses>& addresses) {
    addresses.clear();
    PgUrl url;
    std::string problem = parse_pg_url(text, url);
    if (!problem.empty()) {
        return problem;
    }
    for (const PgHost& item : url.hosts) {
        PeerAddress numeric;
        if (is_pg_directory(item.host) || parse_numeric_address(item.host, item.port, numeric)) {
            continue;
        }
        const std::string why = resolve_now(item.host, item.port, addresses.emplace_back());
        problem = problem.empty() ? why : problem;
    }
    return http_resolver(cf) == nullptr ? problem : "";  // the resolver may know it, now or later
}

}  // namespace

std::string parse_client_source(std::string_view text, uint64_t refresh_ms, uint64_t grace_ms,
                                ClientSourceConfig& out) {
    out = ClientSourceConfig{};
    out.refresh_ms = refresh_ms;
    out.grace_ms = grace_ms;
    if (text.starts_with("file:")) {
        out.location = text.substr(5);
        if (out.location.empty()) {
            return "file: needs a path";
        }
        out.kind = ClientSourceConfig::Kind::file;
        return {};
    }
    if (text.starts_with("postgresql://") || text.starts_with("postgres://")) {
        PgUrl url;
        std::string problem = parse_pg_url(text, url);
        if (problem.empty()) {
            out.location = text;
            out.kind = ClientSourceConfig::Kind::postgres;
        }
        return problem;
    }
    return "expected postgresql://… or file:PATH";
}

std::string prepare_clients(ngx_conf_t* cf, ClientSourceConfig& clients) {
    if (clients.kind == ClientSourceConfig::Kind::file) {
        const std::string problem = read_client_file(clients.location, clients.file);
        if (!problem.empty()) {
            return "\"llm_priority_db\": " + problem;
        }
        for (const std::string& skipped : clients.file.skipped) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0, "\"llm_priority_db\": client skipped in %s: %s",
                          clients.location.c_str(), skipped.c_str());
        }
    }
    if (clients.kind != ClientSourceConfig::Kind::postgres) {
        return {};
    }
    const std::string problem = prepare_database(cf, clients.location, clients.addresses);
    return problem.empty() ? problem : "\"llm_priority_db\": " + problem;
}

std::string prepare_redis(ngx_conf_t* cf, RedisConfig& redis) {
    const std::string problem = redis.enabled() ? resolve_redis(redis) : "";
    return http_resolver(cf) == nullptr ? problem : "";
}

std::string prepare_usage(ngx_conf_t* cf, const std::string& url, std::vector<HostAddresses>& addresses) {
    return prepare_database(cf, url, addresses);
}

bool is_leader() {
    return ngx_process == NGX_PROCESS_SINGLE || (ngx_process == NGX_PROCESS_WORKER && ngx_worker == 0);
}

void start(ngx_cycle_t* cycle, const ClientSourceConfig& clients, const RedisConfig& redis,
           const Hooks& hooks) {
    if (!is_leader() || running != nullptr) {
        return;
    }
    running = new Running{};
    running->hooks = hooks;
    ngx_resolver_t* resolver = http_resolver(cycle);
    switch (clients.kind) {
        case ClientSourceConfig::Kind::none:
            break;
        case ClientSourceConfig::Kind::file:
            running->watch = std::make_unique<ClientWatch>(clients.location, clients.file, running->hooks);
            running->watch->start();
            break;
        case ClientSourceConfig::Kind::postgres:
            running->database_endpoint.addresses = clients.addresses;
            running->database_endpoint.resolver = resolver;
            parse_pg_url(clients.location,
                         running->database_endpoint.url);  // checked when the directive was read
            running->database =
                std::make_unique<ClientDb>(running->database_endpoint, clients.refresh_ms, running->hooks);
            running->database->start();
            break;
    }
    if (redis.enabled()) {
        running->redis_endpoint = {.url = redis.url, .addresses = redis.addresses, .resolver = resolver};
        running->engines = std::make_unique<EngineSink>(running->hooks, resolver);
        running->feed =
            std::make_unique<EngineFeed>(running->redis_endpoint, redis.prefix, *running->engines);
        running->feed->start();
    }
}

void stop() {
    Running* ending = std::exchange(running, nullptr);
    if (ending == nullptr) {
        return;
    }
    if (ending->feed) {
        ending->feed->stop();
    }
    if (ending->database) {
        ending->database->stop();
    }
    if (ending->watch) {
        ending->watch->stop();
    }
    delete ending;
    free_client_tls();
}

}  // namespace llm::nginx::sources
