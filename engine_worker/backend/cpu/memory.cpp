#include "engine_worker/backend/cpu/memory.hpp"

#include <sys/mman.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <stdexcept>
#include <string>

namespace llm::engine {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

Region::Region(size_t bytes, Pages pages) {
    const bool huge = pages == Pages::kHuge && bytes >= kHugePage;
    size_ = round_up(bytes, huge ? kHugePage : kPage);
    if (size_ == 0) {
        return;
    }
    // One huge page more than needed, so that the part used can begin on a huge page.
    const size_t reserved = huge ? size_ + kHugePage : size_;
    void* start =
        mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) {
        throw std::runtime_error("cannot reserve " + std::to_string(size_ >> 20) +
                                 " MiB of memory: " + std::strerror(errno));
    }
    data_ = static_cast<std::byte*>(start);
    if (!huge) {
        return;
    }
    auto* aligned = reinterpret_cast<std::byte*>(round_up(reinterpret_cast<size_t>(data_), kHugePage));
    const auto before = static_cast<size_t>(aligned - data_);
    if (before > 0) {
        munmap(data_, before);
    }
    if (before < kHugePage) {
        munmap(aligned + size_, kHugePage - before);
    }
    madvise(aligned, size_, MADV_HUGEPAGE);
    data_ = aligned;
}

Region::~Region() {
    if (data_ != nullptr) {
        munmap(data_, size_);
    }
}

size_t available_memory() {
    std::ifstream in("/proc/meminfo");
    std::string key;
    size_t kib = 0;
    std::string unit;
    while (in >> key >> kib) {
        if (key == "MemAvailable:") {
            return kib << 10;
        }
        std::getline(in, unit);
    }
    return 0;
}

}  // namespace llm::engine
