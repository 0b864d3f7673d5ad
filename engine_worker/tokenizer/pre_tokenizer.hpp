// The `pre_tokenizer` of tokenizer.json: cuts normalised text into the pieces within which BPE may merge.
#pragma once

#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/json_part.hpp"
#include "engine_worker/tokenizer/split_regex.hpp"

namespace llm::engine {

// Immutable after load().
class PreTokenizer {
  public:
    // Sequence, ByteLevel (last), Split, Metaspace, Digits, Whitespace, WhitespaceSplit and Punctuation; null
    // = one piece. Throws on any other.
    static PreTokenizer load(const JsonPart& part);

    // Pieces stand for the bytes of the text themselves (the reference would spell them in its byte
    // alphabet).
    bool byte_level() const { return byte_level_; }

    // Every byte of the text stands in a piece.
    bool keeps_everything() const;

    struct Piece {
        std::string_view text;
        bool at_start;  // begins where the whole input begins (Metaspace's prepend_scheme "first")
    };
    // Working memory, reused from call to call.
    struct Scratch {
        RegexScratch regex;
        std::vector<Piece> pieces, next;
        std::deque<std::string> texts;  // pieces that a step rewrote
        struct Span {
            size_t begin, end;
            bool match;
        };
        std::vector<Span> spans;
    };
    // Leaves the pieces of `text`, never empty ones, in scratch.pieces; valid until the next call.
    void split(std::string_view text, bool at_start, Scratch& scratch) const;

  private:
    enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
    enum class Prefix { kNever, kFirst, kAlways };
    // One step: rewrite (replace spaces, put a prefix before the piece), then cut.
    struct Step {
        std::string replace_space;  // Metaspace: what a space becomes; empty = leave
        Prefix prefix = Prefix::kNever;
        std::string prefix_text;
        std::optional<SplitRegex> regex;  // absent = no cut
        Behavior behavior = Behavior::kIsolated;
        bool invert = false;
    };

    void add(const JsonPart& part, int depth);
    static Behavior load_behavior(const JsonPart& part);
    static std::string_view rewrite(const Step& step, const Piece& piece, Scratch& scratch);
    static void cut(const Step& step, Piece piece, Scratch& scratch, std::vector<Piece>& out);

    std::vector<Step> steps_;
    bool byte_level_ = false;
};

}  // namespace llm::engine
