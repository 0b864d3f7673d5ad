// LMDeploy's api_server (lmdeploy/metrics/loggers.py). An iteration may give several tokens at once, so
// decode tokens are all but each request's first.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "lmdeploy:num_requests_running"},
    {Field::waiting, "lmdeploy:num_requests_waiting"},
    {Field::kv_usage, "lmdeploy:gpu_cache_usage_perc"},
    {Field::tokens_in, "lmdeploy:prompt_tokens_total"},
    {Field::tokens_out, "lmdeploy:generation_tokens_total"},
    {Field::decode_tokens, "lmdeploy:generation_tokens_total", "lmdeploy:time_to_first_token_seconds_count"},
    {Field::user_seconds, "lmdeploy:iter_token_latency_sum"},
    {Field::completed, "lmdeploy:request_success_total"},
    {Field::completed, "lmdeploy:e2e_request_latency_seconds_count"},
    {Field::started, "process_start_time_seconds"},
};

}  // namespace

const Adapter kLmdeploy = {
    .kind = "lmdeploy",
    .title = "LMDeploy",
    .health_path = "/health",
    .metrics_path = "/metrics",
    .metrics_hint = "start api_server with --enable-metrics",
    .signature = "lmdeploy:num_requests_running",
    .metrics = kMetrics,
    .facts = {},
    .max_running = 128,  // its usual max_batch_size
};

}  // namespace llm::reporter
