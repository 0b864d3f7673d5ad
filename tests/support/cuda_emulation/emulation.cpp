#include "tests/support/cuda_emulation/emulation.hpp"

#include <sys/mman.h>

#if defined(LLM_EMULATION_RACES)
#include <sanitizer/tsan_interface.h>
#endif

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace llm::emulation {

thread_local Index3 thread_index, block_index, block_size, grid_size;

namespace {

constexpr size_t kStack = size_t{256} << 10;
constexpr uint32_t kWarp = 32;

#if defined(__x86_64__)
// Saves the registers that a call must keep on the old stack and takes them from the new one.
extern "C" void llm_emulation_switch(void** save, void* load);
asm(R"(
.text
.type llm_emulation_switch, @function
llm_emulation_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size llm_emulation_switch, .-llm_emulation_switch
)");
using Context = void*;
#else
using Context = ucontext_t;
#endif

// What ThreadSanitizer is told: every fiber is a thread of its own, ordered with others by the block's barriers and
// __syncwarp alone. Shuffles, products and ballots order nothing in memory. Barriers are known by two places in turn:
// who is already at the next one must not be seen by who leaves this one only now.
#if defined(LLM_EMULATION_RACES)
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void AnnotateIgnoreWritesBegin(const char*, int);
void AnnotateIgnoreWritesEnd(const char*, int);
}
void ignore_accesses(bool on) {
    (on ? AnnotateIgnoreReadsBegin : AnnotateIgnoreReadsEnd)(__FILE__, __LINE__);
    (on ? AnnotateIgnoreWritesBegin : AnnotateIgnoreWritesEnd)(__FILE__, __LINE__);
}
void* new_thread() { return __tsan_create_fiber(0); }
void* this_thread() { return __tsan_get_current_fiber(); }
void become_thread(void* thread) { __tsan_switch_to_fiber(thread, __tsan_switch_to_fiber_no_sync); }
void end_thread(void* thread) { __tsan_destroy_fiber(thread); }
void publish(void* at) { __tsan_release(at); }
void observe(void* at) { __tsan_acquire(at); }
#else
void ignore_accesses(bool) {}
void* new_thread() { return nullptr; }
void* this_thread() { return nullptr; }
void become_thread(void*) {}
void end_thread(void*) {}
void publish(void*) {}
void observe(void*) {}
#endif

enum class State : uint8_t { kReady, kBlockBarrier, kWarpBarrier, kDone };

struct Copy {
    void* target;
    const void* source;
    size_t bytes;
    bool zero;
    int group;
};

struct Fiber {
    Context context{};
    std::byte* stack = nullptr;
    void* thread = nullptr;
    State state = State::kReady;
    Index3 index;
    int kind = 0;
    uint32_t mask = 0;
    uint32_t barriers = 0;  // of the block, so far
    int group = 0;
    std::vector<Copy> copies;
};

struct Warp {
    Payload deposited[kWarp];
    Payload seen[kWarp];
    char barrier[2] = {};  // what __syncwarp is known by
    uint32_t barriers = 0;
};

// One per OS thread that runs kernels.
struct Machine {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<uint32_t> order;
    std::vector<uint64_t> blocks;
    std::vector<std::byte> shared;
    const std::function<void()>* body = nullptr;
    Context scheduler{};
    void* scheduler_thread = nullptr;
    char begin = 0;        // what a block's begin, barriers and end are known by
    char barrier[2] = {};
    char end = 0;
    uint32_t current = 0;
    uint32_t count = 0;
    uint64_t schedule = 0x9e3779b97f4a7c15u;

    ~Machine() {
        for (Fiber& fiber : fibers) {
            if (fiber.stack != nullptr) {
                munmap(fiber.stack, kStack);
                end_thread(fiber.thread);
            }
        }
    }
};
thread_local Machine machine;

[[noreturn]] void die(const char* why) {
    std::fprintf(stderr, "emulated kernel: %s (block %u,%u,%u, thread %u)\n", why, block_index.x,
                 block_index.y, block_index.z, machine.current);
    std::abort();
}

void to_scheduler() {
    Machine& m = machine;
    become_thread(m.scheduler_thread);
#if defined(__x86_64__)
    llm_emulation_switch(&m.fibers[m.current].context, m.scheduler);
#else
    swapcontext(&m.fibers[m.current].context, &m.scheduler);
#endif
}

void fiber_main() {
    observe(&machine.begin);
    (*machine.body)();
    publish(&machine.end);
    machine.fibers[machine.current].state = State::kDone;
    to_scheduler();
    std::abort();  // a finished fiber is not resumed
}

void prepare(Fiber& fiber) {
    if (fiber.stack == nullptr) {
        void* memory = mmap(nullptr, kStack, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED) {
            die("no memory for a stack");
        }
        fiber.stack = static_cast<std::byte*>(memory);
        fiber.thread = new_thread();
    }
    fiber.state = State::kReady;
    fiber.group = 0;
    fiber.barriers = 0;
    fiber.copies.clear();
#if defined(__x86_64__)
    auto* top = reinterpret_cast<uint64_t*>(fiber.stack + kStack);
    *--top = 0;  // keeps the stack aligned as after a call
    *--top = reinterpret_cast<uint64_t>(&fiber_main);
    for (int i = 0; i < 6; i++) {
        *--top = 0;
    }
    fiber.context = top;
#else
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack;
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
#endif
}

uint64_t next_random(uint64_t& state) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

// Lets the lanes of a warp go on whose whole mask has arrived.
bool release_warp(uint32_t warp) {
    Machine& m = machine;
    const uint32_t first = warp * kWarp;
    const uint32_t last = std::min(first + kWarp, m.count);
    uint32_t alive = 0;
    uint32_t arrived = 0;
    for (uint32_t i = first; i < last; i++) {
        alive |= m.fibers[i].state != State::kDone ? 1u << (i - first) : 0;
        arrived |= m.fibers[i].state == State::kWarpBarrier ? 1u << (i - first) : 0;
    }
    for (uint32_t i = first; i < last; i++) {
        const Fiber& fiber = m.fibers[i];
        if (fiber.state != State::kWarpBarrier) {
            continue;
        }
        if ((fiber.mask >> (i - first) & 1) == 0 || (fiber.mask & ~alive) != 0) {
            m.current = i;
            die("a warp operation names a lane that has left, or not itself");
        }
        if ((fiber.mask & ~arrived) != 0) {
            continue;
        }
        m.warps[warp].barriers += fiber.kind == kSyncWarp ? 1 : 0;
        for (uint32_t j = first; j < last; j++) {
            if ((fiber.mask >> (j - first) & 1) == 0) {
                continue;
            }
            if (m.fibers[j].kind != fiber.kind || m.fibers[j].mask != fiber.mask) {
                m.current = j;
                die("lanes of a warp are at different operations");
            }
            m.warps[warp].seen[j - first] = m.warps[warp].deposited[j - first];
            m.fibers[j].state = State::kReady;
        }
        return true;
    }
    return false;
}

bool release_block() {
    Machine& m = machine;
    for (uint32_t i = 0; i < m.count; i++) {
        if (m.fibers[i].state != State::kBlockBarrier && m.fibers[i].state != State::kDone) {
            return false;
        }
    }
    bool any = false;
    for (uint32_t i = 0; i < m.count; i++) {
        if (m.fibers[i].state == State::kBlockBarrier) {
            m.fibers[i].state = State::kReady;
            any = true;
        }
    }
    return any;
}

// Runs the warp until none of its threads can go on without another warp.
bool run_warp(uint32_t warp, uint32_t rotation) {
    Machine& m = machine;
    const uint32_t first = warp * kWarp;
    const uint32_t size = std::min(kWarp, m.count - first);
    bool progress = false;
    for (bool again = true; again;) {
        again = false;
        for (uint32_t k = 0; k < size; k++) {
            const uint32_t i = first + (k + rotation) % size;
            if (m.fibers[i].state != State::kReady) {
                continue;
            }
            m.current = i;
            thread_index = m.fibers[i].index;
            become_thread(m.fibers[i].thread);
#if defined(__x86_64__)
            llm_emulation_switch(&m.scheduler, m.fibers[i].context);
#else
            swapcontext(&m.scheduler, &m.fibers[i].context);
#endif
            again = progress = true;
        }
        again = release_warp(warp) || again;
    }
    return progress;
}

void run_block(uint64_t& random) {
    Machine& m = machine;
    // Blocks are ordered: only what happens within one is looked at.
    observe(&m.end);
    publish(&m.begin);
    for (uint32_t i = 0; i < m.count; i++) {
        prepare(m.fibers[i]);
    }
    const uint32_t n_warps = (m.count + kWarp - 1) / kWarp;
    std::memset(m.shared.data(), 0xff, m.shared.size());
    for (;;) {
        for (uint32_t w = n_warps; m.schedule != 0 && w > 1; w--) {
            std::swap(m.order[w - 1], m.order[next_random(random) % w]);
        }
        bool progress = false;
        for (uint32_t w = 0; w < n_warps; w++) {
            const uint32_t rotation = m.schedule != 0 ? static_cast<uint32_t>(next_random(random) % kWarp) : 0;
            progress = run_warp(m.order[w], rotation) || progress;
        }
        if (release_block()) {
            continue;
        }
        if (std::all_of(m.fibers.begin(), m.fibers.begin() + m.count,
                        [](const Fiber& fiber) { return fiber.state == State::kDone; })) {
            return;
        }
        if (!progress) {
            die("deadlock: some threads are at a barrier that others do not reach");
        }
    }
}

}  // namespace

