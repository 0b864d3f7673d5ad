#include "tests/support/ptx/machine.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/support/cuda_emulation/emulation.hpp"

namespace llm::ptx {

using namespace llm::emulation;

void Thread::fail(const char* what) const {
    const uint32_t line = now == nullptr ? 0 : now->line;
    std::fprintf(stderr, "PTX: %s\n  %s\n  line %u, block %u,%u,%u, thread %u\n%s\n", what, kernel.name.c_str(), line, block_index.x, block_index.y,
                 block_index.z, thread_index.x, line == 0 ? "" : module.lines[line - 1].c_str());
    std::abort();
}

std::byte* Thread::memory(Space space, uint64_t address, size_t bytes) const {
    if (address % bytes != 0) {
        fail("a misaligned address");
    }
    if (space == Space::kShared) {
        const auto offset = static_cast<uint32_t>(address);
        if (address > UINT32_MAX || offset + bytes > shared_bytes) {
            fail("an address outside of the block's shared memory");
        }
        return shared + offset;
    }
    if (space == Space::kLocal) {
        if (address + bytes > kernel.local) {
            fail("an address outside of the thread's local memory");
        }
        return local + address;
    }
    if (space == Space::kParam) {
        if (address + bytes > kernel.parameter_bytes) {
            fail("an address outside of the parameters");
        }
        return const_cast<std::byte*>(parameters) + address;  // nothing writes there: st has no such space
    }
    auto* host = reinterpret_cast<std::byte*>(address);  // NOLINT: that is what an address is here
    const auto is_in = [&](const std::byte* begin, size_t size) { return host >= begin && host + bytes <= begin + size; };
    const bool own = is_in(shared, shared_bytes) || is_in(local, kernel.local);
    if (!(space == Space::kGeneric && own) && !is_device_memory(host, bytes)) {
        fail("an address that is not in device memory");
    }
    return host;
}

void run_thread(const Module& module, const Kernel& kernel, const std::byte* parameters, size_t shared_bytes, uint64_t launch) {
    constexpr uint64_t kPoison = 0xfff7dead7fc0dead;  // neither an address nor a small number
    // Registers keep their memory from thread to thread.
    thread_local std::vector<std::vector<uint64_t>> spare;
    std::vector<uint64_t> registers;
    if (!spare.empty()) {
        registers = std::move(spare.back());
        spare.pop_back();
    }
    registers.assign(kernel.registers, kPoison);
    const uint64_t special[] = {thread_index.x, thread_index.y, thread_index.z, block_size.x, block_size.y, block_size.z,
                                block_index.x,  block_index.y,  block_index.z,  grid_size.x,  grid_size.y,  grid_size.z,
                                static_cast<uint64_t>(lane())};
    std::copy(std::begin(special), std::end(special), registers.begin());
    for (const Constant& constant : kernel.constants) {
        registers[constant.slot] = constant.value;
    }

    std::vector<uint64_t> local(kernel.local / sizeof(uint64_t) + 1, kPoison);
    Thread thread{module, kernel, parameters, static_cast<std::byte*>(dynamic_shared()), shared_bytes, registers.data(),
                  reinterpret_cast<std::byte*>(local.data())};
    thread.profile = memory_profile();
    if (thread.profile != nullptr) {
        thread.profile->thread_begins(module, kernel);
    }
    thread.order = block_order();
    if (thread.order != nullptr) {
        thread.order->begin(launch);
    }
    while (thread.at < kernel.code.size()) {
        const Instruction& i = kernel.code[thread.at++];
        if (i.guard < 0 || ((registers[static_cast<size_t>(i.guard)] & 1) != 0) != i.guard_negated) {
            thread.now = &i;
            i.run(thread, i);
        }
    }
    spare.push_back(std::move(registers));
}

}  // namespace llm::ptx
