// The `decoder` of tokenizer.json: tokens back to text.
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "engine_worker/tokenizer/json_part.hpp"
#include "engine_worker/tokenizer/split_regex.hpp"

namespace llm::engine {

// Immutable after load().
class Decoder {
  public:
    // Sequence, ByteLevel, Metaspace, Replace, ByteFallback, Fuse and Strip; null = tokens joined by a space.
    // Throws on any other.
    static Decoder load(const JsonPart& part);

    // The text of a whole list of tokens, valid UTF-8, as the reference library gives it.
    std::string decode(std::vector<std::string> tokens, RegexScratch& scratch) const;

    // What one token contributes, as bytes that may end inside a character. `first`: no token came before it.
    // Joined over a list this equals decode() wherever the list spells valid UTF-8; Strip at the end of a
    // text is the one thing that cannot be known here and is left out.
    std::string piece(std::string_view token, bool first, RegexScratch& scratch) const;

  private:
    struct ByteLevel {};
    struct ByteFallback {};
    struct Fuse {};
    struct Metaspace {
        std::string replacement;
        bool strip_first;
    };
    struct Replace {
        SplitRegex what;
        std::string with;
    };
    struct Strip {
        std::string content;
        int32_t start, stop;
    };
    using Step = std::variant<ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip>;

    void add(const JsonPart& part, int depth);
    static void apply(const Step& step, std::vector<std::string>& tokens, RegexScratch& scratch);

    std::vector<Step> steps_;
    bool join_by_space_ = false;
};

}  // namespace llm::engine
