// What the grammar tests share: does a text belong to a grammar, and a vocabulary with awkward tokens.
#pragma once

#include <random>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/grammar/automaton.hpp"
#include "engine_worker/grammar/json_schema.hpp"
#include "engine_worker/grammar/token_trie.hpp"
#include "shared/json.hpp"

namespace llm::testing {

enum class Reading { no, start, whole };  // not of the grammar; could become; is

inline Reading read_with(const engine::Grammar& grammar, std::string_view text) {
    engine::Automaton automaton(grammar);
    int32_t state = automaton.start();
    for (const char c : text) {
        state = automaton.next(state, static_cast<uint8_t>(c));
        if (state == engine::Automaton::kDead) {
            return Reading::no;
        }
    }
    return automaton.ended(state) ? Reading::whole : Reading::start;
}

inline engine::Grammar schema_grammar(std::string_view schema) {
    return engine::compile_json_schema(engine::OrderedJson::parse(schema));
}

// All bytes, and pieces of JSON text of 2 to 6 bytes: borders of tokens fall everywhere. Last: an end token.
inline std::vector<std::string> json_vocabulary(uint32_t seed, size_t n_pieces) {
    static const std::string kText =
        R"({"name": "Ada", "age": 36, "tags": ["a", "b\n", "\u00e9"], "ok": true, "none": null, "x": -1.5e+10,
  "city": "Zürich – 東京 🚀", "nested": {"a": {"b": [[], {}]}}}, {"2024-02-28T12:30:00Z": false}]     abc}}]]"",":")";
    std::vector<std::string> out;
    for (int b = 0; b < 256; ++b) {
        out.emplace_back(1, static_cast<char>(b));
    }
    std::mt19937 random(seed);
    std::set<std::string> pieces;
    while (pieces.size() < n_pieces) {
        const size_t length = 2 + random() % 5;
        pieces.insert(kText.substr(random() % (kText.size() - length), length));
    }
    out.insert(out.end(), pieces.begin(), pieces.end());
    out.emplace_back();
    return out;
}

}  // namespace llm::testing
