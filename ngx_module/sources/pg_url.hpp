// A PostgreSQL connection URL, taken apart by libpq itself, so that it means what it means to psql.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llm::nginx::sources {

struct PgHost {
    std::string host;  // name, address, or directory of the UNIX socket; empty = libpq's default socket
    uint16_t port = 5432;
};

struct PgUrl {
    std::vector<std::pair<std::string, std::string>> settings;  // what the URL gives, by libpq's names
    std::vector<PgHost> hosts;  // to be resolved by us; empty when the URL gives hostaddr itself
    std::string place;          // "host:5432/db" for log lines, never a password
};

// Accepts postgresql:// and postgres:// URLs, UNIX sockets too (postgresql:///db?host=/run/postgresql).
// Returns an empty string, or a reason that repeats no part of the URL but a parameter's name.
std::string parse_pg_url(std::string_view text, PgUrl& out);

// True when `host` is a UNIX socket's: its directory, an abstract name, or nothing for the default. Such are not looked up.
inline bool is_pg_directory(std::string_view host) {
    return host.empty() || host.starts_with('/') || host.starts_with('@');
}

}  // namespace llm::nginx::sources