void run_grid(Index3 grid, Index3 block, size_t shared_bytes, const std::function<void()>& body) {
    Machine& m = machine;
    m.count = block.x * block.y * block.z;
    if (m.count == 0 || m.count > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535) {
        die("a launch with an impossible grid or block");
    }
    if (m.fibers.size() < m.count) {
        m.fibers.resize(m.count);
    }
    m.warps.resize((m.count + kWarp - 1) / kWarp);
    m.order.resize(m.warps.size());
    for (uint32_t w = 0; w < m.order.size(); w++) {
        m.order[w] = w;
    }
    for (uint32_t i = 0; i < m.count; i++) {
        m.fibers[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    }
    m.shared.resize(shared_bytes + 16);
    m.body = &body;
    grid_size = grid;
    block_size = block;
    m.scheduler_thread = this_thread();
    ignore_accesses(true);
    uint64_t random = m.schedule;
    const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
    m.blocks.resize(blocks);
    std::iota(m.blocks.begin(), m.blocks.end(), uint64_t{0});
    for (uint64_t b = blocks; m.schedule != 0 && b > 1; b--) {
        std::swap(m.blocks[b - 1], m.blocks[next_random(random) % b]);
    }
    for (const uint64_t b : m.blocks) {
        block_index = {static_cast<uint32_t>(b % grid.x), static_cast<uint32_t>(b / grid.x % grid.y),
                       static_cast<uint32_t>(b / grid.x / grid.y)};
        run_block(random);
    }
    ignore_accesses(false);
    observe(&m.end);
}

void set_schedule(uint64_t seed) {
    machine.schedule = seed;
}

void require_aligned(const void* address, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
        die("a misaligned address");
    }
}

