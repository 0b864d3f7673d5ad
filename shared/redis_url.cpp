#include "shared/redis_url.hpp"

#include <charconv>

#include "shared/hex.hpp"

namespace llm {
namespace {

constexpr const char* kForm =
    "expected redis://[user[:password]@]host[:port][/db], rediss://… or unix:/path[?db=N]";

bool percent_decode(std::string_view text, std::string& out) {
    out.clear();
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (i + 2 >= text.size() || hex_value(text[i + 1]) < 0 || hex_value(text[i + 2]) < 0) {
            return false;
        }
        out += static_cast<char>(hex_value(text[i + 1]) * 16 + hex_value(text[i + 2]));
        i += 2;
    }
    return true;
}

template <class Integer>
bool parse_number(std::string_view text, Integer& out) {
    const auto result = std::from_chars(text.data(), text.data() + text.size(), out);
    return result.ec == std::errc() && result.ptr == text.data() + text.size() && !text.empty();
}

// Takes "user:password@" off the front of `rest`. The last '@' of the authority divides, so that a password may
// hold one.
bool take_credentials(std::string_view& rest, RedisUrl& out) {
    const size_t at = rest.substr(0, rest.find('/')).rfind('@');
    if (at == std::string_view::npos) {
        return true;
    }
    const std::string_view credentials = rest.substr(0, at);
    rest.remove_prefix(at + 1);
    const size_t colon = credentials.find(':');
    const std::string_view password =
        colon == std::string_view::npos ? std::string_view{} : credentials.substr(colon + 1);
    return percent_decode(credentials.substr(0, colon), out.user) && percent_decode(password, out.password);
}

std::string parse_unix(std::string_view rest, RedisUrl& out) {
    if (rest.starts_with("//")) {
        rest.remove_prefix(2);
        if (!take_credentials(rest, out)) {
            return "bad percent-encoding in the credentials";
        }
    }
    const size_t query = rest.find('?');
    if (query != std::string_view::npos) {
        const std::string_view parameter = rest.substr(query + 1);
        if (!parameter.starts_with("db=") || !parse_number(parameter.substr(3), out.database)) {
            return "the only parameter of a unix: URL is db=N";
        }
        rest = rest.substr(0, query);
    }
    if (!rest.starts_with('/')) {
        return kForm;
    }
    if (rest.size() > 107) {
        return "the path of a UNIX socket has at most 107 bytes";
    }
    out.socket_path = rest;
    return {};
}

// "host", "host:port", "[v6]" or "[v6]:port".
std::string parse_authority(std::string_view authority, RedisUrl& out) {
    std::string_view port;
    if (authority.starts_with('[')) {
        const size_t close = authority.find(']');
        if (close == std::string_view::npos) {
            return kForm;
        }
        out.host = authority.substr(1, close - 1);
        port = authority.substr(close + 1);
    } else {
        const size_t colon = authority.find(':');
        out.host = authority.substr(0, colon);
        port = colon == std::string_view::npos ? std::string_view{} : authority.substr(colon);
    }
    if (out.host.empty()) {
        return kForm;
    }
    if (!port.empty() && (port[0] != ':' || !parse_number(port.substr(1), out.port) || out.port == 0)) {
        return "the port must be in 1..65535";
    }
    return {};
}

}  // namespace

std::string parse_redis_url(std::string_view text, RedisUrl& out) {
    out = RedisUrl{};
    if (text.starts_with("unix:")) {
        return parse_unix(text.substr(5), out);
    }
    if (text.starts_with("redis://")) {
        text.remove_prefix(8);
    } else if (text.starts_with("rediss://")) {
        out.tls = true;
        text.remove_prefix(9);
    } else {
        return kForm;
    }
    if (!take_credentials(text, out)) {
        return "bad percent-encoding in the credentials";
    }
    const size_t slash = text.find('/');
    if (slash != std::string_view::npos) {
        const std::string_view database = text.substr(slash + 1);
        if (!database.empty() && !parse_number(database, out.database)) {
            return "the database must be a number";
        }
        text = text.substr(0, slash);
    }
    return parse_authority(text, out);
}

}  // namespace llm
