#include "engine_worker/backend/cuda/loader.hpp"

#include <dlfcn.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "engine_worker/backend/cuda/export.hpp"

namespace llm::engine {
namespace {

constexpr const char* kFile = "llm_backend_cuda.so";

struct Library {
    std::string path;  // empty: there is none
    std::string error;
    decltype(&llm_cuda_probe) probe = nullptr;
    decltype(&llm_cuda_make) make = nullptr;
};

std::string find_file() {
    std::error_code ignored;
    if (const char* given = std::getenv("LLM_CUDA_BACKEND"); given != nullptr && *given != '\0') {
        return std::filesystem::exists(given, ignored) ? given : "";
    }
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", ignored);
    for (const char* place : {".", "../lib/llm-engine"}) {
        const std::filesystem::path path = program.parent_path() / place / kFile;
        if (std::filesystem::exists(path, ignored)) {
            return path.lexically_normal();
        }
    }
    return "";
}

// Opened once and never closed: its code may be on some thread's stack until the end.
const Library& library() {
    static const Library one = [] {
        Library out;
        out.path = find_file();
        if (out.path.empty()) {
            out.error = std::string("the CUDA backend (") + kFile + ") is not installed beside the program";
            return out;
        }
        void* handle = dlopen(out.path.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (handle == nullptr) {
            out.error = std::string("the CUDA backend cannot be opened: ") + dlerror();
            return out;
        }
        const auto abi = reinterpret_cast<decltype(&llm_cuda_abi)>(dlsym(handle, "llm_cuda_abi"));
        if (abi == nullptr || std::string(abi()) != kCudaAbi) {
            out.error = out.path + " belongs to another version of llm-engine";
            return out;
        }
        out.probe = reinterpret_cast<decltype(&llm_cuda_probe)>(dlsym(handle, "llm_cuda_probe"));
        out.make = reinterpret_cast<decltype(&llm_cuda_make)>(dlsym(handle, "llm_cuda_make"));
        if (out.probe == nullptr || out.make == nullptr) {
            out.error = out.path + " is not a CUDA backend of llm-engine";
        }
        return out;
    }();
    return one;
}

}  // namespace

std::string cuda_unavailable(bool* installed) {
    const Library& lib = library();
    if (installed != nullptr) {
        *installed = !lib.path.empty();
    }
    if (!lib.error.empty()) {
        return lib.error;
    }
    std::string why;
    lib.probe(&why);
    return why;
}

std::unique_ptr<Backend> make_cuda_backend(const BackendOptions& options) {
    if (const std::string why = cuda_unavailable(); !why.empty()) {
        throw std::runtime_error(why);
    }
    std::string error;
    std::unique_ptr<Backend> backend(library().make(&options, &error));
    if (backend == nullptr) {
        throw std::runtime_error(error);
    }
    return backend;
}

}  // namespace llm::engine
