// Text to token ids and back, as a Hugging Face `tokenizer.json` (model type BPE) says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llm::engine {

// Immutable after loading; safe to use from several threads at once.
class Tokenizer {
  public:
    // Loads DIR/tokenizer.json (and the names of special tokens in DIR/tokenizer_config.json). Throws
    // std::runtime_error with one sentence that names the file and the unsupported or malformed part.
    static std::unique_ptr<Tokenizer> load(const std::string& dir);
    // The same from the texts of the two files; `tokenizer_config` may be empty.
    static std::unique_ptr<Tokenizer> parse(std::string_view tokenizer_json,
                                            std::string_view tokenizer_config = {});

    virtual ~Tokenizer() = default;

    struct EncodeOptions {
        bool add_special = true;    // apply the post-processor (BOS and the like)
        bool parse_special = true;  // special tokens spelled out in the text become their ids; false for text
                                    // that a user wrote: "<|im_end|>" is then ordinary characters
        size_t most = SIZE_MAX;     // ids that are of any use to the caller
    };
    // Ids of `text`. Invalid UTF-8 is replaced by U+FFFD first. O(text). A text of more than `most` ids gives
    // some number of ids above that, which mean nothing else: this is found out as early as can be. Throws
    // std::runtime_error for a text that the model's patterns cannot cut (a line of millions of spaces).
    virtual std::vector<int32_t> encode(std::string_view text, const EncodeOptions& options) const = 0;

    // The whole text of `ids`, byte for byte as the reference library decodes them. Unknown ids are skipped.
    virtual std::string decode(const std::vector<int32_t>& ids, bool skip_special = true) const = 0;

    // The bytes that one token adds to a text under way (may end inside a UTF-8 character). `first` = it is
    // the first token of the text (sentencepiece strips one space there). Special tokens give no bytes when
    // skipped.
    virtual std::string token_bytes(int32_t id, bool first, bool skip_special = true) const = 0;

    virtual int32_t vocab_size() const = 0;                         // largest id + 1
    virtual int32_t token_to_id(std::string_view token) const = 0;  // -1 = no such token
    virtual std::string_view id_to_token(int32_t id) const = 0;  // as spelled in the file; empty = no such id
    virtual bool is_special(int32_t id) const = 0;
    virtual int32_t bos_id() const = 0;  // -1 = none
    virtual int32_t eos_id() const = 0;  // -1 = none
};

// Turns a stream of tokens into text without ever splitting a UTF-8 character: holds back an incomplete tail.
class StreamDecoder {
  public:
    // `before`: tokens that the text goes on behind; they are not part of it.
    explicit StreamDecoder(const Tokenizer& tokenizer, std::span<const int32_t> before = {});
    // Text that became complete with this token (may be empty).
    std::string push(int32_t id);
    // What is left at the end; an incomplete character becomes U+FFFD.
    std::string flush();

  private:
    bool begins_text(int32_t id) const;

    const Tokenizer& tokenizer_;
    std::string pending_;
    bool first_;  // the next token is the first of the text that it belongs to
};

}  // namespace llm::engine
