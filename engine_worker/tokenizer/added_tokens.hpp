// Added tokens: strings that are cut out of a text before anything else looks at it.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llm::engine {

struct AddedToken {
    int32_t id = -1;
    std::string content;
    std::string spelling;  // what is looked for and what it decodes to: the content, normalised where asked
    bool special = false;
    bool normalized = false;   // looked for in the normalised text, and in the normalised spelling
    bool lstrip = false;       // swallows the white space before it
    bool rstrip = false;       // ... after it
    bool single_word = false;  // only where no word character touches it
};

// Leftmost-longest search for a set of added tokens. Immutable after the adds.
class AddedTokenMatcher {
  public:
    // A token with an empty spelling is ignored. `token` must outlive the matcher.
    void add(const AddedToken& token);
    bool empty() const { return nodes_.size() == 1; }

    struct Segment {
        std::string_view text;
        const AddedToken* token;  // null = ordinary text
    };
    // Cuts valid UTF-8 `text` and appends the non-empty segments. With `skip_special`, special tokens are
    // left in the text around them. O(text * longest token), in practice O(text): a first-byte table comes
    // first.
    void split(std::string_view text, bool skip_special, std::vector<Segment>& out) const;

  private:
    struct Node {
        std::vector<std::pair<unsigned char, uint32_t>> next;  // sorted by byte
        const AddedToken* token = nullptr;
    };
    // The longest token that begins at `at`; sets `end`.
    const AddedToken* longest(std::string_view text, size_t at, size_t& end) const;

    std::vector<Node> nodes_ = std::vector<Node>(1);
    std::array<bool, 256> first_byte_{};
};

}  // namespace llm::engine
