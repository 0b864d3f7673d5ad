// SGLang (python/sglang/srt/metrics/collector.py). Its inter-token latency counts tokens, and sums the time
// between them, so speculative decoding is measured rightly.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "sglang:num_running_reqs"},
    {Field::waiting, "sglang:num_queue_reqs"},
    {Field::kv_usage, "sglang:token_usage"},
    {Field::tokens_in, "sglang:prompt_tokens_total"},
    {Field::tokens_out, "sglang:generation_tokens_total"},
    {Field::decode_tokens, "sglang:inter_token_latency_seconds_count"},
    {Field::decode_tokens, "sglang:time_per_output_token_seconds_count"},  // before 0.4.4
    {Field::user_seconds, "sglang:inter_token_latency_seconds_sum"},
    {Field::user_seconds, "sglang:time_per_output_token_seconds_sum"},
    {Field::completed, "sglang:num_requests_total"},
    {Field::started, "process_start_time_seconds"},
};
constexpr JsonRule kFacts[] = {
    {Field::max_context, "/v1/models", "/data/0/max_model_len"},
    {Field::max_running, "/server_info", "/internal_states/*/effective_max_running_requests_per_dp"},
    {Field::max_running, "/server_info", "/max_running_requests"},
    // older versions; newer ones write a warning into their log when it is asked for
    {Field::max_running, "/get_server_info", "/internal_states/*/effective_max_running_requests_per_dp"},
    {Field::max_running, "/get_server_info", "/max_running_requests"},
};

}  // namespace

const Adapter kSglang = {
    .kind = "sglang",
    .title = "SGLang",
    .health_path = "/health",
    .metrics_path = "/metrics",
    .metrics_hint = "start SGLang with --enable-metrics",
    .signature = "sglang:num_running_reqs",
    .metrics = kMetrics,
    .facts = kFacts,
    .rare_health = true,  // newer versions generate a token to answer
};

}  // namespace llm::reporter
