// The regular expressions of tokenizer.json (Oniguruma's Ruby syntax in the reference library) on PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;

namespace llm::engine {

// What one match needs to write to; one per thread at a time.
class RegexScratch {
  public:
    RegexScratch();
    ~RegexScratch();
    RegexScratch(const RegexScratch&) = delete;
    RegexScratch& operator=(const RegexScratch&) = delete;
    pcre2_real_match_data_8* get() const { return data_; }

  private:
    pcre2_real_match_data_8* data_;
};

// Immutable; matching is thread-safe with a scratch of the caller's own.
class SplitRegex {
  public:
    // Throws std::runtime_error that quotes the pattern and says what is wrong with it.
    explicit SplitRegex(std::string_view pattern);
    static SplitRegex literal(std::string_view text);

    struct Match {
        size_t begin = 0, end = 0;
    };
    // Walks over the non-overlapping matches in valid UTF-8 text, left to right. An empty match is reported
    // unless it touches the match before it (the rule of the reference's iterator).
    class Walk {
      public:
        Walk(const SplitRegex& regex, std::string_view text, RegexScratch& scratch)
            : regex_(regex), text_(text), scratch_(scratch) {}
        // False at the end. Throws std::runtime_error when PCRE2 gives up (its own backtracking limits).
        bool next(Match& match);

      private:
        const SplitRegex& regex_;
        std::string_view text_;
        RegexScratch& scratch_;
        size_t from_ = 0;
        size_t last_end_ = static_cast<size_t>(-1);
    };

  private:
    SplitRegex() = default;
    bool find(std::string_view text, size_t from, RegexScratch& scratch, Match& match) const;

    std::string literal_;  // used when code_ is null
    std::shared_ptr<const pcre2_real_code_8> code_;
    bool jit_ = false;
};

// Rewrites the constructs that mean something else to PCRE2: \s \S (PCRE2 adds U+180E), \w \W \h \H \uHHHH.
// Exposed for its test. Throws on a construct that PCRE2 would silently read otherwise (class intersection,
// `{n,m}+`).
std::string to_pcre2_syntax(std::string_view pattern);

}  // namespace llm::engine
