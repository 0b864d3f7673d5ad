// Whether a block that reads what another block of the same launch wrote is ordered after it, by the rules of "Parallel Thread Execution
// ISA", section "Memory Consistency Model": the writer's barrier and fence and then its atomic operation, the reader's atomic operation on
// the same word later, then a fence and a barrier. And whether a launch, before it waits for the one before it (griddepcontrol.wait),
// reads what that one writes, or writes. Blocks run one after the other here, so results are right without all that.
#pragma once

#include <cstddef>
#include <cstdint>

namespace llm::ptx {

struct Thread;

// Watches global memory from here to its end; there may be one at a time. Launches must not begin early, nor be recorded: they
// are told apart by when they were made.
class BlockOrder {
  public:
    BlockOrder();
    ~BlockOrder();
    BlockOrder(const BlockOrder&) = delete;
    BlockOrder& operator=(const BlockOrder&) = delete;

    // Words that blocks read of others, in order; the first that is not ends the program.
    uint64_t reads() const;

    // For Thread, whose they are. A barrier is arrived at, then left when all have arrived.
    void begin(uint64_t launch);
    void read(const Thread& thread, const std::byte* at, size_t bytes);
    void write(const Thread& thread, const std::byte* at, size_t bytes);
    void wait();  // for the launch before
    void fence();
    void atomic(const std::byte* at);
    void arrive();
    void leave();

  private:
    struct Parts;
    Parts* parts_;
};

// The one that watches now, or nullptr.
BlockOrder* block_order();

}  // namespace llm::ptx
