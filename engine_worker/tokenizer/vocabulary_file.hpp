// Reads tokenizer.json: the vocabulary and the merges straight into tables, the rest as JSON.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "shared/json.hpp"

namespace llm::engine {

// Strings that stay where they are until the arena goes.
class StringArena {
  public:
    std::string_view keep(std::string_view text);

  private:
    static constexpr size_t kBlock = 256 * 1024;
    std::vector<std::unique_ptr<char[]>> blocks_;
    size_t used_ = kBlock;
};

struct TokenizerFile {
    nlohmann::json rest;  // the document, with empty model.vocab and model.merges
    std::vector<std::pair<std::string_view, int32_t>> vocab;            // in file order
    std::vector<std::pair<std::string_view, std::string_view>> merges;  // in order of rank
    bool has_vocab_object = false;
    StringArena strings;

    // Throws std::runtime_error that says what is malformed and where. A real file (10 MB) takes ~0.1 s: the
    // hundreds of thousands of vocabulary entries never become JSON values.
    static std::unique_ptr<TokenizerFile> parse(std::string_view text);
};

}  // namespace llm::engine
