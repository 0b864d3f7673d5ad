// Walks a grammar byte by byte, remembering what it saw: a deterministic automaton built while it is used.
//
// A state is the set of all ways in which the text so far can be read: each a node of the grammar and the
// stack of calls it stands in. Stacks are shared lists, so equal sets are the same state and a step that was
// taken once is a table look-up from then on. (Subset construction on demand, as in the lazy DFA of Thompson
// and of RE2, here with stacks.)
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine_worker/grammar/grammar.hpp"

namespace llm::engine {

class Automaton {
  public:
    static constexpr int32_t kDead = -1;
    static constexpr int32_t kEmptyStack = -1;

    // What a called rule returns to; with `max_left` or `min_left` it may or must be called again first.
    struct Frame {
        int32_t target = 0;
        int32_t rule = 0;
        int32_t min_left = 0, max_left = 0;
        bool operator==(const Frame&) const = default;
    };
    struct Thread {
        int32_t node;
        int32_t stack;
        auto operator<=>(const Thread&) const = default;
    };

    // `grammar` must outlive this object.
    explicit Automaton(const Grammar& grammar) : grammar_(grammar) {}

    // The state of a text that starts at `node` within `stack`. O(what is reachable without a byte). kDead:
    // it can be read in more ways than are followed (kMaxThreads); so with the two below.
    int32_t state(int32_t node, int32_t stack);
    // The state of an empty text.
    int32_t start() { return state(grammar_.rule(grammar_.root()).start, kEmptyStack); }
    // The state behind `byte`; kDead: no reading is left.
    int32_t next(int32_t state, uint8_t byte) {
        State& from = states_[static_cast<size_t>(state)];
        if (from.table != nullptr && (*from.table)[byte] != kUnknown) {
            return (*from.table)[byte];
        }
        return step(state, byte);
    }
    // The state in which the call on top of `stack` has just ended.
    int32_t after_return(int32_t stack);

    // The outermost call may end here.
    bool ended(int32_t state) const { return states_[static_cast<size_t>(state)].ended; }
    // Ways that go on with another byte.
    const std::vector<Thread>& threads(int32_t state) const {
        return states_[static_cast<size_t>(state)].threads;
    }

    int32_t push(const Frame& frame, int32_t stack);
    const Frame& frame(int32_t stack) const { return stacks_[static_cast<size_t>(stack)].frame; }
    int32_t below(int32_t stack) const { return stacks_[static_cast<size_t>(stack)].below; }

    // Forgets everything but `state`, and returns its new number; kDead keeps nothing.
    int32_t compact(int32_t state);
    // Rough memory in use, and work done so far in threads followed.
    size_t size() const { return states_.size() + stacks_.size(); }
    uint64_t work() const { return work_; }

  private:
    static constexpr int32_t kUnknown = -2;
    static constexpr size_t kMaxTables = 16'384;  // of one KiB; beyond, steps are computed anew
    // Where a text may stand: calls that begin alike multiply with every byte that does not tell them apart.
    static constexpr size_t kMaxThreads = 16'384;

    struct State {
        std::vector<Thread> threads;  // sorted
        bool ended = false;
        std::unique_ptr<std::array<int32_t, 256>> table;
    };
    struct StackNode {
        Frame frame;
        int32_t below;
    };

    void follow_all();
    void follow_call(const CallEdge& call, int32_t stack);
    void end_call(int32_t stack);
    int32_t take_state();
    int32_t step(int32_t state, uint8_t byte);

    const Grammar& grammar_;
    std::vector<State> states_;
    std::unordered_multimap<uint64_t, int32_t> state_index_;
    std::vector<StackNode> stacks_;
    std::unordered_multimap<uint64_t, int32_t> stack_index_;
    size_t n_tables_ = 0;
    uint64_t work_ = 0;

    // Of the state being built.
    std::vector<Thread> todo_, seen_, found_;
    bool ended_ = false;
};

}  // namespace llm::engine
