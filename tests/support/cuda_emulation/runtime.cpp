// Streams are as late as they may be: what was put into one happens when somebody waits for it. So a test notices host
// memory that is written again, or read, too early. What CUDA refuses is refused (above all while a graph is recorded), and so is some
// that it only leaves undefined.
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
    bool uploaded = false;
};
struct CUstream_st {
    CUgraph_st* capturing = nullptr;
    bool invalidated = false;  // what it captures
    std::deque<EmulatedWork> waiting;
    size_t entered = 0;  // of all that was ever put in
};
struct CUevent_st {
    bool timing = true;
    bool captured = false;  // recorded last while its stream was captured
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

// Of what may not be called while the thread captures a stream: says so, and that capture will fail. (There is one thread.)
cudaError_t refused_in_capture() {
    bool any = false;
    for (CUstream_st* stream : streams()) {
        if (stream->capturing != nullptr) {
            stream->invalidated = any = true;
        }
    }
    return any ? last_error = cudaErrorStreamCaptureUnsupported : cudaSuccess;
}
cudaError_t refused_in_capture_of(CUstream_st* stream) {
    if (stream == nullptr || stream->capturing == nullptr) {
        return cudaSuccess;
    }
    stream->invalidated = true;
    return last_error = cudaErrorStreamCaptureUnsupported;
}
bool has_come(const CUevent_st& event) {
    return !streams().contains(event.stream) || event.stream->entered - event.stream->waiting.size() >= event.place;
}

cudaError_t count_graph() {
    long& left = device().graphs_until_failure;
    if (left == 0) {
        return last_error = device().graph_error;
    }
    left -= left > 0 ? 1 : 0;
    return cudaSuccess;
}

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

cudaError_t enqueue(cudaStream_t stream, EmulatedWork work) {
    if (lost()) {
        return last_error = kLost;
    }
    if (stream != nullptr && stream->invalidated) {
        return last_error = cudaErrorStreamCaptureInvalidated;
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
    return cudaSuccess;
}

cudaError_t enqueue(cudaStream_t stream, std::function<void()> work) {
    return enqueue(stream, EmulatedWork{std::move(work)});
}

bool is_device_memory(const void* address, size_t bytes) {
    auto* at = static_cast<std::byte*>(const_cast<void*>(address));
    const auto after = allocations().upper_bound(at);
    return after != allocations().begin() && at + bytes <= std::prev(after)->first + std::prev(after)->second;
}

cudaError_t allow_shared(const void* kernel, size_t bytes, size_t static_shared) {
    if (bytes + static_shared > kMostShared) {
        return last_error = cudaErrorInvalidValue;
    }
    allowed_shared()[kernel] = bytes;
    return cudaSuccess;
}

cudaError_t enqueue_kernel(cudaStream_t stream, const void* kernel, Index3 grid, Index3 block, size_t shared_bytes, bool early,
                           std::function<void()> body, size_t static_shared) {
    const auto allowed = allowed_shared().find(kernel);
    if (allowed == allowed_shared().end() ? static_shared + shared_bytes > size_t{48} << 10 : shared_bytes > allowed->second) {
        return last_error = cudaErrorInvalidValue;
    }
    if (early && !device().early_in_graphs) {
        if (const cudaError_t refused = refused_in_capture_of(stream); refused != cudaSuccess) {
            return refused;
        }
    }
    device().kernels++;
    const size_t bytes = static_shared + shared_bytes;
    if (!early) {
        return enqueue(stream, EmulatedWork{[=] { run_grid(grid, block, bytes, body); }, true});
    }
    const auto launch = std::make_shared<EarlyLaunch>(grid, block, bytes, std::move(body));
    return enqueue(stream, EmulatedWork{[launch] { launch->run(); }, true, [launch] { launch->start(); }});
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
    if (const cudaError_t refused = refused_in_capture(); refused != cudaSuccess) {
        return refused;
    }
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
    if (const cudaError_t refused = refused_in_capture(); refused != cudaSuccess) {
        return refused;
    }
    run_all();
    const auto it = allocations().find(static_cast<std::byte*>(pointer));
    if (it == allocations().end()) {
        return pointer == nullptr ? cudaSuccess : last_error = cudaErrorInvalidValue;
    }
    device().used -= it->second;
    allocations().erase(it);
    std::free(pointer);
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
    if (const cudaError_t refused = refused_in_capture(); refused != cudaSuccess) {
        return refused;
    }
    *pointer = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
    pinned()[static_cast<std::byte*>(*pointer)] = bytes;
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void* pointer) {
    if (const cudaError_t refused = refused_in_capture(); refused != cudaSuccess) {
        return refused;
    }
    run_all();
    if (pinned().erase(static_cast<std::byte*>(pointer)) == 0) {
        return pointer == nullptr ? cudaSuccess : last_error = cudaErrorInvalidValue;
    }
    std::free(pointer);
    return cudaSuccess;
}
// As CUDA does it: from memory that is not pinned a copy is taken at once, and into such the call waits. Neither can be captured.
cudaError_t cudaMemcpyAsync(void* target, const void* source, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    const bool up = kind == cudaMemcpyHostToDevice, down = kind == cudaMemcpyDeviceToHost;
    if (bytes > 0 && (is_device_memory(target, bytes) == down || is_device_memory(source, bytes) == up)) {
        return last_error = cudaErrorInvalidValue;
    }
    if ((up && !is_pinned(source)) || (down && !is_pinned(target))) {
        if (const cudaError_t refused = refused_in_capture_of(stream); refused != cudaSuccess) {
            return refused;
        }
    }
    if (up && !is_pinned(source)) {
        const auto* from = static_cast<const std::byte*>(source);
        return enqueue(stream, [target, copy = std::vector<std::byte>(from, from + bytes)] {
            std::memcpy(target, copy.data(), copy.size());
        });
    }
    const cudaError_t error = enqueue(stream, [=] { std::memcpy(target, source, bytes); });
    return error == cudaSuccess && down && !is_pinned(target) ? cudaStreamSynchronize(stream) : error;
}
cudaError_t cudaMemsetAsync(void* target, int value, size_t bytes, cudaStream_t stream) {
    if (bytes > 0 && !is_device_memory(target, bytes)) {
        return last_error = cudaErrorInvalidValue;
    }
    return enqueue(stream, [=] { std::memset(target, value, bytes); });
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
    if (const cudaError_t refused = stream == nullptr ? refused_in_capture() : refused_in_capture_of(stream); refused != cudaSuccess) {
        return refused;
    }
    if (stream == nullptr) {
        run_all();
    } else {
        run_until(*stream, stream->entered);
    }
    return device().calls_until_lost == 0 ? kLost : cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (stream == nullptr) {
        return last_error = cudaErrorStreamCaptureUnsupported;
    }
    if (stream->capturing != nullptr) {
        return last_error = cudaErrorIllegalState;
    }
    stream->capturing = new CUgraph_st;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
    *graph = nullptr;
    if (stream == nullptr || stream->capturing == nullptr) {
        return last_error = cudaErrorIllegalState;
    }
    *graph = std::exchange(stream->capturing, nullptr);
    if (std::exchange(stream->invalidated, false)) {
        delete std::exchange(*graph, nullptr);
        return last_error = cudaErrorStreamCaptureInvalidated;
    }
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
    *exec = nullptr;
    if (graph == nullptr) {
        return last_error = cudaErrorInvalidValue;
    }
    if (device().graph_error != cudaErrorMemoryAllocation) {
        if (const cudaError_t error = count_graph(); error != cudaSuccess) {
            return error;
        }
    }
    *exec = new CUgraphExec_st{graph->work};
    return cudaSuccess;
}
// The GPU's memory is taken here, or else by the first launch.
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    if (const cudaError_t refused = refused_in_capture_of(stream); refused != cudaSuccess) {
        return refused;
    }
    if (!exec->uploaded && device().graph_error == cudaErrorMemoryAllocation) {
        if (const cudaError_t error = count_graph(); error != cudaSuccess) {
            return error;
        }
    }
    exec->uploaded = true;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    if (exec == nullptr) {
        return last_error = cudaErrorInvalidValue;
    }
    if (const cudaError_t error = cudaGraphUpload(exec, stream); error != cudaSuccess) {
        return error;
    }
    device().graph_launches++;
    for (size_t i = 0; i < exec->work.size(); i++) {
        EmulatedWork work = exec->work[i];
        if (i == 0) {
            work.start = {};  // a graph begins when all before it has ended
        }
        work.kernel = work.kernel && i + 1 < exec->work.size();  // and ends as a whole
        if (const cudaError_t error = enqueue(stream, std::move(work)); error != cudaSuccess) {
            return error;
        }
    }
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    delete exec;
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
    *event = new CUevent_st;
    (*event)->timing = (flags & cudaEventDisableTiming) == 0;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event->captured = stream != nullptr && stream->capturing != nullptr;
    const cudaError_t error = enqueue(stream, [=] { event->time = std::chrono::steady_clock::now(); });
    event->stream = stream;
    event->place = stream == nullptr ? 0 : stream->entered;
    return error;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    if (event->captured) {
        return last_error = cudaErrorCapturedEvent;
    }
    if (event->stream != nullptr && streams().contains(event->stream)) {
        run_until(*event->stream, event->place);
    }
    return device().calls_until_lost == 0 ? kLost : cudaSuccess;
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
    for (const CUevent_st* event : {start, end}) {
        if (!event->timing || event->captured || event->stream == nullptr) {
            return last_error = cudaErrorInvalidResourceHandle;
        }
        if (!has_come(*event)) {
            return last_error = cudaErrorNotReady;
        }
    }
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
