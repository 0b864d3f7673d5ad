// CUDA memory, streams, events and graphs that free themselves, and errors as exceptions.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace llm::engine::cuda {

// Throws std::runtime_error "the GPU failed while <what>: <CUDA's words>" unless `error` is success.
void check_cuda(cudaError_t error, const char* what);

struct DeviceInfo {
    std::string name;
    int major = 0, minor = 0;  // compute capability
    int multiprocessors = 0;
    size_t total_memory = 0;   // bytes
    size_t free_memory = 0;
};

// Chooses device 0 (CUDA_VISIBLE_DEVICES says which that is). Throws std::runtime_error with one sentence: no
// driver, a driver that is too old, no GPU, or one whose compute capability was not built in.
DeviceInfo open_device();

// Memory that goes back where it came from. `reserve` gets at least one byte to reserve and throws std::runtime_error when
// there is not enough; zero bytes are allowed and reserve nothing.
template <void* (*reserve)(size_t bytes), void (*release)(void* data)>
class Memory {
  public:
    Memory() = default;
    explicit Memory(size_t bytes)
        : data_(bytes == 0 ? nullptr : static_cast<std::byte*>(reserve(bytes))), size_(bytes) {}
    ~Memory() {
        if (data_ != nullptr) {
            release(data_);
        }
    }
    Memory(Memory&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Memory& operator=(Memory&& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_, other.size_);
        return *this;
    }
    std::byte* data() const { return data_; }
    size_t size() const { return size_; }

  private:
    std::byte* data_ = nullptr;
    size_t size_ = 0;
};

void* reserve_device(size_t bytes);
void release_device(void* data);
void* reserve_pinned(size_t bytes);
void release_pinned(void* data);

using DeviceMemory = Memory<reserve_device, release_device>;
// Host memory that the GPU copies from and to at full speed.
using PinnedMemory = Memory<reserve_pinned, release_pinned>;

class Stream {
  public:
    Stream();
    ~Stream();
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    cudaStream_t get() const { return stream_; }
    void synchronize() const;

    void upload(void* device, const void* host, size_t bytes) const;
    void download(void* host, const void* device, size_t bytes) const;
    void zero(void* device, size_t bytes) const;

  private:
    cudaStream_t stream_ = nullptr;
};

class Event {
  public:
    explicit Event(bool timing = false);
    ~Event();
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    void record(const Stream& stream);
    void synchronize() const;
    // Milliseconds between two recorded events with timing.
    static float elapsed(const Event& start, const Event& end);

  private:
    cudaEvent_t event_ = nullptr;
};

// What a function put into a stream, to be launched again at the cost of one call. It is recorded, not done. Not ready():
// the GPU had no memory for it.
class Graph {
  public:
    template <typename Function>
    Graph(const Stream& stream, Function&& record) {
        begin(stream);
        try {
            record();
        } catch (...) {
            abandon(stream);
            throw;
        }
        end(stream);
    }
    ~Graph();
    Graph(const Graph&) = delete;
    Graph& operator=(const Graph&) = delete;
    bool ready() const { return exec_ != nullptr; }
    void launch(const Stream& stream) const;

  private:
    static void begin(const Stream& stream);
    static void abandon(const Stream& stream);
    void end(const Stream& stream);
    cudaGraphExec_t exec_ = nullptr;
};

}  // namespace llm::engine::cuda
