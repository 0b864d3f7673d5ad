// Streams are as late as they may be: what was put into one happens when somebody waits for it. So a test notices host
// memory that is written again, or read, too early.
#include "tests/support/cuda_emulation/runtime.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <set>
#include <utility>
#include <vector>

struct EmulatedWork {
    std::function<void()> run;
    bool kernel = false;
    std::function<void()> start = {};  // of a launch that may begin while the one before it runs
};
struct CUgraph_st {
    std::vector<EmulatedWork> work;
};
struct CUgraphExec_st {
    std::vector<EmulatedWork> work;
};
struct CUstream_st {
    CUgraph_st* capturing = nullptr;
    std::deque<EmulatedWork> waiting;
    size_t entered = 0;  // of all that was ever put in
};
struct CUevent_st {
    std::chrono::steady_clock::time_point time;
    CUstream_st* stream = nullptr;
    size_t place = 0;  // it has come when so many of the stream's have
};

namespace llm::emulation {
namespace {
std::map<std::byte*, size_t>& allocations() {
    static std::map<std::byte*, size_t> all;
    return all;
}
std::map<std::byte*, size_t>& pinned() {
    static std::map<std::byte*, size_t> all;
    return all;
}
std::set<CUstream_st*>& streams() {
    static std::set<CUstream_st*> all;
    return all;
}
bool is_pinned(const void* address) {
    const auto* at = static_cast<const std::byte*>(address);
    return std::any_of(pinned().begin(), pinned().end(),
                       [at](const auto& range) { return at >= range.first && at < range.first + range.second; });
}

// Lets the first `place` things that were put into the stream happen.
void run_until(CUstream_st& stream, size_t place) {
    while (!stream.waiting.empty() && stream.entered - stream.waiting.size() < place) {
        const EmulatedWork work = std::move(stream.waiting.front());
        stream.waiting.pop_front();
        if (work.kernel && !stream.waiting.empty() && stream.waiting.front().start) {
            stream.waiting.front().start();
        }
        work.run();
    }
}
void run_all() {
    for (CUstream_st* stream : streams()) {
        run_until(*stream, stream->entered);
    }
}

// Of compute capability 8.9, which has the least of those that the kernels are built for.
constexpr size_t kMostShared = size_t{99} << 10;
std::map<const void*, size_t>& allowed_shared() {
    static std::map<const void*, size_t> all;
    return all;
}

cudaError_t last_error = cudaSuccess;
constexpr auto kLost = static_cast<cudaError_t>(719);  // cudaErrorLaunchFailure

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

void enqueue(cudaStream_t stream, EmulatedWork work) {
    if (lost()) {
        last_error = kLost;
        return;
    }
    if (stream != nullptr && stream->capturing != nullptr) {
        stream->capturing->work.push_back(std::move(work));
    } else if (stream != nullptr) {
        stream->waiting.push_back(std::move(work));
        stream->entered++;
    } else {
        run_all();  // the default stream
        work.run();
    }
}

void enqueue(cudaStream_t stream, std::function<void()> work) {
    enqueue(stream, EmulatedWork{std::move(work)});
}

bool is_device_memory(const void* address, size_t bytes) {
    auto* at = static_cast<std::byte*>(const_cast<void*>(address));
    const auto after = allocations().upper_bound(at);
    return after != allocations().begin() && at + bytes <= std::prev(after)->first + std::prev(after)->second;
}

cudaError_t allow_shared(const void* kernel, size_t bytes) {
    if (bytes > kMostShared) {
        return last_error = cudaErrorInvalidValue;
    }
    allowed_shared()[kernel] = bytes;
    return cudaSuccess;
}

void enqueue_kernel(cudaStream_t stream, const void* kernel, Index3 grid, Index3 block, size_t shared_bytes, bool early,
                    std::function<void()> body, size_t static_shared) {
    const auto allowed = allowed_shared().find(kernel);
    if (shared_bytes > std::max(size_t{48} << 10, allowed == allowed_shared().end() ? 0 : allowed->second) ||
        static_shared + shared_bytes > kMostShared) {
        last_error = cudaErrorInvalidValue;
        return;
    }
    device().kernels++;
    const size_t bytes = static_shared + shared_bytes;
    if (!early) {
        enqueue(stream, EmulatedWork{[=] { run_grid(grid, block, bytes, body); }, true});
        return;
    }
    const auto launch = std::make_shared<EarlyLaunch>(grid, block, bytes, std::move(body));
    enqueue(stream, EmulatedWork{[launch] { launch->run(); }, true, [launch] { launch->start(); }});
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
    prop->sharedMemPerBlockOptin = kMostShared;
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
    allocations()[static_cast<std::byte*>(*pointer)] = bytes;
    d.used += bytes;
    return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
    run_all();
    if (const auto it = allocations().find(static_cast<std::byte*>(pointer)); it != allocations().end()) {
        device().used -= it->second;
        allocations().erase(it);
        std::free(pointer);
    }
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    pinned()[static_cast<std::byte*>(*pointer)] = bytes;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
    run_all();
    pinned().erase(static_cast<std::byte*>(pointer));
    std::free(pointer);
    return cudaSuccess;
}
// As CUDA does it: from memory that is not pinned a copy is taken at once, and into such the call waits.
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (kind == cudaMemcpyHostToDevice && !is_pinned(source)) {
        const auto* from = static_cast<const std::byte*>(source);
        enqueue(stream, [target, copy = std::vector<std::byte>(from, from + bytes)] {
            std::memcpy(target, copy.data(), copy.size());
        });
    } else {
        enqueue(stream, [=] { std::memcpy(target, source, bytes); });
        if (kind == cudaMemcpyDeviceToHost && !is_pinned(target)) {
            return cudaStreamSynchronize(stream);
        }
    }
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
    enqueue(stream, [=] { std::memset(target, value, bytes); });
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new CUstream_st;
    streams().insert(*stream);
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    run_until(*stream, stream->entered);
    streams().erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    if (stream == nullptr) {
        run_all();
    } else {
        run_until(*stream, stream->entered);
    }
    return device().calls_until_lost == 0 ? kLost : cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    stream->capturing = new CUgraph_st;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = std::exchange(stream->capturing, nullptr);
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    long& left = device().graphs_until_failure;
    if (left == 0) {
        return last_error = device().graph_error;
    }
    left -= left > 0 ? 1 : 0;
    *exec = new CUgraphExec_st{graph->work};
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    device().graph_launches++;
    for (size_t i = 0; i < exec->work.size(); i++) {
        EmulatedWork work = exec->work[i];
        if (i == 0) {
            work.start = {};  // a graph begins when all before it has ended
        }
        work.kernel = work.kernel && i + 1 < exec->work.size();  // and ends as a whole
        enqueue(stream, std::move(work));
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
    *event = new CUevent_st;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    enqueue(stream, [=] { event->time = std::chrono::steady_clock::now(); });
    event->stream = stream;
    event->place = stream->entered;
    return std::exchange(last_error, cudaSuccess);
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->stream != nullptr && streams().contains(event->stream)) {
        run_until(*event->stream, event->place);
    }
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
