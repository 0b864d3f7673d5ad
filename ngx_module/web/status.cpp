// llm_status: the dashboard, its JSON, and the administration of engines and waiting requests.
#include <charconv>
#include <nlohmann/json.hpp>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/nginx/body.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/headers.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/web/dashboard.hpp"
#include "ngx_module/web/handlers.hpp"
#include "ngx_module/web/send.hpp"
#include "ngx_module/web/sent_name.hpp"
#include "ngx_module/web/status_json.hpp"

namespace llm::nginx::web {
namespace {

constexpr std::string_view kJson = "application/json";
constexpr std::string_view kEngines = "engines/";
constexpr size_t kLongestChange = 4096;  // bytes of a body that says what to change

ngx_int_t send_error(ngx_http_request_t* r, ngx_uint_t status, std::string_view code,
                     std::string_view message) {
    const nlohmann::ordered_json body = {
        {"error",
         {{"message", message}, {"type", "invalid_request_error"}, {"param", nullptr}, {"code", code}}}};
    return send_copy(r, status, kJson, body.dump());
}

ngx_int_t send_not_found(ngx_http_request_t* r) {
    return send_error(r, NGX_HTTP_NOT_FOUND, "not_found", "There is no such engine, request or page.");
}

ngx_int_t send_done(ngx_http_request_t* r) {
    return send(r, NGX_HTTP_OK, kJson, "{\"ok\":true}");
}

// How much of a URI a location has that is no prefix (a regular expression, a name): all before what is
// answered here.
size_t size_of_location(std::string_view uri) {
    for (const std::string_view page : {"/status.json", "/engines/", "/requests/"}) {
        if (const size_t at = uri.find(page); at != std::string_view::npos) {
            return at;
        }
    }
    return uri.ends_with('/') ? uri.size() : 0;
}

// The part of the URI behind the location's own, without a leading slash.
std::string_view path_of(ngx_http_request_t* r) {
    const std::string_view location = view(loc_conf(r).path);
    std::string_view path = view(r->uri);
    path.remove_prefix(path.starts_with(location) ? location.size() : size_of_location(path));
    while (path.starts_with('/')) {
        path.remove_prefix(1);
    }
    return path;
}

bool parse_ticket(std::string_view text, core::Ticket& out) {
    const char* end = text.data() + text.size();
    auto result = std::from_chars(text.data(), end, out.index);
    if (result.ec != std::errc() || result.ptr == end || *result.ptr != '-') {
        return false;
    }
    result = std::from_chars(result.ptr + 1, end, out.generation);
    return result.ec == std::errc() && result.ptr == end;
}

ngx_int_t drain_engine(ngx_http_request_t* r, std::string_view id, bool drain) {
    bool known;
    core::WakeSet wakes;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        known = core::drain_engine(lock, id, drain, now, wakes);
    }
    wake(wakes);
    if (!known) {
        return send_not_found(r);
    }
    const ngx_str_t name = to_ngx(id);
    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0, "llm_status: engine \"%V\" %s", &name,
                  drain ? "drained" : "undrained");
    return send_done(r);
}

ngx_int_t end_request_by_admin(ngx_http_request_t* r, core::Ticket ticket) {
    bool known;
    core::WakeSet wakes;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        known = core::abort_request(lock, ticket, now, wakes);
    }
    wake(wakes);
    if (!known) {
        return send_not_found(r);
    }
    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0, "llm_status: request %uD-%uD ended", ticket.index,
                  ticket.generation);
    return send_done(r);
}

// The body of PATCH: {"priority": n}.
bool read_priority(ngx_http_request_t* r, int32_t& priority) {
    std::string text;
    if (!copy_body(r, kLongestChange, text)) {
        return false;
    }
    const auto body = nlohmann::json::parse(text, nullptr, false);
    if (!body.is_object() || !body.contains("priority") || !body["priority"].is_number_unsigned()) {
        return false;
    }
    const auto value = body["priority"].get<uint64_t>();
    if (value > static_cast<uint64_t>(core::kMaxPriority)) {
        return false;
    }
    priority = static_cast<int32_t>(value);
    return true;
}

bool is_waiting(core::Ticket ticket) {
    core::ZoneLock lock(zone());
    return core::queue_position(lock, ticket) != 0;
}

ngx_int_t change_priority(ngx_http_request_t* r) {
    core::Ticket ticket;
    const std::string_view path = path_of(r);
    if (!parse_ticket(path.substr(path.find('/') + 1), ticket) || !is_waiting(ticket)) {
        return send_not_found(r);
    }
    int32_t priority;
    if (!read_priority(r, priority)) {
        return send_error(r, NGX_HTTP_BAD_REQUEST, "invalid_json", "Expected {\"priority\": 0..1000}.");
    }
    bool waits;
    core::WakeSet wakes;
    const int64_t now = now_us();
    {
        core::ZoneLock lock(zone());
        waits = core::set_priority(lock, ticket, priority, now, wakes);
    }
    wake(wakes);
    if (!waits) {
        return send_not_found(r);
    }
    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0, "llm_status: request %uD-%uD has priority %D now",
                  ticket.index, ticket.generation, priority);
    return send_done(r);
}

