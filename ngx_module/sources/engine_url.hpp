// The parts of an engine's URL, http(s)://host[:port].
#pragma once

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>

namespace llm::nginx::sources {

struct EngineUrl {
    bool tls = false;
    std::string host;  // IPv6 without brackets
    uint16_t port = 0;
    std::string authority;  // as written: the Host header
};

// False when `text` is not of that form; a trailing slash is tolerated. O(text).
inline bool parse_engine_url(std::string_view text, EngineUrl& out) {
    out = EngineUrl{};
    if (text.starts_with("https://")) {
        out.tls = true;
        text.remove_prefix(8);
    } else if (text.starts_with("http://")) {
        text.remove_prefix(7);
    } else {
        return false;
    }
    if (text.ends_with('/')) {
        text.remove_suffix(1);
    }
    out.authority = text;
    std::string_view port;
    if (text.starts_with('[')) {
        const size_t close = text.find(']');
        if (close == std::string_view::npos) {
            return false;
        }
        out.host = text.substr(1, close - 1);
        port = text.substr(close + 1);
    } else {
        const size_t colon = text.find(':');
        out.host = text.substr(0, colon);
        port = colon == std::string_view::npos ? std::string_view{} : text.substr(colon);
    }
    if (out.host.empty() || out.host.find_first_of("/?#@ :") != std::string::npos) {
        // a colon is fine in an IPv6 address only
        if (out.host.empty() || !text.starts_with('[') ||
            out.host.find_first_of("/?#@ ") != std::string::npos) {
            return false;
        }
    }
    if (port.empty()) {
        out.port = out.tls ? 443 : 80;
        return true;
    }
    const auto [end, error] = std::from_chars(port.data() + 1, port.data() + port.size(), out.port);
    return port[0] == ':' && error == std::errc() && end == port.data() + port.size() && out.port != 0;
}

}  // namespace llm::nginx::sources
