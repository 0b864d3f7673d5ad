#include "engine_worker/grammar/automaton.hpp"

#include <algorithm>
#include <utility>

namespace llm::engine {
namespace {

uint64_t mix(uint64_t h, uint64_t value) {
    h = (h ^ value) * 0x9e3779b97f4a7c15ULL;
    return h ^ (h >> 29);
}

constexpr size_t kManySeen = 32;  // a linear search through as many costs about as much as one thread

// Nothing is left to do there but to end.
bool only_ends(const GrammarNode& node) {
    return node.end && node.bytes.empty() && node.calls.empty() && node.epsilon.empty();
}

}  // namespace

int32_t Automaton::push(const Frame& frame, int32_t stack) {
    uint64_t h = mix(static_cast<uint32_t>(frame.target), static_cast<uint32_t>(frame.rule));
    h = mix(h, static_cast<uint64_t>(static_cast<uint32_t>(frame.min_left)) << 32 |
                   static_cast<uint32_t>(frame.max_left));
    h = mix(h, static_cast<uint32_t>(stack));
    const auto [begin, end] = stack_index_.equal_range(h);
    for (auto at = begin; at != end; ++at) {
        const StackNode& known = stacks_[static_cast<size_t>(at->second)];
        if (known.below == stack && known.frame == frame) {
            return at->second;
        }
    }
    stacks_.push_back({frame, stack});
    const auto index = static_cast<int32_t>(stacks_.size()) - 1;
    stack_index_.emplace(h, index);
    return index;
}

// Takes up everything that is reached from `todo_` without a byte; nothing when that is too much.
void Automaton::follow_all() {
    while (!todo_.empty()) {
        if (seen_.size() > kMaxThreads) {
            todo_.clear();
            found_.clear();
            ended_ = false;
            return;
        }
        const Thread thread = todo_.back();
        todo_.pop_back();
        ++work_;
        // Few nodes on most ways: a linear search beats any set.
        work_ += seen_.size() / kManySeen;
        if (std::find(seen_.begin(), seen_.end(), thread) != seen_.end()) {
            continue;
        }
        seen_.push_back(thread);
        const GrammarNode& node = grammar_.node(thread.node);
        if (!node.bytes.empty()) {
            found_.push_back(thread);
        }
        for (const int32_t target : node.epsilon) {
            todo_.push_back({target, thread.stack});
        }
        for (const CallEdge& call : node.calls) {
            follow_call(call, thread.stack);
        }
        if (node.end) {
            end_call(thread.stack);
        }
    }
}

void Automaton::follow_call(const CallEdge& call, int32_t stack) {
    if (call.min == 0) {
        todo_.push_back({call.target, stack});
    }
    const int32_t start = grammar_.rule(call.rule).start;
    if (call.max == 1 && only_ends(grammar_.node(call.target))) {
        // Returns where this rule would: without a frame all ways to the called rule are one.
        todo_.push_back({start, stack});
        return;
    }
    const Frame frame = {call.target, call.rule, std::max(call.min - 1, 0),
                         call.max == kUnbounded ? kUnbounded : call.max - 1};
    todo_.push_back({start, push(frame, stack)});
}

void Automaton::end_call(int32_t stack) {
    if (stack == kEmptyStack) {
        ended_ = true;
        return;
    }
    const Frame top = frame(stack);
    const int32_t rest = below(stack);
    if (top.min_left == 0) {
        todo_.push_back({top.target, rest});
    }
    if (top.max_left > 0) {
        const Frame again = {top.target, top.rule, std::max(top.min_left - 1, 0),
                             top.max_left == kUnbounded ? kUnbounded : top.max_left - 1};
        todo_.push_back({grammar_.rule(top.rule).start, push(again, rest)});
    }
}

// The number of the state that follow_all() has gathered.
int32_t Automaton::take_state() {
    seen_.clear();
    std::sort(found_.begin(), found_.end());
    uint64_t h = ended_ ? 1 : 0;
    for (const Thread& thread : found_) {
        h = mix(h, static_cast<uint64_t>(static_cast<uint32_t>(thread.node)) << 32 |
                       static_cast<uint32_t>(thread.stack));
    }
    int32_t index = kDead;
    if (!found_.empty() || ended_) {
        const auto [begin, end] = state_index_.equal_range(h);
        for (auto at = begin; at != end && index == kDead; ++at) {
            const State& known = states_[static_cast<size_t>(at->second)];
            if (known.ended == ended_ && known.threads == found_) {
                index = at->second;
            }
        }
        if (index == kDead) {
            index = static_cast<int32_t>(states_.size());
            states_.push_back({found_, ended_, nullptr});
            state_index_.emplace(h, index);
        }
    }
    found_.clear();
    ended_ = false;
    return index;
}

int32_t Automaton::state(int32_t node, int32_t stack) {
    todo_.push_back({node, stack});
    follow_all();
    return take_state();
}

int32_t Automaton::after_return(int32_t stack) {
    end_call(stack);
    follow_all();
    return take_state();
}

int32_t Automaton::step(int32_t from, uint8_t byte) {
    for (const Thread& thread : threads(from)) {
        ++work_;
        for (const ByteEdge& edge : grammar_.node(thread.node).bytes) {
            if (edge.low <= byte && byte <= edge.high) {
                todo_.push_back({edge.target, thread.stack});
            }
        }
    }
    follow_all();
    const int32_t to = take_state();
    State& state = states_[static_cast<size_t>(from)];
    if (state.table == nullptr && n_tables_ < kMaxTables) {
        ++n_tables_;
        state.table = std::make_unique<std::array<int32_t, 256>>();
        state.table->fill(kUnknown);
    }
    if (state.table != nullptr) {
        (*state.table)[byte] = to;
    }
    return to;
}

int32_t Automaton::compact(int32_t state) {
    std::vector<State> old_states = std::exchange(states_, {});
    const std::vector<StackNode> old_stacks = std::exchange(stacks_, {});
    state_index_.clear();
    stack_index_.clear();
    n_tables_ = 0;
    if (state == kDead) {
        return kDead;
    }
    const State& kept = old_states[static_cast<size_t>(state)];
    std::vector<int32_t> path;
    for (const Thread& thread : kept.threads) {
        path.clear();
        for (int32_t at = thread.stack; at != kEmptyStack; at = old_stacks[static_cast<size_t>(at)].below) {
            path.push_back(at);
        }
        int32_t stack = kEmptyStack;
        for (auto at = path.rbegin(); at != path.rend(); ++at) {
            stack = push(old_stacks[static_cast<size_t>(*at)].frame, stack);
        }
        found_.push_back({thread.node, stack});
    }
    ended_ = kept.ended;
    return take_state();
}

}  // namespace llm::engine
