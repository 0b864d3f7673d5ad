// Runs CUDA kernels on the host, so that their logic is tested where there is no GPU.
//
// Every thread of a block is a fiber. A fiber runs until it reaches a barrier or a warp-wide operation and goes
// on when all threads that take part have arrived, so kernels are compiled unchanged. The order of blocks, and
// that in which fibers are resumed, is shuffled: a missing barrier changes results. What the emulation
// reports (and ends the program for): barriers that only part of the threads reach, warp operations in which
// lanes differ, addresses that are not aligned for their access, and use of device memory outside its
// allocation where the address sanitizer is on. Compiled with ThreadSanitizer (LLM_EMULATION_RACES), accesses of
// two threads of a block that no barrier separates.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

namespace llm::emulation {

struct Index3 {
    uint32_t x = 1, y = 1, z = 1;
};

// Of the fiber that runs now.
extern thread_local Index3 thread_index, block_index, block_size, grid_size;

// Runs `body` once per thread of the grid, block after block in any order. `shared_bytes` of dynamic shared memory are
// filled with NaN before each block.
void run_grid(Index3 grid, Index3 block, size_t shared_bytes, const std::function<void()>& body);

// A launch that may begin before the one before it has ended. One of its blocks, any, does: start() lets it come as far as
// wait_for_launch_before(), run() does the rest. A thread that ends without having waited ends the program. May be
// started and run again; start() may be left out.
class EarlyLaunch {
  public:
    EarlyLaunch(Index3 grid, Index3 block, size_t shared_bytes, std::function<void()> body);
    ~EarlyLaunch();
    void start();
    void run();

  private:
    struct Parts;
    std::unique_ptr<Parts> parts_;
};
void wait_for_launch_before();

// Seeds the order in which blocks and fibers run; 0 = by their index.
void set_schedule(uint64_t seed);

// Ends the program if the address is not a multiple of `bytes`, as a GPU would.
void require_aligned(const void* address, size_t bytes);
void* dynamic_shared();
// Whether all of it is in one allocation of cudaMalloc (runtime.cpp).
bool is_device_memory(const void* address, size_t bytes);
void sync_block();

inline constexpr size_t kPayload = 64;
struct Payload {
    alignas(16) unsigned char bytes[kPayload];
};
// What every lane of the warp has handed in, [32], once all of `mask` are there; valid until the lane's next
// exchange. `kind` must be the same for all; kSyncWarp also orders their accesses to memory.
inline constexpr int kSyncWarp = 1;
const Payload* exchange(int kind, uint32_t mask, const void* data, size_t size);
int lane();

// cp.async: the copy happens when its group is waited for, not before; until then the target is NaN.
void async_copy(void* target, const void* source, size_t bytes, bool zero);
void async_commit();
void async_wait(int groups_left);

}  // namespace llm::emulation
