// llama.cpp's llama-server (tools/server/README.md, to_metrics() in tools/server/server-task.cpp). The seconds of generation are summed over slots, so they
// are user seconds; its tokens include each answer's first, a small overstatement of the speed.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {
namespace {

constexpr MetricRule kMetrics[] = {
    {Field::running, "llamacpp:requests_processing"},
    {Field::waiting, "llamacpp:requests_deferred"},
    {Field::kv_usage, "llamacpp:kv_cache_usage_ratio"},  // until 2025
    {Field::tokens_in, "llamacpp:prompt_tokens_total"},
    {Field::tokens_out, "llamacpp:tokens_predicted_total"},
    {Field::user_seconds, "llamacpp:tokens_predicted_seconds_total"},
};
constexpr JsonRule kFacts[] = {
    {Field::max_running, "/props", "/total_slots"},
    {Field::max_context, "/props", "/default_generation_settings/n_ctx"},
};

}  // namespace

const Adapter kLlamaCpp = {
    .kind = "llamacpp",
    .title = "llama.cpp server",
    .health_path = "/health",
    .metrics_path = "/metrics",
    .metrics_hint = "start llama-server with --metrics",
    .signature = "llamacpp:requests_processing",
    .metrics = kMetrics,
    .facts = kFacts,
    .max_running = 4,
};

}  // namespace llm::reporter
