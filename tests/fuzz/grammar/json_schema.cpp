// Any text as a JSON Schema: it becomes a grammar, or throws GrammarError. From a grammar a text is written,
// one allowed token after the other, and never gets stuck; where it may end it is JSON.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/grammar/compiled_grammar.hpp"
#include "engine_worker/grammar/json_schema.hpp"
#include "shared/json.hpp"

namespace {

using namespace llm::engine;

std::shared_ptr<const TokenTrie> vocabulary() {
    std::vector<std::string> tokens;
    for (int b = 0; b < 256; ++b) {
        tokens.emplace_back(1, static_cast<char>(b));
    }
    for (const char* text :
         {"\": ", "\", \"", "{\"", "\"}", "]}", "00", ", ", "\n  ", "tru", "\xE6\x9D", "\\u", "ab"}) {
        tokens.emplace_back(text);
    }
    return std::make_shared<const TokenTrie>(std::move(tokens));
}

// Far from the number of them that ends a text.
bool few_readings(const Grammar& grammar, std::string_view text) {
    Automaton automaton(grammar);
    int32_t state = automaton.start();
    for (const char c : text) {
        state = state == Automaton::kDead ? state : automaton.next(state, static_cast<uint8_t>(c));
    }
    return state != Automaton::kDead && automaton.threads(state).size() < 500;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const auto kVocabulary = vocabulary();
    const OrderedJson schema =
        OrderedJson::parse(std::string_view(reinterpret_cast<const char*>(data), size), nullptr, false);
    if (schema.is_discarded()) {
        return 0;
    }
    std::shared_ptr<CompiledGrammar> compiled;
    try {
        compiled = std::make_shared<CompiledGrammar>(compile_json_schema(schema), kVocabulary);
    } catch (const GrammarError&) {
        return 0;
    }
    GrammarMatcher matcher(compiled, {});
    std::string text;
    uint64_t choice = size;
    for (int step = 0; step < 60 && !matcher.must_end(); ++step) {
        if (matcher.may_end() && !nlohmann::json::accept(text)) {
            std::abort();
        }
        const std::vector<uint32_t>& mask = matcher.mask();
        std::vector<int32_t> allowed;
        for (size_t word = 0; word < mask.size(); ++word) {
            for (uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
                allowed.push_back(static_cast<int32_t>(word * 32) + __builtin_ctz(bits));
            }
        }
        choice =
            choice * 6364136223846793005ULL + data[static_cast<size_t>(step) % size] + 1442695040888963407ULL;
        const int32_t token = allowed.empty() ? 0 : allowed[(choice >> 33) % allowed.size()];
        if (allowed.empty() || !matcher.accept(token)) {
            if (few_readings(compiled->grammar(), text)) {
                std::abort();
            }
            return 0;
        }
        text += kVocabulary->bytes(token);
    }
    if (matcher.may_end() && !nlohmann::json::accept(text)) {
        std::abort();
    }
    return 0;
}
