#include "ngx_module/nginx/source_directives.hpp"

#include <algorithm>
#include <cstdio>

#include "ngx_module/core/text/string_skip.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/conf_words.hpp"

namespace llm::nginx {
namespace {

// What may stand in a header: nothing that could end it.
bool is_key(std::string_view text) {
    return !text.empty() && text.size() <= core::kMaxEngineKeyBytes &&
           std::all_of(text.begin(), text.end(), [](unsigned char c) { return c > 0x20 && c < 0x7f; });
}

// "file:PATH" read whole, the last newline dropped. Keys live in files so that the configuration can be shown
// around.
char* read_key_file(ngx_conf_t* cf, std::string_view source, std::string& out) {
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
    char buffer[core::kMaxEngineKeyBytes + 1];
    size_t size = std::fread(buffer, 1, sizeof(buffer), file);
    std::fclose(file);
    while (size > 0 && (buffer[size - 1] == '\n' || buffer[size - 1] == '\r')) {
        --size;
    }
    const std::string_view key(buffer, size);
    if (!is_key(key)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\": key file \"%V\" must hold one line of 1 to 511 visible ASCII characters",
                           &words(cf)[0], &path);
        return kError;
    }
    out = key;
    return NGX_CONF_OK;
}

// ---- the directives ---------------------------------------------------------------------------------------

char* resolve_engine(ngx_conf_t* cf, StaticEngine& engine) {
    const bool tls = engine.url.starts_with("https://");
    if (!tls && !engine.url.starts_with("http://")) {
        return refuse(cf, words(cf)[1], "expected http(s)://host[:port]");
    }
    const std::string_view authority = std::string_view(engine.url).substr(tls ? 8 : 7);
    if (authority.find('@') != std::string_view::npos) {  // not repeated, as it may be a password
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\": a URL with a user is not understood, expected http(s)://host[:port] and key=",
                           &words(cf)[0]);
        return kError;
    }
    if (authority.empty() || authority.find_first_of("/?# ") != std::string_view::npos) {
        return refuse(cf, words(cf)[1], "expected http(s)://host[:port], without a path");
    }
    if (authority.starts_with("unix:")) {  // nginx would take the rest for a socket's path
        return refuse(cf, words(cf)[1], "expected http(s)://host[:port], not a socket");
    }
    if (engine.url.size() > core::kMaxEngineUrlBytes) {
        return refuse(cf, words(cf)[1], "expected at most 255 bytes");
    }
    if (engine.id.empty() && authority.size() > core::kMaxEngineIdBytes) {
        return refuse(cf, words(cf)[1], "host and port are more than the 127 bytes of an id: give it an id=");
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
    // "localhost" is ::1 as well, where few engines listen: of several addresses an IPv4 one
    const ngx_addr_t* end = url.addrs + url.naddrs;
    const ngx_addr_t* address =
        std::find_if(static_cast<const ngx_addr_t*>(url.addrs), end,
                     [](const ngx_addr_t& each) { return each.sockaddr->sa_family == AF_INET; });
    if (address == end) {
        address = url.addrs;
    }
    if (address->socklen > sizeof(engine.address)) {
        return refuse(cf, words(cf)[1], "the address is too long");
    }
    ngx_memcpy(&engine.address, address->sockaddr, address->socklen);
    engine.address_len = address->socklen;
    if (engine.id.empty()) {
        engine.id = authority;
    }
    return NGX_CONF_OK;
}

bool split_models(std::string_view list, std::vector<std::string>& out) {
    while (true) {
        const size_t comma = list.find(',');
        const std::string_view name = list.substr(0, comma);
        if (name.empty() || name.size() > core::kMaxModelBytes || !core::is_valid_utf8(name) ||
            out.size() == core::kMaxEngineModels ||
            std::find(out.begin(), out.end(), name) != out.end()) {
            return false;
        }
        out.emplace_back(name);
        if (comma == std::string_view::npos) {
            return true;
        }
        list.remove_prefix(comma + 1);
    }
}

// One word behind the URL of an llm_engine.
char* set_engine_parameter(ngx_conf_t* cf, const ngx_str_t& word, StaticEngine& engine) {
    std::string_view value;
    if (take_parameter(word, "model", value)) {
        if (!split_models(value, engine.models)) {
            return refuse(cf, word,
                          "model= expects up to 64 different names of 1 to 255 bytes of UTF-8, divided by commas");
        }
    } else if (take_parameter(word, "id", value)) {
        if (value.empty() || value.size() > core::kMaxEngineIdBytes || !core::is_valid_utf8(value)) {
            return refuse(cf, word, "id= expects 1 to 127 bytes of UTF-8");
        }
        engine.id = value;
    } else if (take_parameter(word, "max_running", value)) {
        if (!parse_integer(value, engine.max_running) || engine.max_running == 0 ||
            engine.max_running > 1'000'000) {
            return refuse(cf, word, "max_running= expects a number in 1..1000000");
        }
    } else if (take_parameter(word, "org", value)) {
        if (value.size() > core::kMaxOrgBytes) {
            return refuse(cf, word, "org= expects at most 127 bytes");
        }
        engine.org = value;
    } else if (take_parameter(word, "key", value)) {
        if (value.starts_with("file:")) {
            if (read_key_file(cf, value, engine.key) != NGX_CONF_OK) {
                return kError;
            }
        } else if (!is_key(value)) {
            // not repeated, as it is a secret
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\": key= expects 1 to 511 visible ASCII characters, or file:PATH",
                               &words(cf)[0]);
            return kError;
        } else {
            engine.key = value;
        }
    } else if (view(word) == "backup") {
        engine.backup = true;
    } else {
        return refuse(cf, word, "allowed parameters: model=, id=, max_running=, org=, key=, backup");
    }
    return NGX_CONF_OK;
}

}  // namespace

char* set_priority_db(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    if (options.clients_set) {
        return kDuplicate;
    }
    options.clients_set = true;
    options.clients_place = place_of(cf);
    ngx_msec_t refresh = 30'000;
    ngx_msec_t grace = 3'600'000;
    for (ngx_uint_t i = 2; i < cf->args->nelts; ++i) {
        std::string_view value;
        if (check_given_once(cf, i) != NGX_CONF_OK) {
            return kError;
        }
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
    options.redis_place = place_of(cf);
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

char* add_engine(ngx_conf_t* cf, ngx_command_t* cmd, void* conf) {
    Options& options = *static_cast<MainConf*>(conf)->options;
    StaticEngine engine;
    engine.url = view(words(cf)[1]);
    for (ngx_uint_t i = 2; i < cf->args->nelts; ++i) {
        if (check_given_once(cf, i) != NGX_CONF_OK ||
            set_engine_parameter(cf, words(cf)[i], engine) != NGX_CONF_OK) {
            return kError;
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

}  // namespace llm::nginx
