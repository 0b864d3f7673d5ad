// What text may look like: a recursive transition network over bytes.
//
// A rule is an automaton whose edges read a byte, or call a rule and go on behind the call. Calls make it a
// pushdown automaton: any context-free language can be written, JSON with its nesting among them. A call may
// repeat its rule a bounded number of times without copies of its states (strings with a maxLength, arrays
// with a maxItems). The form is that of Woods, "Transition network grammars for natural language analysis"
// (1970).
#pragma once

#include <bitset>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace llm::engine {

// What was asked for cannot be made into a grammar; the message names where and why.
struct GrammarError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

using ByteSet = std::bitset<256>;

inline constexpr int32_t kUnbounded = std::numeric_limits<int32_t>::max();

struct ByteEdge {
    uint8_t low, high;  // inclusive
    int32_t target;
};

// The rule `min` to `max` times in a row, then `target`.
struct CallEdge {
    int32_t rule;
    int32_t min, max;
    int32_t target;
};

struct GrammarNode {
    int32_t rule = 0;
    bool end = false;  // the rule may end here
    std::vector<ByteEdge> bytes;
    std::vector<CallEdge> calls;
    std::vector<int32_t> epsilon;
};

struct GrammarRule {
    int32_t start = 0;
    ByteSet follow;  // bytes that may come right behind this rule, wherever it is called
};

// Immutable. Every node can reach an end: whoever walks it is never stuck. No rule calls itself before it has
// read a byte.
class Grammar {
  public:
    const GrammarNode& node(int32_t index) const { return nodes_[static_cast<size_t>(index)]; }
    const GrammarRule& rule(int32_t index) const { return rules_[static_cast<size_t>(index)]; }
    int32_t root() const { return root_; }
    size_t n_nodes() const { return nodes_.size(); }

  private:
    friend class GrammarBuilder;

    std::vector<GrammarNode> nodes_;
    std::vector<GrammarRule> rules_;
    int32_t root_ = 0;
};

class GrammarBuilder {
  public:
    // More nodes than this is a GrammarError: somebody's schema must not take the engine's memory.
    static constexpr size_t kMaxNodes = 100'000;

    int32_t add_rule();  // with its start node
    int32_t start(int32_t rule) const { return grammar_.rules_[static_cast<size_t>(rule)].start; }
    int32_t add_node(int32_t rule);
    int32_t rule_of(int32_t node) const { return grammar_.nodes_[static_cast<size_t>(node)].rule; }

    // Edges join nodes of one rule.
    void byte(int32_t from, uint8_t low, uint8_t high, int32_t to);
    void epsilon(int32_t from, int32_t to);
    void call(int32_t from, int32_t rule, int32_t to) { repeat(from, rule, 1, 1, to); }
    void repeat(int32_t from, int32_t rule, int32_t min, int32_t max, int32_t to);
    void end(int32_t node);

    // The node behind `text`, or behind a call, starting at `from`.
    int32_t literal(int32_t from, std::string_view text);
    int32_t then(int32_t from, int32_t rule);

    // Removes dead ends and checks. GrammarError when nothing can be written, or when a rule needs itself
    // before its first byte. The builder is empty afterwards.
    Grammar finish(int32_t root);

  private:
    void remove_dead_ends();
    void find_nullable();
    void refuse_left_recursion() const;
    void find_follow();
    // First bytes behind `node` within its rule; true: the rule may end without any.
    bool first(int32_t node, ByteSet& out) const;

    GrammarNode& at(int32_t node) { return grammar_.nodes_[static_cast<size_t>(node)]; }

    Grammar grammar_;
    std::vector<bool> nullable_;  // per rule
};

}  // namespace llm::engine
