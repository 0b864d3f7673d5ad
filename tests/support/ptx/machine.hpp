// One GPU thread that executes PTX instructions. Threads are the fibers of cuda_emulation/emulation.hpp: their order is shuffled,
// barriers and warp operations wait there. Every access to memory must be aligned and lie in an allocation of cudaMalloc, in the block's
// shared memory, in the thread's own or in the parameters.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "tests/support/ptx/block_order.hpp"
#include "tests/support/ptx/memory_profile.hpp"
#include "tests/support/ptx/module.hpp"

namespace llm::ptx {

struct Thread {
    const Module& module;
    const Kernel& kernel;
    const std::byte* parameters;
    std::byte* shared;        // of the block: static, then dynamic
    size_t shared_bytes;
    uint64_t* registers;
    std::byte* local;         // of the thread
    size_t at = 0;            // of the next instruction
    const Instruction* now = nullptr;
    MemoryProfile* profile = nullptr;
    BlockOrder* order = nullptr;

    // The low bytes of a register; what is above them is not looked at.
    template <typename T>
    T get(const Instruction& i, size_t operand) const {
        T out;
        std::memcpy(&out, &registers[i.operand[operand]], sizeof(T));
        return out;
    }
    // Writes all of the register: the rest is zeros, of signed values the sign.
    template <typename T>
    void set(const Instruction& i, size_t operand, T value) {
        uint64_t& target = registers[i.operand[operand]];
        if constexpr (std::is_integral_v<T> && std::is_signed_v<T>) {
            target = static_cast<uint64_t>(int64_t{value});
        } else {
            target = 0;
            std::memcpy(&target, &value, sizeof(T));
        }
    }
    bool predicate(const Instruction& i, size_t operand) const { return (registers[i.operand[operand]] & 1) != 0; }

    // Ends the program with the instruction's line.
    [[noreturn]] void fail(const char* what) const;
    // Where an address of that space is on the host, after the checks. `bytes` is a power of two.
    std::byte* memory(Space space, uint64_t address, size_t bytes) const;
    // Where BlockOrder watches: global memory.
    bool watched(const std::byte* host) const { return order != nullptr && (host < shared || host >= shared + shared_bytes); }
    std::byte* address_of(const Instruction& i, size_t operand, Space space, size_t bytes, size_t bracket = 0) const {
        std::byte* host = memory(space, get<uint64_t>(i, operand) + static_cast<uint64_t>(i.offset[bracket]), bytes);
        if (profile != nullptr && space != Space::kParam && space != Space::kLocal) {
            const bool in_shared = host >= shared && host < shared + shared_bytes;
            profile->access(i, bracket, in_shared, in_shared ? static_cast<uint64_t>(host - shared) : reinterpret_cast<uint64_t>(host), bytes);
        }
        return host;
    }
};

// Executes the kernel as the fiber that runs now. `parameters` and `shared_bytes` are those of the launch; `launch` is another number for
// each.
void run_thread(const Module& module, const Kernel& kernel, const std::byte* parameters, size_t shared_bytes, uint64_t launch = 0);

// Of the warp (warp_operations.cpp); looked up by find_operation().
Run find_warp_operation(std::string_view opcode);

}  // namespace llm::ptx
