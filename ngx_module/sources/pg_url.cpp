#include "ngx_module/sources/pg_url.hpp"

#include <libpq-fe.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <memory>

namespace llm::nginx::sources {
namespace {

constexpr std::string_view kSslModes[] = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"};

struct FreeConnection {
    void operator()(PGconn* connection) const { PQfinish(connection); }
};

// What libpq says of a value that it does not know; else it would say so with every connection only. It looks at the
// values before it connects, here to a socket that cannot be there.
std::string invalid_value(const std::vector<std::pair<std::string, std::string>>& settings) {
    std::vector<const char*> names = {"host"};
    std::vector<const char*> values = {"/dev/null"};
    for (const auto& [name, value] : settings) {
        if (name != "host" && name != "hostaddr" && name != "port") {
            names.push_back(name.c_str());
            values.push_back(value.c_str());
        }
    }
    names.push_back(nullptr);
    values.push_back(nullptr);
    const std::unique_ptr<PGconn, FreeConnection> connection(PQconnectStartParams(names.data(), values.data(), 0));
    const std::string message = connection ? PQerrorMessage(connection.get()) : "";
    return message.starts_with("invalid ") ? message.substr(0, message.find('\n')) : std::string{};
}

struct FreeOptions {
    void operator()(PQconninfoOption* options) const { PQconninfoFree(options); }
};

std::vector<std::string> split(std::string_view text) {
    std::vector<std::string> out;
    for (;;) {
        const size_t comma = text.find(',');
        out.emplace_back(text.substr(0, comma));
        if (comma == std::string_view::npos) {
            return out;
        }
        text.remove_prefix(comma + 1);
    }
}

}  // namespace

std::string parse_pg_url(std::string_view text, PgUrl& out) {
    out = PgUrl{};
    if (!text.starts_with("postgresql://") && !text.starts_with("postgres://")) {
        return "expected postgresql://[user[:password]@]host[:port]/database[?parameter=value]";
    }
    char* message = nullptr;
    const std::unique_ptr<PQconninfoOption, FreeOptions> options(
        PQconninfoParse(std::string(text).c_str(), &message));
    const std::string problem = message == nullptr ? "" : message;
    PQfreemem(message);
    if (!options) {
        // libpq repeats what it could not read, which may be a piece of the password; a parameter's name may
        // be told
        const bool harmless = problem.starts_with("invalid URI query parameter:");
        return harmless ? problem.substr(0, problem.find('\n')) : "not a valid PostgreSQL URL";
    }
    // libpq takes the first / or @ for the end of a password and the rest for a host or a database, which are shown
    constexpr std::string_view kUnescaped = "a password's / and @ must be written %2F and %40, and those of other parts too";
    std::string host;
    std::string port;
    std::string database;
    bool has_hostaddr = false;
    for (const PQconninfoOption* option = options.get(); option->keyword != nullptr; ++option) {
        if (option->val == nullptr) {
            continue;
        }
        const std::string_view name = option->keyword;
        const std::string value = option->val;
        if (name == "service") {
            return "a service file cannot be used: it may name hosts that libpq would look up while nginx "
                   "waits";
        }
        // libpq would say so with every connection only
        if (name == "sslmode" && std::find(std::begin(kSslModes), std::end(kSslModes), value) == std::end(kSslModes)) {
            return "invalid sslmode, allowed: disable, allow, prefer, require, verify-ca, verify-full";
        }
        has_hostaddr = has_hostaddr || name == "hostaddr";
        if (name == "host") {
            host = value;
        } else if (name == "port") {
            port = value;
        } else if (name == "dbname") {
            database = value;
        }
        out.settings.emplace_back(name, value);
    }
    const size_t slash = text.find('/', text.find("://") + 3);
    if (slash < text.find('?') && slash < text.find('@') && text.find('@') < text.find('?')) {
        return std::string(kUnescaped);
    }
    const std::vector<std::string> hosts = split(host);
    if (std::any_of(hosts.begin(), hosts.end(), [](const std::string& item) { return item.find('@', 1) != item.npos; })) {
        return std::string(kUnescaped);
    }
    const std::vector<std::string> ports = split(port);
    if (ports.size() != 1 && ports.size() != hosts.size()) {
        return "there must be one port, or one for each host";
    }
    for (size_t i = 0; i < hosts.size(); ++i) {
        PgHost item{.host = hosts[i]};
        const std::string& digits = ports[ports.size() == 1 ? 0 : i];
        if (!digits.empty()) {
            const auto [end, error] =
                std::from_chars(digits.data(), digits.data() + digits.size(), item.port);
            if (error != std::errc() || end != digits.data() + digits.size() || item.port == 0) {
                return "the port must be in 1..65535";
            }
        }
        out.place += (i > 0 ? "," : "") + (item.host.empty() ? std::string("local socket") : item.host) +
                     (is_pg_directory(item.host) ? "" : ":" + std::to_string(item.port));
        if (!has_hostaddr) {
            out.hosts.push_back(std::move(item));
        }
    }
    out.place += "/" + database;
    return invalid_value(out.settings);
}

}  // namespace llm::nginx::sources
