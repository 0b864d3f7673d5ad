// vLLM (V1 engine; vllm/v1/metrics/loggers.py). An observation of the inter-token latency is one token of one
// sequence and the time since its last one: their count and sum are decode tokens and user seconds. With
// speculative decoding an observation may stand for several tokens, and the speed is understated.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "vllm:num_requests_running"},
    {Field::waiting, "vllm:num_requests_waiting"},
    {Field::kv_usage, "vllm:kv_cache_usage_perc"},
    {Field::kv_usage, "vllm:gpu_cache_usage_perc"},  // before 0.10
    {Field::tokens_in, "vllm:prompt_tokens_total"},
    {Field::tokens_out, "vllm:generation_tokens_total"},
    {Field::decode_tokens, "vllm:inter_token_latency_seconds_count"},
    {Field::decode_tokens, "vllm:time_per_output_token_seconds_count"},  // before 0.11
    {Field::user_seconds, "vllm:inter_token_latency_seconds_sum"},
    {Field::user_seconds, "vllm:time_per_output_token_seconds_sum"},
    {Field::completed, "vllm:request_success_total"},
    {Field::started, "process_start_time_seconds"},
};
constexpr JsonRule kFacts[] = {{Field::max_context, "/v1/models", "/data/0/max_model_len"}};

}  // namespace

const Adapter kVllm = {
    .kind = "vllm",
    .title = "vLLM",
    .health_path = "/health",
    .metrics_path = "/metrics",
    .metrics_hint = "vLLM has them unless it was started with --disable-log-stats",
    .signature = "vllm:generation_tokens_total",  // gauges may be missing until the first request
    .metrics = kMetrics,
    .facts = kFacts,
    .max_running = 256,  // its usual max_num_seqs, which it does not tell
    .replica_label = "engine",  // data parallel ranks
};

}  // namespace llm::reporter
