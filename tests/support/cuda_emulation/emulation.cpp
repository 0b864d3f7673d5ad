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

enum class State : uint8_t { kReady, kBlockBarrier, kWarpBarrier, kLaunchBefore, kDone };

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
    bool waited = false;  // for the launch before
    std::vector<Copy> copies;
};

struct Warp {
    Payload deposited[kWarp];
    Payload seen[kWarp];
    char barrier[2] = {};  // what __syncwarp is known by
    uint32_t barriers = 0;
};

struct Shape {
    Index3 grid, block;
    size_t shared_bytes = 0;
    const std::function<void()>* body = nullptr;
    bool early = false;  // every thread must wait for the launch before
};

// Runs one block at a time.
struct Machine {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    std::vector<uint32_t> order;
    std::vector<std::byte> shared;
    Shape shape;
    uint64_t block = 0;
    bool held = false;     // the launch before has not ended
    Context scheduler{};
    void* scheduler_thread = nullptr;
    char begin = 0;        // what a block's begin and barriers are known by
    char barrier[2] = {};
    uint32_t current = 0;
    uint32_t count = 0;

    ~Machine() {
        for (Fiber& fiber : fibers) {
            if (fiber.stack != nullptr) {
                munmap(fiber.stack, kStack);
                end_thread(fiber.thread);
            }
        }
    }
};
thread_local std::vector<std::unique_ptr<Machine>> idle;  // machines keep their stacks
thread_local Machine* active = nullptr;                   // whose fiber runs now
thread_local char end_of_blocks = 0;
thread_local uint64_t schedule = 0x9e3779b97f4a7c15u;

[[noreturn]] void die(const char* why) {
    std::fprintf(stderr, "emulated kernel: %s (block %u,%u,%u, thread %u)\n", why, block_index.x,
                 block_index.y, block_index.z, active == nullptr ? 0 : active->current);
    std::abort();
}

void to_scheduler() {
    Machine& m = *active;
    become_thread(m.scheduler_thread);
#if defined(__x86_64__)
    llm_emulation_switch(&m.fibers[m.current].context, m.scheduler);
#else
    swapcontext(&m.fibers[m.current].context, &m.scheduler);
#endif
}

