#include "ngx_module/nginx/auth.hpp"

#include <iterator>

#include "ngx_module/core/text/bearer.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/token_cache.hpp"
#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx {
namespace {

// Clients' records are large (their lists of models) and seldom change: a worker keeps copies of those it has
// seen lately, which core::lookup_client() leaves alone while they are current. `owner` is the serial of the
// request that looked the client up last.
struct Seen {
    core::ClientView client;
    uint64_t owner = 0;
};

Seen& seen_by(const Request& request) {
    static Seen seen[64];
    return seen[request.token_hash[0] % std::size(seen)];
}

AuthState look_up(Request& request, int64_t now) {
    Seen& seen = seen_by(request);
    const core::Auth result = core::lookup_client(zone(), request.token_hash, now, wall_s(), seen.client);
    seen.owner = result == core::Auth::ok ? request.serial : 0;
    switch (result) {
        case core::Auth::ok:
            return AuthState::ok;
        case core::Auth::unavailable:
            return AuthState::unavailable;
        default:
            return AuthState::rejected;
    }
}

bool copy_identity(Request& request, const core::ClientView& client) {
    request.chat = client.chat;
    request.never_waits = client.threshold == 0;
    request.default_mode = client.default_mode;
    return copy_to_pool(request.r->pool,
                        {{&request.client, client.name}, {&request.organisation, client.organisation}});
}

core::Bearer bearer_of(const Request& request) {
    const ngx_table_elt_t* header = request.r->headers_in.authorization;
    if (header == nullptr) {
        return {};
    }
    return loc_conf(request.r).compat == kCompatAristote ? core::parse_bearer_exact(view(header->value))
                                                         : core::parse_bearer(view(header->value));
}

bool open_access(const Request& request) {
    return main_conf(request.r).options->clients.kind == sources::ClientSourceConfig::Kind::none;
}

}  // namespace

bool authenticate(Request& request) {
    if (request.auth != AuthState::unknown) {
        return true;
    }
    if (open_access(request)) {
        accept_anonymous(request);
        return true;
    }
    const core::Bearer bearer = bearer_of(request);
    if (bearer.status != core::BearerStatus::ok) {
        request.auth =
            bearer.status == core::BearerStatus::missing ? AuthState::missing : AuthState::malformed;
        return true;
    }
    request.token_hash = cached_hash(bearer.token);
    request.auth = look_up(request, request.arrived_us);
    return request.auth != AuthState::ok || copy_identity(request, seen_by(request).client);
}

const core::ClientView* client_of(Request& request) {
    Seen& seen = seen_by(request);
    if (seen.owner == request.serial) {
        return &seen.client;
    }
    if (request.token_hash == TokenHash{}) {
        seen.client = core::anonymous_client();
        seen.owner = request.serial;
        return &seen.client;
    }
    request.auth = look_up(request, now_us());
    return request.auth == AuthState::ok ? &seen.client : nullptr;
}

bool has_no_token(const Request& request) {
    return request.auth == AuthState::missing ||
           (open_access(request) && bearer_of(request).status == core::BearerStatus::missing);
}

bool another_module_vouches(const Request& request) {
    const auto* core =
        static_cast<ngx_http_core_loc_conf_t*>(ngx_http_get_module_loc_conf(request.r, ngx_http_core_module));
    if (core->satisfy != NGX_HTTP_SATISFY_ANY || request.r->access_code != 0) {
        return false;
    }
    // credentials of auth_basic share the header with our tokens
    const ngx_table_elt_t* header = request.r->headers_in.authorization;
    const bool basic = header != nullptr && header->value.len >= 6 &&
                       ngx_strncasecmp(header->value.data, to_ngx("basic ").data, 6) == 0;
    return request.auth == AuthState::missing || (basic && request.auth == AuthState::malformed);
}

void accept_anonymous(Request& request) {
    request.auth = AuthState::ok;
    request.token_hash = {};
    request.default_mode = core::RoutingMode::any;
}

ErrorCode auth_error(const Request& request) {
    return request.auth == AuthState::unavailable ? ErrorCode::auth_unavailable : ErrorCode::invalid_api_key;
}

}  // namespace llm::nginx
