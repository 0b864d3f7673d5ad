// What a grammar costs per step: the mask over a vocabulary of 32k and of 128k tokens, and taking the token.
//
// Writes random texts of a schema, token by token, with a fresh grammar and then with the same one again (as
// the second request with a schema finds it). The vocabulary is made up of words, with and without a space
// before them, digits, indentation and punctuation, as those of real models are.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "engine_worker/grammar/compiled_grammar.hpp"
#include "engine_worker/grammar/json_schema.hpp"

namespace {

using namespace llm::engine;
using Clock = std::chrono::steady_clock;

double micros(Clock::time_point since) {
    return std::chrono::duration<double, std::micro>(Clock::now() - since).count();
}

std::vector<std::string> make_vocabulary(size_t size) {
    std::vector<std::string> out;
    for (int b = 0; b < 256; ++b) {
        out.emplace_back(1, static_cast<char>(b));
    }
    std::set<std::string> known;
    const auto add = [&](const std::string& text) {
        if (out.size() < size && text.size() > 1 && known.insert(text).second) {
            out.push_back(text);
        }
    };
    for (size_t n = 2; n <= 80; ++n) {
        add(std::string(n, ' '));
        add("\n" + std::string(n, ' '));
    }
    for (int i = 10; i < 1000; ++i) {
        add(std::to_string(i));
    }
    const std::string marks = "\"'{}[]():,.;-_/\\=<>!?*&%$#@ \n";
    for (const char a : marks) {
        for (const char b : marks) {
            add(std::string{a, b});
            add(std::string{a, b, '"'});
            add(std::string{'"', a, b});
        }
    }
    std::mt19937 random(1);
    const std::string letters = "etaoinshrdlucmfwypvbgkjqxz";
    while (out.size() < size) {
        std::string word;
        for (size_t n = 2 + random() % 7; word.size() < n;) {
            word += letters[std::min<size_t>(random() % 26, random() % 26)];
        }
        if (random() % 4 == 0) {
            word[0] = static_cast<char>(word[0] - 32);
        }
        add(word);
        add(" " + word);
        if (random() % 8 == 0) {
            add(word + "\"");
            add("\"" + word);
        }
        if (random() % 8 == 0) {
            add(word + "\xC3\xA9");
            add("\xE6\x97" + std::string(1, static_cast<char>(0x80 + random() % 64)));
        }
    }
    return out;
}

struct Cost {
    std::vector<double> steps;

    double at(double share) {
        std::sort(steps.begin(), steps.end());
        return steps.empty()
                   ? 0
                   : steps[std::min(steps.size() - 1,
                                    static_cast<size_t>(share * static_cast<double>(steps.size())))];
    }
    double mean() const {
        double sum = 0;
        for (const double step : steps) {
            sum += step;
        }
        return steps.empty() ? 0 : sum / static_cast<double>(steps.size());
    }
};

void write_text(const std::shared_ptr<CompiledGrammar>& compiled, uint32_t seed, Cost& cost) {
    GrammarMatcher matcher(compiled, {});
    std::mt19937 random(seed);
    for (int step = 0; step < 200 && !matcher.must_end(); ++step) {
        const auto start = Clock::now();
        const auto& mask = matcher.mask();
        double spent = micros(start);
        std::vector<int32_t> allowed;
        for (size_t word = 0; word < mask.size(); ++word) {
            for (uint32_t bits = mask[word]; bits != 0; bits &= bits - 1) {
                allowed.push_back(static_cast<int32_t>(word * 32) + __builtin_ctz(bits));
            }
        }
        if (allowed.empty()) {
            std::abort();
        }
        const auto taken = Clock::now();
        matcher.accept(allowed[random() % allowed.size()]);
        cost.steps.push_back(spent + micros(taken));
    }
}

}  // namespace

int main() {
    struct Case {
        const char* name;
        const char* schema;
    };
    const Case cases[] = {
        {"any object", R"({"type":"object"})"},
        {"person",
         R"({"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer","minimum":0,"maximum":150},
            "email":{"type":"string","format":"email"},"tags":{"type":"array","items":{"type":"string"}},
            "address":{"type":"object","properties":{"street":{"type":"string"},"city":{"type":"string"}},
            "required":["street","city"]}},"required":["name","age","email","tags","address"]})"},
        {"maxLength 200", R"({"type":"array","items":{"type":"string","minLength":5,"maxLength":200}})"},
        {"pattern",
         R"({"type":"array","minItems":20,"items":{"type":"string","pattern":"^[a-z]+(-[a-z0-9]+)*$"}})"},
        {"recursive",
         R"({"type":"object","properties":{"v":{"type":"string"},"l":{"$ref":"#"},"r":{"$ref":"#"}},"required":["v"]})"},
    };
    for (const size_t size : {size_t{32'000}, size_t{128'000}}) {
        auto start = Clock::now();
        const auto trie = std::make_shared<const TokenTrie>(make_vocabulary(size));
        std::printf("%zu tokens, %d trie nodes, made in %.0f ms\n", size, trie->n_nodes(),
                    micros(start) / 1e3);
        for (const Case& one : cases) {
            start = Clock::now();
            const auto compiled =
                std::make_shared<CompiledGrammar>(compile_json_schema(OrderedJson::parse(one.schema)), trie);
            const double compile = micros(start);
            Cost first, again;
            write_text(compiled, 1, first);
            for (uint32_t seed = 1; seed <= 5; ++seed) {
                write_text(compiled, seed, again);
            }
            const double first_mean = first.mean();
            std::printf(
                "  %-14s compile %6.0f us   first text, per step: mean %7.1f max %8.1f us   later: mean "
                "%6.1f median "
                "%6.1f p99 %7.1f us\n",
                one.name, compile, first_mean, first.at(1), again.mean(), again.at(0.5), again.at(0.99));
        }
    }
}
