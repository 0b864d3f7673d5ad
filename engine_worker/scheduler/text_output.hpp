// From sampled tokens to text that may be shown: never half a character, never part of a stop string.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

class TextOutput {
  public:
    // `stops` must outlive this object and hold no empty string. They are not looked for in the text of the
    // first `min_tokens` tokens. `prompt`: what the text goes on behind.
    TextOutput(const Tokenizer& tokenizer, const std::vector<std::string>& stops, bool include_stop,
               int32_t min_tokens = 0, std::span<const int32_t> prompt = {});

    // Takes one token and appends to `out` what is certain now. True: a stop string was completed, the text
    // ends here (`out` has got what stood before it, with it if include_stop). O(held text · stop strings).
    bool push(int32_t token, std::string& out);

    // The text ends for another reason: appends what was held back. True: it completed a stop string after
    // all.
    bool finish(std::string& out);

  private:
    bool take(std::string text, std::string& out);

    StreamDecoder decoder_;
    const std::vector<std::string>& stops_;
    bool include_stop_;
    int32_t free_tokens_;  // that may still come before stop strings count
    std::string held_;     // shorter than the longest stop string; itself the start of one
};

}  // namespace llm::engine
