#include "engine_worker/backend/cuda/export.hpp"

#include <exception>

#include "engine_worker/backend/cuda/cuda_backend.hpp"

const char* llm_cuda_abi() {
    return llm::engine::kCudaAbi.c_str();
}

void llm_cuda_probe(std::string* why) {
    try {
        llm::engine::cuda::open_device();
        why->clear();
    } catch (const std::exception& error) {
        *why = error.what();
    }
}

llm::engine::Backend* llm_cuda_make(const llm::engine::BackendOptions* options, std::string* error) {
    try {
        return new llm::engine::cuda::CudaBackend(*options);
    } catch (const std::exception& caught) {
        *error = caught.what();
        return nullptr;
    }
}
