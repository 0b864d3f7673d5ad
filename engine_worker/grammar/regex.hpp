// The regular expressions of JSON Schema's `pattern`, as automata over characters.
//
// Of ECMA-262 with the flag u: characters, ., \d \w \s \D \W \S, \t \n \r \f \v \0 \xHH \uHHHH \u{H…},
// escaped punctuation, [classes] with ranges and negation, (groups), (?:groups), (?<names>groups), |, * + ?
// {m} {m,} {m,n} and their lazy forms (which have the same language), ^ and $ at the ends of a top-level
// alternative. Everything else (look-around, back references, \b, \p{…}) is a GrammarError that names it.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "engine_worker/grammar/char_set.hpp"

namespace llm::engine {

// Nondeterministic, over whole characters; state 0 is the start.
struct CharAutomaton {
    struct Edge {
        CharSet on;
        int32_t target;
    };
    struct State {
        std::vector<Edge> edges;
        std::vector<int32_t> epsilon;
        bool end = false;
    };
    std::vector<State> states;
};

// The strings in which `pattern` is found: as JSON Schema says it is not anchored, what may stand before and
// behind a match without ^ and $ is part of the automaton.
CharAutomaton parse_regex(std::string_view pattern);

// The automaton's strings of min..max characters as the inside of a JSON string, from `from` to `to`. Bounds
// cost a copy of the states per character: GrammarBuilder::kMaxNodes ends it.
void add_json_text(GrammarBuilder& builder, int32_t from, const CharAutomaton& automaton, int32_t min,
                   int32_t max, int32_t to);

}  // namespace llm::engine
