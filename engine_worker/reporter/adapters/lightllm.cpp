// LightLLM (lightllm/server/metrics/metrics.py). A request's time after its first token is its user seconds;
// both are told when it ends.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "lightllm_num_running_reqs"},
    {Field::running, "lightllm_batch_current_size"},
    {Field::waiting, "lightllm_queue_size"},
    {Field::tokens_in, "lightllm_request_input_length_sum"},
    {Field::tokens_out, "lightllm_request_generated_tokens_sum"},
    {Field::decode_tokens, "lightllm_request_generated_tokens_sum",
     "lightllm_request_generated_tokens_count"},
    {Field::user_seconds, "lightllm_request_inference_duration_sum",
     "lightllm_request_first_token_duration_sum"},
    {Field::completed, "lightllm_request_success_total"},
    {Field::started, "process_start_time_seconds"},
};

}  // namespace

const Adapter kLightllm = {
    .kind = "lightllm",
    .title = "LightLLM",
    .health_path = "/health",
    .metrics_path = "/metrics",
    .metrics_hint = "they are at the port of the API server",
    .signature = "lightllm_queue_size",
    .metrics = kMetrics,
    .facts = {},
    .rare_health = true,  // runs an inference
};

}  // namespace llm::reporter
