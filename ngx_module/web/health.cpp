// Liveness and readiness for whoever watches the gateway.
#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/web/handlers.hpp"
#include "ngx_module/web/send.hpp"

namespace llm::nginx::web {
namespace {

// Ready once clients were loaded and one engine is ready. That Redis or the database goes down later takes
// nothing away: what is known keeps working.
bool is_ready(const MainConf& conf) {
    const bool open = conf.options->clients.kind == sources::ClientSourceConfig::Kind::none;
    if (!open && !core::client_table(zone()).ever_loaded) {
        return false;
    }
    const int64_t now = now_us();
    core::ZoneLock lock(zone());
    return core::any_usable_engine(lock, now, 0) != core::kNone;
}

}  // namespace

ngx_int_t health_handler(ngx_http_request_t* r) {
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return refuse_method(r);
    }
    constexpr std::string_view kText = "text/plain";
    const std::string_view uri = view(r->uri);
    if (uri.ends_with("/liveness")) {
        return send(r, NGX_HTTP_OK, kText, "OK");
    }
    if (uri.ends_with("/readiness") || uri.ends_with("/health")) {  // the latter as vLLM and others call it
        return is_ready(main_conf(r)) ? send(r, NGX_HTTP_OK, kText, "OK")
                                      : send(r, NGX_HTTP_SERVICE_UNAVAILABLE, kText, "KO");
    }
    return NGX_HTTP_NOT_FOUND;
}

}  // namespace llm::nginx::web
