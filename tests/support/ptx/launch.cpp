// The part of the CUDA runtime that knows kernels: nvcc's own code for the host registers them here and launches them, and what runs is
// the PTX that nvcc made of them (LLM_PTX). The rest is in cuda_emulation/runtime.cpp.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/cuda_emulation/runtime.hpp"
#include "tests/support/ptx/machine.hpp"

using namespace llm;

namespace {

[[noreturn]] void die(const std::string& why) {
    std::fprintf(stderr, "PTX: %s\n", why.c_str());
    std::abort();
}

const ptx::Module& module() {
    static const auto read = [] {
        std::ifstream file(LLM_PTX);
        const std::string text((std::istreambuf_iterator<char>(file)), {});
        if (text.empty()) {
            die(LLM_PTX " is missing or empty");
        }
        return ptx::read_module(text, LLM_PTX);
    }();
    return *read;
}

constexpr size_t kMostParameters = 4096;  // bytes; 32764 where driver and GPU are new enough

// What stands for a kernel on the host -> its name in PTX.
std::map<const void*, std::string>& names() {
    static std::map<const void*, std::string> all;
    return all;
}

// Per cent of a multiprocessor's memory that a kernel wants as shared memory, and what the last launch wanted; -1: what is enough for it.
std::map<const void*, int>& carveouts() {
    static std::map<const void*, int> all;
    return all;
}
int last_carveout = -1;

const ptx::Kernel& kernel_of(const void* function) {
    const auto name = names().find(function);
    if (name == names().end()) {
        die("a kernel that was not registered");
    }
    const auto kernel = module().kernels.find(name->second);
    if (kernel == module().kernels.end()) {
        die("no kernel " + name->second);
    }
    return kernel->second;
}

}  // namespace

// What nvcc's code calls before main() (crt/host_runtime.h of the toolkit).
extern "C" {
void** __cudaRegisterFatBinary(void*) {
    static void* nothing = nullptr;
    return &nothing;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* host, char*, const char* name, int, void*, void*, void*, void*, int*) {
    names()[host] = name;
}
// Of launches written <<<…>>>, of which there are none: the linker wants them all the same, before CUDA 13 cudaLaunchKernel.
unsigned __cudaPopCallConfiguration(dim3*, dim3*, size_t*, void*) { die("__cudaPopCallConfiguration"); }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { die("__cudaGetKernel"); }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, size_t, cudaStream_t) { die("__cudaLaunchKernel"); }
}

cudaError_t cudaLaunchKernel(const void*, dim3, dim3, void**, size_t, cudaStream_t) { die("cudaLaunchKernel"); }

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
    const ptx::Kernel& kernel = kernel_of(function);
    *attributes = {};
    attributes->sharedSizeBytes = kernel.static_shared;
    attributes->maxThreadsPerBlock = static_cast<int>(kernel.max_threads);
    attributes->ptxVersion = attributes->binaryVersion = static_cast<int>(module().target);
    return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
    const ptx::Kernel& kernel = kernel_of(function);
    if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) {
        carveouts()[function] = value;
        return cudaSuccess;
    }
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
        die("an attribute of a kernel that is not known");
    }
    return emulation::allow_shared(function, static_cast<size_t>(value), kernel.static_shared);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function, void** arguments) {
    const ptx::Kernel& kernel = kernel_of(function);
    const dim3 grid = config->gridDim, block = config->blockDim;
    const uint64_t threads = uint64_t{block.x} * block.y * block.z;
    // Without launch bounds it would depend on nvcc's choice of registers how many threads a GPU can start.
    if (kernel.max_threads == 0) {
        die("no launch bounds: " + kernel.name);
    }
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.x > INT32_MAX || grid.y > 65535 || grid.z > 65535 || threads == 0 || threads > kernel.max_threads ||
        kernel.parameter_bytes > kMostParameters) {
        return cudaErrorInvalidConfiguration;
    }
    bool early = false;
    for (unsigned i = 0; i < config->numAttrs; i++) {
        if (config->attrs[i].id != cudaLaunchAttributeProgrammaticStreamSerialization) {
            die("an attribute of a launch that is not known");
        }
        early = config->attrs[i].val.programmaticStreamSerializationAllowed != 0;
    }
    const auto carveout = carveouts().find(function);
    const int wanted = carveout == carveouts().end() ? -1 : carveout->second;
    // two that want what is enough for them seldom want the same
    emulation::device().divided_anew += early && (wanted < 0 || wanted != last_carveout) ? 1 : 0;
    last_carveout = wanted;
    // Arguments are copied when the launch is made.
    const auto parameters = std::make_shared<std::vector<std::byte>>(kernel.parameter_bytes);
    for (size_t i = 0; i < kernel.parameters.size(); i++) {
        std::memcpy(parameters->data() + kernel.parameters[i].offset, arguments[i], kernel.parameters[i].size);
    }
    static uint64_t launches = 0;
    const size_t static_shared = (kernel.static_shared + 15) / 16 * 16;
    const size_t shared = static_shared + config->dynamicSmemBytes;
    return emulation::enqueue_kernel(
        config->stream, function, {grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, config->dynamicSmemBytes, early,
        [&kernel, parameters, shared, launch = ++launches] { ptx::run_thread(module(), kernel, parameters->data(), shared, launch); }, static_shared);
}
