// What the CUDA backend's shared object offers to the program that opens it. Both are built together; kCudaAbi tells
// when they were not. Its number grows with every change of backend.hpp that sizes may not show.
#pragma once

#include <string>

#include "engine_worker/backend/backend.hpp"

namespace llm::engine {
inline const std::string kCudaAbi = "llm-engine " LLM_VERSION " cuda 3 " + std::to_string(sizeof(BackendOptions)) +
                                    " " + std::to_string(sizeof(BackendInfo)) + " " + std::to_string(sizeof(Step)) +
                                    " " + std::to_string(sizeof(SampleParams)) + " " +
                                    std::to_string(sizeof(StepResult));
}  // namespace llm::engine

extern "C" {
const char* llm_cuda_abi();
// `why` becomes empty if there is a GPU that the backend can use, else one sentence.
void llm_cuda_probe(std::string* why);
// nullptr: `error` says why, in one sentence.
llm::engine::Backend* llm_cuda_make(const llm::engine::BackendOptions* options, std::string* error);
}
