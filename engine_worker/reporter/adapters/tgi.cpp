// Hugging Face's text-generation-inference (router/src/server.rs). It tells the time of whole inferences,
// prefill included, when requests end: the speed per user is understated for long prompts.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "tgi_batch_current_size"},
    {Field::waiting, "tgi_queue_size"},
    {Field::tokens_in, "tgi_request_input_length_sum"},
    {Field::tokens_out, "tgi_request_generated_tokens_sum"},
    {Field::user_seconds, "tgi_request_inference_duration_sum"},
    {Field::completed, "tgi_request_success"},
};
constexpr JsonRule kFacts[] = {
    {Field::max_running, "/info", "/max_concurrent_requests"},
    {Field::max_context, "/info", "/max_total_tokens"},
};

}  // namespace

const Adapter kTgi = {
    .kind = "tgi",
    .title = "text-generation-inference",
    .health_path = "/health",
    .metrics_path = "/metrics",
    .metrics_hint = "they are at the port of the router",
    .signature = "tgi_queue_size",
    .metrics = kMetrics,
    .facts = kFacts,
    .late_metrics = true,
};

}  // namespace llm::reporter