void on_patch_body(ngx_http_request_t* r) {
    ngx_http_finalize_request(r, change_priority(r));
}

ngx_int_t send_method_not_allowed(ngx_http_request_t* r, std::string_view allowed) {
    if (!add_response_header(r, "Allow", to_ngx(allowed))) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return send_error(r, NGX_HTTP_NOT_ALLOWED, "method_not_allowed", "This method is not allowed here.");
}

// A browser sends a form across origins, but not a header of its own: the header keeps other sites from
// acting in an administrator's name.
bool may_change(ngx_http_request_t* r, ngx_int_t& answer) {
    if (loc_conf(r).handler != kStatusAdmin) {
        answer = send_error(r, NGX_HTTP_FORBIDDEN, "readonly",
                            "This location is read-only: configure 'llm_status admin'.");
        return false;
    }
    const ngx_table_elt_t* header = find_request_header(r, "x-llm-admin");
    if (header == nullptr || header->value.len == 0) {
        answer = send_error(r, NGX_HTTP_FORBIDDEN, "admin_header_required",
                            "Changes need the header x-llm-admin.");
        return false;
    }
    return true;
}

ngx_int_t send_dashboard(ngx_http_request_t* r) {
    const Dashboard& page = dashboard();
    if (!add_response_header(r, "Content-Security-Policy", to_ngx(page.policy)) ||
        !add_response_header(r, "Referrer-Policy", to_ngx("no-referrer"))) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return send(r, NGX_HTTP_OK, "text/html; charset=utf-8", page.html);
}

// "/llm" of `location /llm`: what the page asks for is relative to "/llm/".
ngx_int_t redirect_to_directory(ngx_http_request_t* r) {
    const std::string_view uri = view(r->uri);
    const ngx_str_t target = copy_to_pool(r->pool, std::string(uri.substr(uri.rfind('/') + 1)) + "/");
    if (target.data == nullptr || !add_response_header(r, "Location", target)) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    return send(r, NGX_HTTP_MOVED_PERMANENTLY, "text/plain", {});
}

ngx_int_t handle_engine(ngx_http_request_t* r, std::string_view path) {
    // the id may hold slashes: the action is what stands behind the last one
    const size_t slash = path.rfind('/');
    const std::string_view action =
        slash == std::string_view::npos ? std::string_view{} : path.substr(slash + 1);
    if (action != "drain" && action != "undrain") {
        return send_not_found(r);
    }
    if (r->method != NGX_HTTP_POST) {
        return send_method_not_allowed(r, "POST");
    }
    ngx_int_t answer;
    return may_change(r, answer) ? drain_engine(r, path.substr(0, slash), action == "drain") : answer;
}

ngx_int_t handle_request(ngx_http_request_t* r, std::string_view path) {
    if (r->method != NGX_HTTP_PATCH && r->method != NGX_HTTP_DELETE) {
        return send_method_not_allowed(r, "PATCH, DELETE");
    }
    ngx_int_t answer;
    if (!may_change(r, answer)) {
        return answer;
    }
    if (r->method == NGX_HTTP_PATCH) {
        const ngx_int_t status = ngx_http_read_client_request_body(r, on_patch_body);
        return status >= NGX_HTTP_SPECIAL_RESPONSE ? status : NGX_DONE;
    }
    core::Ticket ticket;
    return parse_ticket(path, ticket) ? end_request_by_admin(r, ticket) : send_not_found(r);
}

}  // namespace

ngx_int_t status_handler(ngx_http_request_t* r) {
    const std::string_view path = path_of(r);
    if (path.starts_with(kEngines)) {
        const std::string_view uri = view(r->uri);
        const std::string sent = sent_name(r, uri.substr(0, uri.size() - path.size() + kEngines.size()));
        return handle_engine(r, sent.empty() ? path.substr(kEngines.size()) : std::string_view(sent));
    }
    if (path.starts_with("requests/")) {
        return handle_request(r, path.substr(9));
    }
    if (!path.empty() && path != "status.json") {
        return send_not_found(r);
    }
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return send_method_not_allowed(r, "GET, HEAD");
    }
    if (!add_cache_control(r, to_ngx("no-store")) ||
        !add_response_header(r, "X-Content-Type-Options", to_ngx("nosniff"))) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }
    if (!path.empty()) {
        return send_copy(r, NGX_HTTP_OK, kJson,
                         status_json(main_conf(r), loc_conf(r).handler == kStatusAdmin));
    }
    return view(r->uri).ends_with('/') ? send_dashboard(r) : redirect_to_directory(r);
}

}  // namespace llm::nginx::web
