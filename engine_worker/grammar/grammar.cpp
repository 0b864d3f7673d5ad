#include "engine_worker/grammar/grammar.hpp"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace llm::engine {
int32_t GrammarBuilder::add_rule() {
    const auto rule = static_cast<int32_t>(grammar_.rules_.size());
    grammar_.rules_.emplace_back();
    grammar_.rules_.back().start = add_node(rule);
    return rule;
}

int32_t GrammarBuilder::add_node(int32_t rule) {
    if (grammar_.nodes_.size() >= kMaxNodes) {
        throw GrammarError("it is too large: more than " + std::to_string(kMaxNodes) +
                           " states would be needed");
    }
    grammar_.nodes_.emplace_back();
    grammar_.nodes_.back().rule = rule;
    return static_cast<int32_t>(grammar_.nodes_.size()) - 1;
}

void GrammarBuilder::byte(int32_t from, uint8_t low, uint8_t high, int32_t to) {
    at(from).bytes.push_back({low, high, to});
}

void GrammarBuilder::epsilon(int32_t from, int32_t to) {
    at(from).epsilon.push_back(to);
}

void GrammarBuilder::repeat(int32_t from, int32_t rule, int32_t min, int32_t max, int32_t to) {
    if (max == 0) {
        return epsilon(from, to);
    }
    at(from).calls.push_back({rule, min, max, to});
}

void GrammarBuilder::end(int32_t node) {
    at(node).end = true;
}

int32_t GrammarBuilder::literal(int32_t from, std::string_view text) {
    for (const char c : text) {
        const int32_t to = add_node(rule_of(from));
        byte(from, static_cast<uint8_t>(c), static_cast<uint8_t>(c), to);
        from = to;
    }
    return from;
}

int32_t GrammarBuilder::then(int32_t from, int32_t rule) {
    const int32_t to = add_node(rule_of(from));
    call(from, rule, to);
    return to;
}

Grammar GrammarBuilder::finish(int32_t root) {
    grammar_.root_ = root;
    remove_dead_ends();
    find_nullable();
    refuse_left_recursion();
    find_follow();
    nullable_.clear();
    return std::exchange(grammar_, Grammar());
}

// A node is alive when some way leads from it to the end of its rule. Found from the ends backwards; a call
// leads on as soon as both the called rule and what stands behind the call are alive.
void GrammarBuilder::remove_dead_ends() {
    auto& nodes = grammar_.nodes_;
    std::vector<std::vector<int32_t>> sources_of(nodes.size());
    for (size_t i = 0; i < nodes.size(); ++i) {
        const auto from = static_cast<int32_t>(i);
        for (const ByteEdge& edge : nodes[i].bytes) {
            sources_of[static_cast<size_t>(edge.target)].push_back(from);
        }
        for (const int32_t target : nodes[i].epsilon) {
            sources_of[static_cast<size_t>(target)].push_back(from);
        }
        for (const CallEdge& call : nodes[i].calls) {
            sources_of[static_cast<size_t>(call.target)].push_back(from);
            sources_of[static_cast<size_t>(start(call.rule))].push_back(from);
        }
    }
    std::vector<bool> alive(nodes.size(), false);
    const auto is_alive = [&alive](int32_t node) { return alive[static_cast<size_t>(node)]; };
    const auto leads_on = [&](const GrammarNode& node) {
        const auto byte_lives = [&](const ByteEdge& edge) { return is_alive(edge.target); };
        const auto call_lives = [&](const CallEdge& call) {
            return is_alive(call.target) && (call.min == 0 || is_alive(start(call.rule)));
        };
        return node.end || std::any_of(node.bytes.begin(), node.bytes.end(), byte_lives) ||
               std::any_of(node.epsilon.begin(), node.epsilon.end(), is_alive) ||
               std::any_of(node.calls.begin(), node.calls.end(), call_lives);
    };
    std::vector<int32_t> todo;
    for (size_t i = 0; i < nodes.size(); ++i) {
        todo.push_back(static_cast<int32_t>(i));
    }
    while (!todo.empty()) {
        const int32_t index = todo.back();
        todo.pop_back();
        if (!is_alive(index) && leads_on(at(index))) {
            alive[static_cast<size_t>(index)] = true;
            const auto& sources = sources_of[static_cast<size_t>(index)];
            todo.insert(todo.end(), sources.begin(), sources.end());
        }
    }
    if (!is_alive(start(grammar_.root_))) {
        throw GrammarError("nothing can satisfy it");
    }
    for (GrammarNode& node : nodes) {
        std::erase_if(node.bytes, [&](const ByteEdge& edge) { return !is_alive(edge.target); });
        std::erase_if(node.epsilon, [&](int32_t target) { return !is_alive(target); });
        std::erase_if(node.calls, [&](const CallEdge& call) {
            const bool body = is_alive(start(call.rule));
            if (!body && call.min == 0 && is_alive(call.target)) {
                node.epsilon.push_back(call.target);
            }
            return !body || !is_alive(call.target);
        });
    }
}

