// Where the dispatcher's facts come from: clients (a file or PostgreSQL) and engines (Redis). One worker, the
// leader, runs the sources on its event loop and writes what they say into the zone, where every worker reads
// it.
//
// Order of calls: parse_*() while directives are read; prepare_*() in postconfiguration; start() in
// init_process of each worker (it does nothing but in the leader); stop() in exit_process.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/client_file.hpp"
#include "ngx_module/sources/hooks.hpp"
#include "ngx_module/sources/host_resolver.hpp"
#include "shared/redis_url.hpp"

namespace llm::nginx::sources {

// `llm_priority_db source [refresh= grace=]`.
struct ClientSourceConfig {
    enum class Kind : uint8_t { none, file, postgres };
    Kind kind = Kind::none;         // none: open access, nothing to read
    std::string location;           // the path, or the postgresql:// URL
    uint64_t refresh_ms = 30'000;   // PostgreSQL: everything is read again this often, ≥ 100
    uint64_t grace_ms = 3'600'000;  // known clients keep working this long without the database

    // filled by prepare_clients()
    ClientFile file;  // what the file held, so that a file only root can read works
    std::vector<HostAddresses> addresses;  // of each database server with a name, as far as the system knows any
};

// `llm_redis url [prefix=]`.
struct RedisConfig {
    RedisUrl url;  // from parse_redis_url()
    std::string prefix = "llm:";

    HostAddresses addresses;  // filled by prepare_redis(), as above

    bool enabled() const { return !url.host.empty() || !url.socket_path.empty(); }
};

// Reads "file:PATH" (absolute) or "postgresql://…" (postgres://… too). Empty string, or what is allowed; the
// text never repeats a password.
std::string parse_client_source(std::string_view text, uint64_t refresh_ms, uint64_t grace_ms,
                                ClientSourceConfig& out);

// What can only be checked with the whole configuration at hand: reads the client file, and asks the system for the addresses of
// host names (blocking, as proxy_pass does), which are used where http{} has no resolver, or it knows none. Never connects
// anywhere. Empty string, or the reason with file, line and column: a configuration error. Rows that are skipped are logged as
// warnings.
std::string prepare_clients(ngx_conf_t* cf, ClientSourceConfig& clients);
std::string prepare_redis(ngx_conf_t* cf, RedisConfig& redis);

// The same for the URL of llm_usage: checks it, and fills `addresses` for start_usage() (usage_writer.hpp). Empty
// string, or the reason.
std::string prepare_usage(ngx_conf_t* cf, const std::string& url, std::vector<HostAddresses>& addresses);

// True in the process that runs the sources: worker 0, or the only process.
bool is_leader();

// In init_process. Starts the sources if this process leads; the configuration must live as long as the
// cycle. What cannot be reached is tried again later, and logged.
void start(ngx_cycle_t* cycle, const ClientSourceConfig& clients, const RedisConfig& redis,
           const Hooks& hooks);

// In exit_process, or as soon as the worker has been told to leave. Idempotent. Never from inside a source's
// own callback; the connections close by themselves when nginx closes idle connections.
void stop();

}  // namespace llm::nginx::sources
