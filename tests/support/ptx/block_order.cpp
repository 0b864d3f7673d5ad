#include "tests/support/ptx/block_order.hpp"

#include <algorithm>
#include <map>
#include <unordered_map>
#include <vector>

#include "tests/support/cuda_emulation/emulation.hpp"
#include "tests/support/ptx/machine.hpp"

namespace llm::ptx {
namespace {

using namespace llm::emulation;

BlockOrder* the_order = nullptr;

// Up to when each block's writes are known. Time is the number of writes.
using Known = std::map<uint32_t, uint64_t>;
void merge(Known& into, const Known& from) {
    for (const auto& [block, until] : from) {
        into[block] = std::max(into[block], until);
    }
}

struct Write {
    uint64_t launch;
    uint32_t block;
    uint64_t time;
};
struct ThreadState {
    uint64_t own = 0;       // until then it knows its block's writes: as of its last barrier
    uint64_t released = 0;  // and a fence stands between them and what it does now
    Known seen;             // by atomic operations; known() after a fence
    Known known;
    size_t barriers = 0;
    bool waited = false;  // for the launch before
};
struct Barrier {
    uint64_t time = 0;
    Known known;
};

uint32_t this_block() {
    return (block_index.z * grid_size.y + block_index.y) * grid_size.x + block_index.x;
}
size_t this_thread() {
    return (thread_index.z * block_size.y + thread_index.y) * block_size.x + thread_index.x;
}
uintptr_t word_of(const std::byte* at) {
    return reinterpret_cast<uintptr_t>(at) / 4;
}

}  // namespace

struct BlockOrder::Parts {
    uint64_t launch = ~uint64_t{0};
    uint32_t block = 0;
    uint64_t time = 0;
    uint64_t reads = 0;
    std::unordered_map<uintptr_t, Write> writes;
    std::unordered_map<uintptr_t, Known> released;  // through atomic operations on a word, in this launch
    std::vector<ThreadState> threads;               // of the block
    std::vector<Barrier> barriers;

    ThreadState& me() { return threads[this_thread()]; }
    Barrier& barrier_of(const ThreadState& thread) {
        barriers.resize(std::max(barriers.size(), thread.barriers + 1));
        return barriers[thread.barriers];
    }
};

BlockOrder* block_order() { return the_order; }

BlockOrder::BlockOrder() : parts_(new Parts) { the_order = this; }
BlockOrder::~BlockOrder() {
    the_order = nullptr;
    delete parts_;
}

uint64_t BlockOrder::reads() const { return parts_->reads; }

void BlockOrder::begin(uint64_t launch) {
    if (launch != parts_->launch) {
        parts_->launch = launch;
        parts_->released.clear();
        parts_->threads.clear();
    }
    if (parts_->threads.empty() || parts_->block != this_block()) {
        parts_->block = this_block();
        parts_->threads.assign(size_t{block_size.x} * block_size.y * block_size.z, {});
        parts_->barriers.clear();
    }
}

void BlockOrder::wait() { parts_->me().waited = true; }

void BlockOrder::write(const Thread& thread, const std::byte* at, size_t bytes) {
    if (!parts_->me().waited) {
        thread.fail("a write before the launch has waited for the one before it");
    }
    parts_->time++;
    for (uintptr_t word = word_of(at); word <= word_of(at + bytes - 1); word++) {
        parts_->writes[word] = {parts_->launch, this_block(), parts_->time};
    }
}

void BlockOrder::read(const Thread& thread, const std::byte* at, size_t bytes) {
    for (uintptr_t word = word_of(at); word <= word_of(at + bytes - 1); word++) {
        const auto write = parts_->writes.find(word);
        if (write == parts_->writes.end()) {
            continue;
        }
        if (write->second.launch + 1 == parts_->launch && !parts_->me().waited) {
            thread.fail("a read of what the launch before writes, which was not waited for");
        }
        if (write->second.launch != parts_->launch || write->second.block == this_block()) {
            continue;
        }
        const Known& known = parts_->me().known;
        const auto until = known.find(write->second.block);
        if (until == known.end() || until->second < write->second.time) {
            thread.fail("a block reads what another of its launch wrote, and may do so before that");
        }
        parts_->reads++;
    }
}

void BlockOrder::fence() {
    ThreadState& me = parts_->me();
    me.released = me.own;
    merge(me.known, me.seen);
}

void BlockOrder::atomic(const std::byte* at) {
    ThreadState& me = parts_->me();
    Known& word = parts_->released[word_of(at)];
    merge(me.seen, word);
    word[this_block()] = std::max(word[this_block()], me.released);
    merge(word, me.known);
}

void BlockOrder::arrive() {
    const ThreadState& me = parts_->me();
    Barrier& barrier = parts_->barrier_of(me);
    barrier.time = parts_->time;
    merge(barrier.known, me.known);
}
void BlockOrder::leave() {
    ThreadState& me = parts_->me();
    const Barrier& barrier = parts_->barrier_of(me);
    me.own = barrier.time;
    merge(me.known, barrier.known);
    me.barriers++;
}

}  // namespace llm::ptx
