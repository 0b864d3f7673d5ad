#include "engine_worker/backend/cuda/runtime.hpp"

#include "engine_worker/backend/cuda/kernels/launch.hpp"
#include "engine_worker/backend/cuda/plan.hpp"

namespace llm::engine::cuda {
namespace {

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

void check_cuda(cudaError_t error, const char* what) {
    if (error != cudaSuccess) {
        cudaGetLastError();  // or the next who asks, a library say, takes it for its own
        throw std::runtime_error(std::string("the GPU failed while ") + what + ": " + cudaGetErrorString(error) +
                                 " (" + cudaGetErrorName(error) + ")");
    }
}

DeviceInfo open_device() {
    int driver = 0;
    int runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) {
        throw std::runtime_error("no NVIDIA driver is installed");
    }
    if (driver / 1000 < runtime / 1000) {
        throw std::runtime_error("the NVIDIA driver is too old: it supports CUDA " + version_text(driver) +
                                 ", this program needs " + version_text(runtime / 1000 * 1000) + " or later");
    }
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    if (error != cudaSuccess || count < 1) {
        cudaGetLastError();
        throw std::runtime_error("the NVIDIA driver finds no GPU" +
                                 (error == cudaSuccess || error == cudaErrorNoDevice
                                      ? std::string()
                                      : std::string(" (") + cudaGetErrorString(error) + ")"));
    }
    check_cuda(cudaSetDevice(0), "being opened");
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, 0), "being asked what it is");
    DeviceInfo info;
    info.name = properties.name;
    info.major = properties.major;
    info.minor = properties.minor;
    info.multiprocessors = properties.multiProcessorCount;
    if (const std::string built = built_capabilities();
        built != "emulated" && !capability_is_built(built, info.major, info.minor)) {
        throw std::runtime_error("the " + info.name + " has compute capability " + std::to_string(info.major) + "." +
                                 std::to_string(info.minor) + "; this program was built for " + built +
                                 (info.major < 8 ? ", and needs 8.0 at least"
                                                 : " (set LLM_CUDA_ARCHITECTURES and build again)"));
    }
    check_cuda(cudaMemGetInfo(&info.free_memory, &info.total_memory), "being asked for its memory");
    return info;
}

void* reserve_device(size_t bytes) {
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
        cudaGetLastError();
        throw std::runtime_error("the GPU does not have " + memory_text(bytes) + " of memory free");
    }
    check_cuda(error, "reserving memory");
    return data;
}

void release_device(void* data) {
    cudaFree(data);  // an error here has been reported before
}

void* reserve_pinned(size_t bytes) {
    void* data = nullptr;
    check_cuda(cudaMallocHost(&data, bytes), "pinning host memory");
    return data;
}

void release_pinned(void* data) {
    cudaFreeHost(data);
}

Stream::Stream() {
    check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
}

Stream::~Stream() {
    cudaStreamDestroy(stream_);
}

void Stream::synchronize() const {
    check_cuda(cudaStreamSynchronize(stream_), "computing");
}

void Stream::upload(void* device, const void* host, size_t bytes) const {
    check_cuda(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_), "receiving data");
}

void Stream::download(void* host, const void* device, size_t bytes) const {
    check_cuda(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_), "sending data");
}

void Stream::zero(void* device, size_t bytes) const {
    check_cuda(cudaMemsetAsync(device, 0, bytes, stream_), "clearing memory");
}

Event::Event(bool timing) {
    check_cuda(cudaEventCreateWithFlags(&event_, timing ? cudaEventDefault : cudaEventDisableTiming),
               "creating an event");
}

Event::~Event() {
    cudaEventDestroy(event_);
}

void Event::record(const Stream& stream) {
    check_cuda(cudaEventRecord(event_, stream.get()), "recording an event");
}

void Event::synchronize() const {
    check_cuda(cudaEventSynchronize(event_), "computing");
}

float Event::elapsed(const Event& start, const Event& end) {
    float ms = 0;
    check_cuda(cudaEventElapsedTime(&ms, start.event_, end.event_), "being timed");
    return ms;
}

void Graph::begin(const Stream& stream) {
    check_cuda(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeThreadLocal), "recording a graph");
}

void Graph::abandon(const Stream& stream) {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(stream.get(), &graph) == cudaSuccess && graph != nullptr) {
        cudaGraphDestroy(graph);
    }
    cudaGetLastError();
}

void Graph::end(const Stream& stream) {
    cudaGraph_t graph = nullptr;
    check_cuda(cudaStreamEndCapture(stream.get(), &graph), "recording a graph");
    cudaError_t error = cudaGraphInstantiate(&exec_, graph, 0);
    cudaGraphDestroy(graph);
    if (error == cudaSuccess) {
        // What it takes on the GPU is taken now: the first launch would be too late to do without.
        error = cudaGraphUpload(exec_, stream.get());
        if (error != cudaSuccess) {
            cudaGraphExecDestroy(exec_);
        }
    }
    if (error != cudaSuccess) {
        exec_ = nullptr;
        cudaGetLastError();
    }
    if (error != cudaErrorMemoryAllocation) {
        check_cuda(error, "preparing a graph");
    }
}

Graph::~Graph() {
    if (exec_ != nullptr) {
        cudaGraphExecDestroy(exec_);
    }
}

void Graph::launch(const Stream& stream) const {
    check_cuda(cudaGraphLaunch(exec_, stream.get()), "starting a graph");
}

}  // namespace llm::engine::cuda
