#include "engine_worker/grammar/compiled_grammar.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace llm::engine {
namespace {

constexpr size_t kFewTokens = 64;                 // fewer are kept as a list
constexpr size_t kMaxKnownBytes = 16U << 20;      // of remembered masks per grammar
constexpr size_t kMaxLocalSize = 8'192;           // of the shared automaton between two walks
constexpr size_t kMaxMatcherSize = 512;           // of a sequence's own
constexpr uint64_t kMaxWorkPerStep = 30'000'000;  // threads followed: some tenths of a second

}  // namespace

CompiledGrammar::CompiledGrammar(Grammar grammar, std::shared_ptr<const TokenTrie> trie)
    : grammar_(std::move(grammar)), trie_(std::move(trie)), local_(grammar_) {}

size_t CompiledGrammar::PlaceHash::operator()(const Place& place) const {
    uint64_t h = static_cast<uint32_t>(place.node);
    for (const int32_t part :
         {place.frame.target, place.frame.rule, place.frame.min_left, place.frame.max_left}) {
        h = (h ^ static_cast<uint32_t>(part)) * 0x9e3779b97f4a7c15ULL;
        h ^= h >> 31;
    }
    return h;
}

const CompiledGrammar::Tokens* CompiledGrammar::tokens(const Place& place, uint64_t max_work) {
    if (const auto found = known_.find(place); found != known_.end()) {
        return &found->second;
    }
    if (known_bytes_ > kMaxKnownBytes) {
        known_.clear();
        known_bytes_ = 0;
    }
    if (local_.size() > kMaxLocalSize) {
        local_.compact(Automaton::kDead);
    }
    const uint64_t stop = local_.work() + max_work;
    const bool repeats = place.frame.rule != 0 || place.frame.max_left != 0 || place.frame.min_left != 0;
    const int32_t stack = repeats ? local_.push(place.frame, Automaton::kEmptyStack) : Automaton::kEmptyStack;
    const int32_t rule = grammar_.node(repeats ? place.frame.target : place.node).rule;
    const ByteSet& follow = grammar_.rule(rule).follow;

    Tokens out;
    size_t n_allowed = 0;
    std::array<int32_t, 256> states;
    states[0] = local_.state(place.node, stack);
    if (states[0] == Automaton::kDead) {
        return nullptr;
    }
    for (int32_t i = 0; i < trie_->n_nodes();) {
        const TokenTrie::Node& node = trie_->node(i);
        const int32_t state = local_.next(states[node.depth - 1U], node.byte);
        if (state == Automaton::kDead) {
            i = node.subtree_end;
            continue;
        }
        states[node.depth] = state;
        for (const int32_t token : trie_->tokens_at(i)) {
            ++n_allowed;
            if (out.bits.empty()) {
                out.list.push_back(token);
                if (out.list.size() <= kFewTokens) {
                    continue;
                }
                out.bits.resize((static_cast<size_t>(trie_->vocab_size()) + 31) / 32);
                for (const int32_t early : out.list) {
                    out.bits[static_cast<size_t>(early) / 32] |= 1U << (static_cast<uint32_t>(early) % 32);
                }
                out.list = {};
            } else {
                out.bits[static_cast<size_t>(token) / 32] |= 1U << (static_cast<uint32_t>(token) % 32);
            }
        }
        if (local_.ended(state)) {
            bool may_follow = false;
            for (int32_t child = i + 1; child < node.subtree_end && !may_follow;
                 child = trie_->node(child).subtree_end) {
                may_follow = follow.test(trie_->node(child).byte);
            }
            if (may_follow) {
                out.leaving.push_back(i);
            }
        }
        i = local_.threads(state).empty() ? node.subtree_end : i + 1;
        if (local_.work() > stop) {
            return nullptr;
        }
    }
    known_bytes_ += sizeof out + 4 * (out.list.size() + out.bits.size() + out.leaving.size());
    return &known_.emplace(place, std::move(out)).first->second;
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<CompiledGrammar> compiled, std::vector<int32_t> end_tokens)
    : compiled_(std::move(compiled)),
      end_tokens_(std::move(end_tokens)),
      automaton_(compiled_->grammar()),
      state_(automaton_.start()) {}

