// NVIDIA's trtllm-serve (tensorrt_llm/metrics/collector.py). Times and tokens are told when requests end.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "trtllm_num_requests_running"},
    {Field::waiting, "trtllm_num_requests_waiting"},
    {Field::kv_usage, "trtllm_kv_cache_utilization"},
    {Field::tokens_in, "trtllm_prompt_tokens_total"},
    {Field::tokens_out, "trtllm_generation_tokens_total"},
    {Field::decode_tokens, "trtllm_generation_tokens_total", "trtllm_request_decode_time_seconds_count"},
    {Field::user_seconds, "trtllm_request_decode_time_seconds_sum"},
    {Field::completed, "trtllm_request_success_total"},
    {Field::started, "process_start_time_seconds"},
};

}  // namespace

const Adapter kTensorRtLlm = {
    .kind = "tensorrt-llm",
    .title = "TensorRT-LLM (trtllm-serve)",
    .health_path = "/health",
    .metrics_path = "/prometheus/metrics",
    .metrics_hint = "start trtllm-serve with return_perf_metrics: true",
    .signature = "trtllm_request_success_total",
    .metrics = kMetrics,
    .facts = {},
    .late_metrics = true,
};

}  // namespace llm::reporter
