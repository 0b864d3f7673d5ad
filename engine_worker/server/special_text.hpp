// Keeps text that a user wrote from being read as control tokens.
//
// A chat template joins messages and control tokens ("<|im_end|>") into one string, which is then tokenised.
// A user who writes such a token into a message could end their turn and speak as somebody else. So, before
// the template runs, every control token spelled out in a message is put between two marks; when the result
// is tokenised, what stands between marks is ordinary text. The marks are Unicode noncharacters, which never
// stand in real text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/added_tokens.hpp"
#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

class SpecialText {
  public:
    // Collects the tokenizer's special tokens; `tokenizer` must outlive this object. O(vocabulary).
    explicit SpecialText(const Tokenizer& tokenizer);
    SpecialText(const SpecialText&) = delete;
    SpecialText& operator=(const SpecialText&) = delete;

    // `text` with every special token in it marked; marks that stand in it already become U+FFFD. O(text), however many special
    // tokens there are.
    std::string mark(std::string_view text) const;

    // Ids of a rendered template: special tokens are parsed, but not between marks. `most` as in
    // Tokenizer::EncodeOptions.
    std::vector<int32_t> encode(std::string_view rendered, size_t most = SIZE_MAX) const;

  private:
    // Ids of `text` as it is behind a line break; none where the two cannot be told apart.
    std::vector<int32_t> encode_behind_line_break(std::string_view text, Tokenizer::EncodeOptions options) const;
    // Ids of `text`, which follows other text.
    std::vector<int32_t> encode_inside(std::string_view text, const Tokenizer::EncodeOptions& options) const;

    const Tokenizer& tokenizer_;
    std::vector<int32_t> line_break_;  // its ids
    bool adds_blank_ = false;          // sentencepiece: a text begins with a blank that nobody wrote
    std::vector<AddedToken> special_;  // the matcher points into it
    AddedTokenMatcher matcher_;
};

}  // namespace llm::engine