bool GrammarMatcher::may_end() const {
    return state_ != Automaton::kDead && automaton_.ended(state_);
}

bool GrammarMatcher::must_end() const {
    return may_end() && automaton_.threads(state_).empty();
}

bool GrammarMatcher::accept(int32_t token) {
    if (token < 0 || token >= compiled_->trie().vocab_size()) {
        return false;
    }
    const std::string_view bytes = compiled_->trie().bytes(token);
    int32_t state = state_;
    for (const char c : bytes) {
        if (state == Automaton::kDead) {
            break;
        }
        state = automaton_.next(state, static_cast<uint8_t>(c));
    }
    if (bytes.empty() || state == Automaton::kDead) {
        return false;
    }
    mask_is_current_ = mask_is_current_ && state == state_;
    state_ = state;
    if (automaton_.size() > kMaxMatcherSize) {
        state_ = automaton_.compact(state_);
    }
    return true;
}

const std::vector<uint32_t>& GrammarMatcher::mask() {
    if (mask_is_current_) {
        return mask_;
    }
    const TokenTrie& trie = compiled_->trie();
    mask_.assign((static_cast<size_t>(trie.vocab_size()) + 31) / 32, 0);
    mask_is_current_ = true;
    if (state_ == Automaton::kDead) {
        mask_.clear();
        return mask_;
    }
    if (may_end()) {
        for (const int32_t token : end_tokens_) {
            if (token >= 0 && token < trie.vocab_size()) {
                allow(token);
            }
        }
    }
    const std::vector<Automaton::Thread> threads = automaton_.threads(state_);
    const uint64_t stop = automaton_.work() + kMaxWorkPerStep;
    bool possible = true;
    for (size_t i = 0; possible && i < threads.size(); ++i) {
        possible = add_thread(threads[i], kMaxWorkPerStep / threads.size()) && automaton_.work() < stop;
    }
    if (!possible || std::all_of(mask_.begin(), mask_.end(), [](uint32_t word) { return word == 0; })) {
        mask_.clear();
    }
    return mask_;
}

bool GrammarMatcher::add_thread(const Automaton::Thread& thread, uint64_t max_work) {
    CompiledGrammar::Place place = {thread.node, {}};
    int32_t surrounding = thread.stack;
    if (surrounding != Automaton::kEmptyStack) {
        const Automaton::Frame& top = automaton_.frame(surrounding);
        if (top.max_left > 0) {
            // Further than the longest token nobody can count in one step.
            const int32_t reach = compiled_->trie().longest() + 1;
            place.frame = top;
            place.frame.min_left = std::min(top.min_left, reach);
            place.frame.max_left = std::min(top.max_left, reach);
            surrounding = automaton_.below(surrounding);
        }
    }
    const CompiledGrammar::Tokens* tokens = compiled_->tokens(place, max_work);
    if (tokens == nullptr) {
        return false;
    }
    for (const int32_t token : tokens->list) {
        allow(token);
    }
    for (size_t i = 0; i < tokens->bits.size(); ++i) {
        mask_[i] |= tokens->bits[i];
    }
    if (tokens->leaving.empty() || surrounding == Automaton::kEmptyStack) {
        return true;
    }
    const int32_t context = automaton_.after_return(surrounding);
    if (context == Automaton::kDead) {
        return false;
    }
    add_leaving(tokens->leaving, context);
    return true;
}

// Allows the tokens below the trie nodes `leaving` whose remaining bytes can be read from `context`.
void GrammarMatcher::add_leaving(const std::vector<int32_t>& leaving, int32_t context) {
    const TokenTrie& trie = compiled_->trie();
    std::array<int32_t, 256> states;
    for (const int32_t root : leaving) {
        states[trie.node(root).depth] = context;
        const int32_t end = trie.node(root).subtree_end;
        for (int32_t i = root + 1; i < end;) {
            const TokenTrie::Node& node = trie.node(i);
            const int32_t state = automaton_.next(states[node.depth - 1U], node.byte);
            if (state == Automaton::kDead) {
                i = node.subtree_end;
                continue;
            }
            states[node.depth] = state;
            for (const int32_t token : trie.tokens_at(i)) {
                allow(token);
            }
            ++i;
        }
    }
}

}  // namespace llm::engine
