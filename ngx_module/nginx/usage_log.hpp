// llm_usage: one row per request that reached an engine.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Hands the record of a finished request to this worker's writer. Does nothing without llm_usage.
void record_usage(const Request& request, const core::RequestSummary& summary);

}  // namespace llm::nginx
