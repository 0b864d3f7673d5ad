// What warps ask of memory, counted while PTX runs, as a profiler on a GPU counts it: in how many turns shared memory serves an access
// (its 32 banks give 4 bytes each per turn), and how many sectors of 32 bytes one of global memory touches; beside the least
// that those bytes could take.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

namespace llm::ptx {

struct Instruction;
struct Kernel;
struct Module;

struct MemoryUse {
    uint64_t turns = 0, least_turns = 0;      // of shared memory
    uint64_t sectors = 0, least_sectors = 0;  // of global memory
    double shared() const { return least_turns == 0 ? 1 : static_cast<double>(turns) / static_cast<double>(least_turns); }
    double global() const { return least_sectors == 0 ? 1 : static_cast<double>(sectors) / static_cast<double>(least_sectors); }
};

// Counts from here to its end; there may be one at a time. Launches must not begin early: blocks are told apart by their order.
class MemoryProfile {
  public:
    MemoryProfile();
    ~MemoryProfile();
    MemoryProfile(const MemoryProfile&) = delete;
    MemoryProfile& operator=(const MemoryProfile&) = delete;

    // By kernel, as the linker names it.
    std::map<std::string, MemoryUse> kernels();
    // The instructions of such a kernel that take most more than the least, a line each.
    std::string worst(const std::string& kernel, size_t lines);

    // For Thread. `at`: an address; of shared memory, an offset.
    void thread_begins(const Module& module, const Kernel& kernel);
    void access(const Instruction& instruction, size_t bracket, bool shared, uint64_t at, size_t bytes);

  private:
    struct Parts;
    Parts* parts_;
};

// The one that counts now, or nullptr.
MemoryProfile* memory_profile();

}  // namespace llm::ptx