void* dynamic_shared() {
    const auto address = reinterpret_cast<uintptr_t>(machine.shared.data());
    return reinterpret_cast<void*>((address + 15) / 16 * 16);
}

void sync_block() {
    Fiber& fiber = machine.fibers[machine.current];
    fiber.state = State::kBlockBarrier;
    char* barrier = &machine.barrier[fiber.barriers++ % 2];
    publish(barrier);
    to_scheduler();
    observe(barrier);
}

int lane() {
    return static_cast<int>(machine.current % kWarp);
}

const Payload* exchange(int kind, uint32_t mask, const void* data, size_t size) {
    Machine& m = machine;
    Fiber& fiber = m.fibers[m.current];
    Warp& warp = m.warps[m.current / kWarp];
    std::memcpy(warp.deposited[m.current % kWarp].bytes, data, std::min(size, kPayload));
    fiber.state = State::kWarpBarrier;
    fiber.kind = kind;
    fiber.mask = mask;
    char* barrier = kind == kSyncWarp ? &warp.barrier[warp.barriers % 2] : nullptr;
    if (barrier != nullptr) {
        publish(barrier);
    }
    to_scheduler();
    if (barrier != nullptr) {
        observe(barrier);
    }
    return warp.seen;
}

void async_copy(void* target, const void* source, size_t bytes, bool zero) {
    Fiber& fiber = machine.fibers[machine.current];
    require_aligned(target, bytes);
    require_aligned(source, bytes);
    fiber.copies.push_back({target, source, bytes, zero, fiber.group});
    std::memset(target, 0xff, bytes);  // it may arrive at any time from now on
}

void async_commit() {
    machine.fibers[machine.current].group++;
}

void async_wait(int groups_left) {
    Fiber& fiber = machine.fibers[machine.current];
    std::erase_if(fiber.copies, [&](const Copy& copy) {
        if (copy.group >= fiber.group - groups_left) {
            return false;
        }
        if (copy.zero) {
            std::memset(copy.target, 0, copy.bytes);
        } else {
            std::memcpy(copy.target, copy.source, copy.bytes);
        }
        return true;
    });
}

}  // namespace llm::emulation
