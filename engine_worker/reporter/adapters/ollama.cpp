// Ollama. It has no metrics: what is known is that it lives and which models it has. Its requests are counted
// by the gateway; name the number that it runs at once (OLLAMA_NUM_PARALLEL) with --max-running.
#include "engine_worker/reporter/adapter.hpp"

namespace llm::reporter {

const Adapter kOllama = {
    .kind = "ollama",
    .title = "Ollama",
    .health_path = "/api/version",
    .metrics_path = "",
    .metrics_hint = "",
    .signature = "",
    .metrics = {},
    .facts = {},
    .max_running = 1,
};

}  // namespace llm::reporter
