// Large aligned memory for weights, keys and values.
#pragma once

#include <cstddef>
#include <utility>

namespace llm::engine {

// Zeroed memory straight from the system: page-aligned, on huge pages where the system grants them (streaming
// over 4 KiB pages costs bandwidth: hardware prefetchers stop at a page's end), and touched only when used.
class Region {
  public:
    Region() = default;
    // kHuge: on huge pages where the system grants them, for what is streamed as a whole (hardware
    // prefetchers stop at the end of a page). kSmall: for what fills up little by little, where a huge page
    // would be zeroed for each of many beginnings.
    enum class Pages { kSmall, kHuge };
    // Throws std::runtime_error when the system refuses.
    explicit Region(size_t bytes, Pages pages = Pages::kHuge);
    ~Region();
    Region(Region&& other) noexcept
        : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
    Region& operator=(Region&& other) noexcept {
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

// Bytes that the system could give without swapping (MemAvailable), 0 if unknown.
size_t available_memory();

constexpr size_t round_up(size_t value, size_t multiple) {
    return (value + multiple - 1) / multiple * multiple;
}

}  // namespace llm::engine
