// Usage records that a worker could not write before it ended, for the workers that come after it. They lie
// in a file in memory that the master makes and all of its workers share.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "ngx_module/sources/usage_record.hpp"

namespace llm::nginx::sources {

class UsageHandover {
  public:
    // The file; negative: nothing can be handed over. Whoever made it closes it.
    explicit UsageHandover(int fd) : fd_(fd) {}

    // A new file. -1, with errno, when there is none to be had.
    static int make();

    // One system call.
    bool empty() const;

    // False, and nothing is handed over, when the file would grow beyond kMostBytes or the kernel has no
    // memory for it.
    bool put(std::span<const UsageRecord> records);

    // Takes what one put() has left, the latest first. Empty when nothing is left.
    std::vector<UsageRecord> take();

    // Records that are left.
    size_t count() const;

    // Gives up what is left, and says how many records that were.
    size_t discard();

    static constexpr size_t kMostBytes = 64 << 20;

  private:
    int fd_;
};

}  // namespace llm::nginx::sources
