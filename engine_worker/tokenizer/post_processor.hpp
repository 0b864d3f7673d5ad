// The `post_processor` of tokenizer.json: the special tokens put around a text (BOS and the like).
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/json_part.hpp"

namespace llm::engine {

// Immutable after load().
class PostProcessor {
  public:
    // TemplateProcessing (its `single` form), RobertaProcessing, BertProcessing, Sequence and ByteLevel
    // (which only moves offsets); null = none. Throws on any other.
    static PostProcessor load(const JsonPart& part);

    // `ids` with the special tokens in place.
    void apply(std::vector<int32_t>& ids) const;

  private:
    static constexpr int32_t kText = -1;  // in a frame: here stands the text
    void add(const JsonPart& part, int depth);
    static std::vector<int32_t> load_template(const JsonPart& part);

    std::vector<std::vector<int32_t>> frames_;  // applied one after the other
};

}  // namespace llm::engine
