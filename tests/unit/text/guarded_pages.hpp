// Memory between two pages that nobody may touch: a read beyond a text ends the test, in every build.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string_view>

namespace llm::core {

// Holds one text at a time, of at most `capacity` bytes; the next one overwrites it.
class GuardedPages {
  public:
    explicit GuardedPages(size_t capacity)
        : page_(static_cast<size_t>(sysconf(_SC_PAGESIZE))), size_((capacity + page_ - 1) / page_ * page_) {
        void* const memory = mmap(nullptr, size_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) {
            std::abort();
        }
        begin_ = static_cast<char*>(memory) + page_;
        if (mprotect(begin_, size_, PROT_READ | PROT_WRITE) != 0) {
            std::abort();
        }
    }
    ~GuardedPages() { munmap(begin_ - page_, size_ + 2 * page_); }
    GuardedPages(const GuardedPages&) = delete;
    GuardedPages& operator=(const GuardedPages&) = delete;

    // A copy of `text` whose last byte is the last that may be read.
    std::string_view at_end(std::string_view text) { return copy(text, begin_ + size_ - text.size()); }
    // A copy whose first byte is the first that may be read.
    std::string_view at_begin(std::string_view text) { return copy(text, begin_); }

  private:
    std::string_view copy(std::string_view text, char* to) const {
        if (text.size() > size_) {
            std::abort();
        }
        std::memcpy(to, text.data(), text.size());
        return {to, text.size()};
    }

    size_t page_;
    size_t size_;
    char* begin_ = nullptr;
};

}  // namespace llm::core
