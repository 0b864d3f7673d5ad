// NVIDIA Triton with the TensorRT-LLM backend, behind its OpenAI-compatible frontend
// (tensorrtllm_backend/README.md, "Triton Metrics"). It tells no times per token: the gateway's law of speed
// has nothing to go by. Triton's vLLM backend publishes vLLM's names: --engine vllm.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr std::string_view kRequests = "nv_trt_llm_request_metrics";

constexpr MetricRule kMetrics[] = {
    {Field::running, kRequests, "", "request_type", "scheduled"},
    {Field::waiting, kRequests, "", "request_type", "waiting"},
    {Field::max_running, kRequests, "", "request_type", "max"},
    {Field::kv_usage, "nv_trt_llm_kv_cache_block_metrics", "", "kv_cache_block_type", "fraction"},
    {Field::tokens_in, "nv_llm_input_token_len_sum"},
    {Field::tokens_out, "nv_llm_output_token_len_sum"},
    {Field::completed, "nv_llm_output_token_len_count"},
};

}  // namespace

const Adapter kTriton = {
    .kind = "triton",
    .title = "Triton with TensorRT-LLM",
    .health_path = "/health/ready",
    .metrics_path = "/metrics",
    .metrics_hint = "tritonserver itself has them at port 8002: --metrics-url http://HOST:8002/metrics",
    .signature = kRequests,
    .metrics = kMetrics,
    .facts = {},
};

}  // namespace llm::reporter
