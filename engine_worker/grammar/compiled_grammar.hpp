// A grammar over the tokens of a vocabulary: which may come next?
//
// Most tokens are decided by the place in the grammar alone, whatever calls surround it; what these are is
// found once per place, by walking the vocabulary's trie, and kept. The few that leave the current rule (the
// quote that ends a string, and what follows it) are walked each time from the place that the rule returns
// to. (The split is that of XGrammar, Dong et al. 2024.) A step then costs a copy of one bit per token and a
// walk over some hundred trie nodes.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "engine_worker/grammar/automaton.hpp"
#include "engine_worker/grammar/grammar.hpp"
#include "engine_worker/grammar/token_trie.hpp"

namespace llm::engine {

// Shared by all sequences that obey the grammar. What it remembers is not guarded: only one thread, the one
// that steps the engine, may use matchers of it. Making and destroying one is free to any thread.
class CompiledGrammar {
  public:
    CompiledGrammar(Grammar grammar, std::shared_ptr<const TokenTrie> trie);

    const Grammar& grammar() const { return grammar_; }
    const TokenTrie& trie() const { return *trie_; }

  private:
    friend class GrammarMatcher;

    // A place in the grammar. Within a counted repetition the counts belong to it, as far as one token can
    // reach.
    struct Place {
        int32_t node;
        Automaton::Frame frame;  // all zero unless it repeats
        bool operator==(const Place&) const = default;
    };
    struct PlaceHash {
        size_t operator()(const Place& place) const;
    };
    struct Tokens {
        std::vector<int32_t> list;     // allowed ones when they are few
        std::vector<uint32_t> bits;    // else this
        std::vector<int32_t> leaving;  // trie nodes at which the rule ends with more bytes to come
    };

    // Null: more work than one step may take.
    const Tokens* tokens(const Place& place, uint64_t max_work);

    Grammar grammar_;
    std::shared_ptr<const TokenTrie> trie_;
    Automaton local_;  // with nothing known below the place
    std::unordered_map<Place, Tokens, PlaceHash> known_;
    size_t known_bytes_ = 0;
};

// One text on its way through a grammar.
class GrammarMatcher {
  public:
    // `end_tokens` are allowed exactly where the text may end.
    GrammarMatcher(std::shared_ptr<CompiledGrammar> compiled, std::vector<int32_t> end_tokens);

    // One bit per token of the vocabulary; valid until the next call. Empty when no token can come next or
    // finding out takes too long: the text cannot go on.
    const std::vector<uint32_t>& mask();

    // Takes a token that the mask allowed; not an end token. False: the grammar does not allow it.
    bool accept(int32_t token);

    bool may_end() const;   // the text is whole
    bool must_end() const;  // and nothing can follow

  private:
    bool add_thread(const Automaton::Thread& thread, uint64_t max_work);
    void add_leaving(const std::vector<int32_t>& leaving, int32_t context);
    void allow(int32_t token) {
        mask_[static_cast<size_t>(token) / 32] |= 1U << (static_cast<uint32_t>(token) % 32);
    }

    std::shared_ptr<CompiledGrammar> compiled_;
    std::vector<int32_t> end_tokens_;
    Automaton automaton_;
    int32_t state_;
    std::vector<uint32_t> mask_;
    bool mask_is_current_ = false;
};

}  // namespace llm::engine
