// Opens the CUDA backend (llm_backend_cuda.so) at run time. Linked into llm-engine; needs no CUDA itself.
#pragma once

#include <memory>
#include <string>

#include "engine_worker/backend/backend.hpp"

namespace llm::engine {

// Why there is no CUDA backend to be had here, or an empty string if there is one: the file is missing or does not
// belong to this program, a library it needs is missing, there is no driver or too old a one, no GPU, or a GPU that
// it was not built for. `installed` (may be null) becomes whether the file is there at all. The file is looked for
// beside the program and in ../lib/llm-engine from there, or only at LLM_CUDA_BACKEND (a path) if that is set.
std::string cuda_unavailable(bool* installed = nullptr);

// Throws std::runtime_error with one clear sentence.
std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options);

}  // namespace llm::engine
