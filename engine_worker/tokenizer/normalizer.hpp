// The `normalizer` of tokenizer.json: a list of text-to-text steps.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine_worker/tokenizer/json_part.hpp"
#include "engine_worker/tokenizer/split_regex.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {

// Immutable after load().
class Normalizer {
  public:
    // Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend and Replace; null = none. Throws on any
    // other.
    static Normalizer load(const JsonPart& part);

    bool empty() const { return steps_.empty(); }
    // Applies all steps to valid UTF-8. O(text) per step.
    std::string apply(std::string_view text, RegexScratch& scratch) const;

  private:
    struct Prepend {
        std::string text;
    };
    struct Replace {
        SplitRegex what;
        std::string with;
    };
    struct Lowercase {};
    struct Strip {
        bool left, right;
    };
    using Step = std::variant<unicode::NormalForm, Prepend, Replace, Lowercase, Strip>;

    void add(const JsonPart& part, int depth);
    std::vector<Step> steps_;
};

// A `pattern` object of the file: {"String": …} or {"Regex": …}.
SplitRegex load_pattern(const JsonPart& part);

}  // namespace llm::engine