void fiber_main() {
    observe(&active->begin);
    (*active->shape.body)();
    Fiber& fiber = active->fibers[active->current];
    if (active->shape.early && !fiber.waited) {
        die("a thread that may begin early has ended without waiting for the launch before");
    }
    publish(&end_of_blocks);
    fiber.state = State::kDone;
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
    fiber.waited = false;
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
    Machine& m = *active;
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
    Machine& m = *active;
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
    Machine& m = *active;
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

// Runs the block from where it is: to its end (true), or until it waits for the launch before (false).
bool run_block(uint64_t& random) {
    Machine& m = *active;
    const uint32_t n_warps = (m.count + kWarp - 1) / kWarp;
    for (;;) {
        for (uint32_t w = n_warps; schedule != 0 && w > 1; w--) {
            std::swap(m.order[w - 1], m.order[next_random(random) % w]);
        }
        bool progress = false;
        for (uint32_t w = 0; w < n_warps; w++) {
            const uint32_t rotation = schedule != 0 ? static_cast<uint32_t>(next_random(random) % kWarp) : 0;
            progress = run_warp(m.order[w], rotation) || progress;
        }
        if (release_block()) {
            continue;
        }
        const auto end = m.fibers.begin() + m.count;
        if (std::all_of(m.fibers.begin(), end, [](const Fiber& fiber) { return fiber.state == State::kDone; })) {
            return true;
        }
        if (!progress) {
            if (std::any_of(m.fibers.begin(), end,
                            [](const Fiber& fiber) { return fiber.state == State::kLaunchBefore; })) {
                return false;
            }
            die("deadlock: some threads are at a barrier that others do not reach");
        }
    }
}

// Makes the machine's block the one that runs.
void select(Machine& m) {
    const Index3 grid = m.shape.grid;
    active = &m;
    grid_size = grid;
    block_size = m.shape.block;
    block_index = {static_cast<uint32_t>(m.block % grid.x), static_cast<uint32_t>(m.block / grid.x % grid.y),
                   static_cast<uint32_t>(m.block / grid.x / grid.y)};
    m.scheduler_thread = this_thread();
}

std::unique_ptr<Machine> take_machine(const Shape& shape) {
    std::unique_ptr<Machine> m;
    if (idle.empty()) {
        m = std::make_unique<Machine>();
    } else {
        m = std::move(idle.back());
        idle.pop_back();
    }
    const Index3 grid = shape.grid;
    const Index3 block = shape.block;
    m->shape = shape;
    m->count = block.x * block.y * block.z;
    if (m->count == 0 || m->count > 1024 || grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 ||
        grid.z > 65535) {
        die("a launch with an impossible grid or block");
    }
    if (m->fibers.size() < m->count) {
        m->fibers.resize(m->count);
    }
    m->warps.resize((m->count + kWarp - 1) / kWarp);
    m->order.resize(m->warps.size());
    std::iota(m->order.begin(), m->order.end(), 0u);
    for (uint32_t i = 0; i < m->count; i++) {
        m->fibers[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
    }
    m->shared.resize(shape.shared_bytes + 16);
    return m;
}

// Begins a block on the machine; true when it has ended.
bool begin_block(Machine& m, uint64_t block, bool held, uint64_t& random) {
    m.block = block;
    m.held = held;
    select(m);
    // Blocks are ordered: only what happens within one is looked at.
    observe(&end_of_blocks);
    publish(&m.begin);
    for (uint32_t i = 0; i < m.count; i++) {
        prepare(m.fibers[i]);
    }
    std::memset(m.shared.data(), 0xff, m.shared.size());
    return run_block(random);
}

// Ends the block of `early`, if there is one, and runs all others.
void run_blocks(const Shape& shape, std::unique_ptr<Machine> early) {
    ignore_accesses(true);
    uint64_t random = schedule;
    std::unique_ptr<Machine> m = take_machine(shape);
    std::vector<uint64_t> blocks(uint64_t{shape.grid.x} * shape.grid.y * shape.grid.z);
    std::iota(blocks.begin(), blocks.end(), uint64_t{0});
    for (uint64_t b = blocks.size(); schedule != 0 && b > 1; b--) {
        std::swap(blocks[b - 1], blocks[next_random(random) % b]);
    }
    for (const uint64_t b : blocks) {
        if (early != nullptr && early->block == b) {
            select(*early);
            early->held = false;
            for (uint32_t i = 0; i < early->count; i++) {
                Fiber& fiber = early->fibers[i];
                fiber.state = fiber.state == State::kLaunchBefore ? State::kReady : fiber.state;
            }
            run_block(random);
            idle.push_back(std::move(early));
        } else {
            begin_block(*m, b, false, random);
        }
    }
    idle.push_back(std::move(m));
    active = nullptr;
    ignore_accesses(false);
    observe(&end_of_blocks);
}

}  // namespace

void run_grid(Index3 grid, Index3 block, size_t shared_bytes, const std::function<void()>& body) {
    run_blocks({grid, block, shared_bytes, &body, false}, nullptr);
}

struct EarlyLaunch::Parts {
    std::function<void()> body;
    Shape shape;
    std::unique_ptr<Machine> early;
    uint64_t random = schedule;  // which block is early, from launch to launch
};

EarlyLaunch::EarlyLaunch(Index3 grid, Index3 block, size_t shared_bytes, std::function<void()> body)
    : parts_(std::make_unique<Parts>()) {
    parts_->body = std::move(body);
    parts_->shape = {grid, block, shared_bytes, &parts_->body, true};
}
EarlyLaunch::~EarlyLaunch() = default;

void EarlyLaunch::start() {
    ignore_accesses(true);
    const Index3 grid = parts_->shape.grid;
    const uint64_t blocks = uint64_t{grid.x} * grid.y * grid.z;
    uint64_t& random = parts_->random;
    const uint64_t block = random == 0 ? 0 : next_random(random) % blocks;
    parts_->early = take_machine(parts_->shape);
    if (begin_block(*parts_->early, block, true, random)) {
        die("a block that may begin early has ended without waiting for the launch before");
    }
    active = nullptr;
    ignore_accesses(false);
}

void EarlyLaunch::run() {
    run_blocks(parts_->shape, std::move(parts_->early));
}

void wait_for_launch_before() {
    Fiber& fiber = active->fibers[active->current];
    fiber.waited = true;
    if (active->held) {
        fiber.state = State::kLaunchBefore;
        to_scheduler();
        observe(&end_of_blocks);
    }
}

void set_schedule(uint64_t seed) {
    schedule = seed;
}

void require_aligned(const void* address, size_t bytes) {
    if (reinterpret_cast<uintptr_t>(address) % bytes != 0) {
        die("a misaligned address");
    }
}

void* dynamic_shared() {
    const auto address = reinterpret_cast<uintptr_t>(active->shared.data());
    return reinterpret_cast<void*>((address + 15) / 16 * 16);
}

void sync_block() {
    Fiber& fiber = active->fibers[active->current];
    fiber.state = State::kBlockBarrier;
    char* barrier = &active->barrier[fiber.barriers++ % 2];
    publish(barrier);
    to_scheduler();
    observe(barrier);
}

int lane() {
    return static_cast<int>(active->current % kWarp);
}

const Payload* exchange(int kind, uint32_t mask, const void* data, size_t size) {
    Machine& m = *active;
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
    Fiber& fiber = active->fibers[active->current];
    require_aligned(target, bytes);
    require_aligned(source, bytes);
    fiber.copies.push_back({target, source, bytes, zero, fiber.group});
    std::memset(target, 0xff, bytes);  // it may arrive at any time from now on
}

void async_commit() {
    active->fibers[active->current].group++;
}

void async_wait(int groups_left) {
    Fiber& fiber = active->fibers[active->current];
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
