#include "tests/support/cuda_emulation/runtime.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <utility>
#include <vector>

struct EmulatedGraph {
    std::vector<std::function<void()>> work;
};
struct EmulatedStream {
    EmulatedGraph* capturing = nullptr;
};
struct EmulatedEvent {
    std::chrono::steady_clock::time_point time;
};

namespace llm::emulation {
namespace {
std::map<void*, size_t>& allocations() {
    static std::map<void*, size_t> all;
    return all;
}
cudaError_t last_error = cudaSuccess;
constexpr cudaError_t kLost = 719;  // cudaErrorLaunchFailure

bool lost() {
    Device& d = device();
    if (d.calls_until_lost > 0) {
        d.calls_until_lost--;
    }
    return d.calls_until_lost == 0;
}
}  // namespace

// LLM_EMULATED_GPU="none" or "lost=N" (after N launches and copies) for tests that cannot reach in.
Device& device() {
    static Device one = [] {
        Device out;
        const char* text = std::getenv("LLM_EMULATED_GPU");
        if (text != nullptr && std::strcmp(text, "none") == 0) {
            out.count = 0;
            out.count_error = cudaErrorNoDevice;
        } else if (text != nullptr) {
            std::sscanf(text, "lost=%ld", &out.calls_until_lost);
        }
        return out;
    }();
    return one;
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
    if (lost()) {
        last_error = kLost;
        return;
    }
    if (stream != nullptr && stream->capturing != nullptr) {
        stream->capturing->work.push_back(std::move(work));
    } else {
        work();
    }
}
}  // namespace llm::emulation

using namespace llm::emulation;

cudaError_t cudaGetDeviceCount(int* count) {
    *count = device().count;
    return device().count_error;
}
cudaError_t cudaSetDevice(int) {
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* prop, int) {
    *prop = {};
    std::snprintf(prop->name, sizeof prop->name, "emulated GPU");
    prop->major = device().major;
    prop->minor = device().minor;
    prop->multiProcessorCount = device().multiprocessors;
    prop->totalGlobalMem = device().memory;
    prop->sharedMemPerBlockOptin = 227 << 10;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = device().driver_version;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
    *total = device().memory;
    *free_bytes = device().memory - device().used;
    return cudaSuccess;
}
cudaError_t cudaMalloc(void** pointer, size_t bytes) {
    Device& d = device();
    if (d.allocations_until_failure == 0 || d.used + bytes > d.memory) {
        return last_error = cudaErrorMemoryAllocation;
    }
    d.allocations_until_failure -= d.allocations_until_failure > 0 ? 1 : 0;
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    std::memset(*pointer, 0xff, bytes);  // NaN, and no valid index
    allocations()[*pointer] = bytes;
    d.used += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
    if (const auto it = allocations().find(pointer); it != allocations().end()) {
        device().used -= it->second;
        allocations().erase(it);
        std::free(pointer);
    }
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
    std::free(pointer);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
    enqueue(stream, [=] { std::memcpy(target, source, bytes); });
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
    enqueue(stream, [=] { std::memset(target, value, bytes); });
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new EmulatedStream;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    return device().calls_until_lost == 0 ? kLost : cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream->capturing = new EmulatedGraph;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = std::exchange(stream->capturing, nullptr);
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = new EmulatedGraph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    device().graph_launches++;
    for (const auto& work : exec->work) {
        enqueue(stream, work);
    }
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
    *event = new EmulatedEvent;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    enqueue(stream, [=] { event->time = std::chrono::steady_clock::now(); });
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t) {
    return device().calls_until_lost == 0 ? kLost : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
    *ms = std::max(1e-3f, std::chrono::duration<float, std::milli>(end->time - start->time).count());
    return cudaSuccess;
}
cudaError_t cudaDeviceSynchronize() {
    return cudaStreamSynchronize(nullptr);
}
cudaError_t cudaGetLastError() {
    return std::exchange(last_error, cudaSuccess);
}
const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess                    ? "no error"
           : error == cudaErrorMemoryAllocation    ? "out of memory"
           : error == cudaErrorInsufficientDriver  ? "CUDA driver version is insufficient for CUDA runtime version"
           : error == cudaErrorNoDevice            ? "no CUDA-capable device is detected"
           : error == kLost                        ? "unspecified launch failure"
                                                   : "error";
}
const char* cudaGetErrorName(cudaError_t error) {
    return error == kLost ? "cudaErrorLaunchFailure" : "cudaError";
}
