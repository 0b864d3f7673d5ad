// Content handlers of the module: what it answers by itself.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx::web {

// GET /v1/models and /v1/models/{id} of a dispatching location.
ngx_int_t models_handler(ngx_http_request_t* r);

// llm_health: …/liveness and …/readiness.
ngx_int_t health_handler(ngx_http_request_t* r);

// llm_metrics: Prometheus text.
ngx_int_t metrics_handler(ngx_http_request_t* r);

// llm_status: dashboard, status.json, administration.
ngx_int_t status_handler(ngx_http_request_t* r);

}  // namespace llm::nginx::web
