// Joins options to a running model: backend, tokenizer, template.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/server/options.hpp"
#include "engine_worker/server/served_model.hpp"

namespace llm::engine {

// The names under which the model is served: --served-model-name, or the last part of --model.
std::vector<std::string> served_names(const Options& options);

struct LoadedModel {
    std::unique_ptr<Backend> backend;
    std::unique_ptr<ServedModel> model;  // max_context and max_running are set by who runs the backend
};

// Loads everything; may take minutes. Throws std::runtime_error with one clear sentence.
LoadedModel load_model(const Options& options);

}  // namespace llm::engine
