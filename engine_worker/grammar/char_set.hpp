// Sets of Unicode characters, and how they are written in UTF-8 and in JSON strings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/grammar/grammar.hpp"

namespace llm::engine {

struct CharRange {
    uint32_t low, high;  // inclusive code points
};

// Sorted, disjoint ranges of Unicode scalar values (no surrogates).
class CharSet {
  public:
    CharSet() = default;
    CharSet(std::initializer_list<CharRange> ranges);
    static CharSet all();

    void add(uint32_t low, uint32_t high);
    void add(const CharSet& other);
    CharSet complement() const;
    CharSet without(const CharSet& other) const;
    bool contains(uint32_t c) const;
    bool empty() const { return ranges_.empty(); }
    const std::vector<CharRange>& ranges() const { return ranges_; }

  private:
    std::vector<CharRange> ranges_;
};

// Code points of valid UTF-8; what is not valid becomes U+FFFD.
std::vector<uint32_t> code_points(std::string_view text);

// Edges from `from` to `to` that read one character of the set in UTF-8. Tails are shared: about four nodes
// per range at most.
void add_utf8(GrammarBuilder& builder, int32_t from, const CharSet& set, int32_t to);

// The same as it stands between the quotes of a JSON string: quote, backslash and control characters in their
// shortest escape, everything else as it is. Control characters without a short escape are left out unless
// the set has nothing but such.
void add_json_char(GrammarBuilder& builder, int32_t from, const CharSet& set, int32_t to);

// `text` as a JSON string with its quotes, in that same form.
std::string json_quoted(std::string_view text);

}  // namespace llm::engine
