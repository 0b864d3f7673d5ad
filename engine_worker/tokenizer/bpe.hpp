// Byte-pair encoding of one piece of text: the `model` of tokenizer.json.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/flat_maps.hpp"

namespace llm::engine {

class JsonPart;
struct TokenizerFile;

// The byte alphabet of GPT-2 (encoder.py, bytes_to_unicode): every byte as one printable code point.
char32_t byte_to_char(unsigned char byte);
// The byte that `c` stands for, or -1.
int char_to_byte(char32_t c);
// A token spelled in that alphabet as the bytes it stands for; false when a character is not of the alphabet.
bool spelled_to_bytes(std::string_view token, std::string& bytes);

// Immutable after load(); encode() is thread-safe with a scratch of the caller's own.
class Bpe {
  public:
    // `file` must outlive this. Throws std::runtime_error naming the part that is malformed or not supported.
    void load(const TokenizerFile& file, const JsonPart& model, bool byte_level);

    // Words seen before with their ids, one place per hash; and what a merge works on. One per thread at a
    // time.
    class Scratch;

    // Appends the ids of one non-empty piece of valid UTF-8. Cached words cost O(length), others
    // O(length * log(length)).
    void encode(std::string_view piece, Scratch& scratch, std::vector<int32_t>& out) const;

    int32_t find(std::string_view spelled) const { return vocab_.find(spelled); }
    // As spelled in the file; empty = no such id.
    std::string_view token(int32_t id) const {
        return static_cast<size_t>(id) < tokens_.size() ? tokens_[static_cast<size_t>(id)]
                                                        : std::string_view();
    }
    // No token stands for more bytes of a piece than this; 0 = not known, as some bytes give no token.
    size_t longest() const { return longest_; }
    int32_t size() const { return static_cast<int32_t>(tokens_.size()); }  // largest id + 1

  private:
    void load_merges(const TokenizerFile& file, const JsonPart& model);
    void encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& out) const;
    void initial_symbols(std::string_view word, std::vector<int32_t>& symbols) const;
    void merge_short(Scratch& scratch, std::vector<int32_t>& out) const;
    void merge_long(Scratch& scratch, std::vector<int32_t>& out) const;

    StringIdMap vocab_;  // by spelling
    StringIdMap whole_;  // by the bytes of a piece, where ignore_merges asks for it
    MergeMap merges_;
    std::vector<std::string_view> tokens_;
    std::vector<std::string> whole_texts_;
    std::array<int32_t, 256> byte_ids_{};  // byte level: id of the byte; else id of "<0xNN>"; -1 = none
    bool byte_level_ = false;
    bool byte_fallback_ = false;
    bool fuse_unk_ = false;
    bool ignore_merges_ = false;
    // No token has U+2581 after another character, so that no merge crosses "x|\u2581y": a text without
    // pre-tokenizer (Llama 2) may be cut there, and its words cached.
    bool cut_at_metaspace_ = false;
    int32_t unk_ = -1;
    size_t longest_ = 0;
};

class Bpe::Scratch {
  public:
    Scratch() : cache_(kSlots) {}

  private:
    friend class Bpe;
    static constexpr size_t kSlots = 16384;  // 1 MiB
    struct alignas(64) Word {                // one cache line
        uint32_t tag = 0;
        uint8_t length = 0;  // 0 = free
        uint8_t count = 0;
        char text[30];
        int32_t ids[7];
    };
    struct Symbol {
        int32_t id;
        int32_t previous, next;  // -1 = none
        bool gone;
    };
    struct Candidate {
        uint32_t rank;
        int32_t at;
        int32_t id;
    };
    std::vector<Word> cache_;
    std::vector<int32_t> symbols_;
    std::vector<Merge> pairs_;
    std::vector<Symbol> list_;
    std::vector<Candidate> heap_;
};

}  // namespace llm::engine