void GrammarBuilder::find_nullable() {
    nullable_.assign(grammar_.rules_.size(), false);
    for (bool changed = true; changed;) {
        changed = false;
        for (size_t i = 0; i < grammar_.rules_.size(); ++i) {
            ByteSet ignored;
            if (!nullable_[i] && first(grammar_.rules_[i].start, ignored)) {
                nullable_[i] = changed = true;
            }
        }
    }
}

bool GrammarBuilder::first(int32_t node, ByteSet& out) const {
    // Calls are entered, too: with what is alive and not left-recursive the walk ends.
    std::vector<int32_t> todo = {node};
    std::unordered_set<int32_t> seen = {node};
    bool ends = false;
    const auto visit = [&](int32_t next) {
        if (seen.insert(next).second) {
            todo.push_back(next);
        }
    };
    const int32_t own = rule_of(node);
    while (!todo.empty()) {
        const GrammarNode& at = grammar_.node(todo.back());
        todo.pop_back();
        ends = ends || (at.end && at.rule == own);
        for (const ByteEdge& edge : at.bytes) {
            for (int b = edge.low; b <= edge.high; ++b) {
                out.set(static_cast<size_t>(b));
            }
        }
        for (const int32_t next : at.epsilon) {
            visit(next);
        }
        for (const CallEdge& call : at.calls) {
            visit(start(call.rule));
            if (call.min == 0 || nullable_[static_cast<size_t>(call.rule)]) {
                visit(call.target);
            }
        }
    }
    return ends;
}

// Depth-first over "calls before its first byte"; a rule met again on the way down needs itself.
void GrammarBuilder::refuse_left_recursion() const {
    enum class Mark : uint8_t { fresh, open, done };
    std::vector<Mark> marks(grammar_.rules_.size(), Mark::fresh);
    struct Visit {
        int32_t rule;
        std::vector<int32_t> calls;
    };
    const auto early_calls = [this](int32_t rule) {
        std::vector<int32_t> out, todo = {start(rule)};
        std::unordered_set<int32_t> seen = {start(rule)};
        const auto visit = [&](int32_t next) {
            if (seen.insert(next).second) {
                todo.push_back(next);
            }
        };
        while (!todo.empty()) {
            const GrammarNode& node = grammar_.node(todo.back());
            todo.pop_back();
            for (const int32_t next : node.epsilon) {
                visit(next);
            }
            for (const CallEdge& call : node.calls) {
                out.push_back(call.rule);
                if (call.min == 0 || nullable_[static_cast<size_t>(call.rule)]) {
                    visit(call.target);
                }
            }
        }
        return out;
    };
    for (size_t i = 0; i < marks.size(); ++i) {
        if (marks[i] != Mark::fresh) {
            continue;
        }
        marks[i] = Mark::open;
        std::vector<Visit> path;
        path.push_back({static_cast<int32_t>(i), early_calls(static_cast<int32_t>(i))});
        while (!path.empty()) {
            if (path.back().calls.empty()) {
                marks[static_cast<size_t>(path.back().rule)] = Mark::done;
                path.pop_back();
                continue;
            }
            const int32_t next = path.back().calls.back();
            path.back().calls.pop_back();
            Mark& mark = marks[static_cast<size_t>(next)];
            if (mark == Mark::open) {
                throw GrammarError("it refers to itself without end");
            }
            if (mark == Mark::fresh) {
                mark = Mark::open;
                path.push_back({next, early_calls(next)});
            }
        }
    }
}

void GrammarBuilder::find_follow() {
    std::vector<std::pair<int32_t, int32_t>> inherits;  // first: rule that takes over the second's follow set
    for (const GrammarNode& node : grammar_.nodes_) {
        for (const CallEdge& call : node.calls) {
            ByteSet& follow = grammar_.rules_[static_cast<size_t>(call.rule)].follow;
            if (first(call.target, follow)) {
                inherits.emplace_back(call.rule, node.rule);
            }
            if (call.max > 1) {
                first(start(call.rule), follow);
            }
        }
    }
    std::sort(inherits.begin(), inherits.end());
    inherits.erase(std::unique(inherits.begin(), inherits.end()), inherits.end());
    for (bool changed = true; changed;) {
        changed = false;
        for (const auto& [to, from] : inherits) {
            ByteSet& follow = grammar_.rules_[static_cast<size_t>(to)].follow;
            const ByteSet joined = follow | grammar_.rules_[static_cast<size_t>(from)].follow;
            changed = changed || joined != follow;
            follow = joined;
        }
    }
}

}  // namespace llm::engine
