// GET /metrics: Prometheus text with vLLM's metric names, so that existing dashboards and routers work.
#pragma once

#include <string>

#include "engine_worker/scheduler/engine_stats.hpp"

namespace llm::engine {

std::string metrics_text(const EngineStats& stats, const std::string& model);

}  // namespace llm::engine
