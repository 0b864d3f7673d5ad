// What the filters remember of an engine's answer while it passes.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include "ngx_module/core/text/sse_scan.hpp"

namespace llm::nginx {

struct StreamScan {
    core::UsageScan scan;
    bool event_stream = false;
    bool readable = false;      // a 2xx answer without Content-Encoding
    bool refused = false;       // no 2xx answer
    bool hides_usage = false;   // llm_usage_inject: the event that only carries usage is not for the client
    uint64_t seen = 0;          // completion tokens so far
    int64_t seen_at_us = 0;     // when the last of them came
    uint64_t charged = 0;       // those the core knows of
    ngx_msec_t charged_at = 0;  // ngx_current_msec of the last charge
    ngx_str_t held = ngx_null_string;  // begin of an event that may turn out to be the one to hide
};

}  // namespace llm::nginx
