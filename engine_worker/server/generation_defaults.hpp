// What a model's authors want requests to use that say nothing else: generation_config.json.
#pragma once

#include <cstdint>
#include <string>

namespace llm::engine {

// The neutral values are OpenAI's; what each may be: sampling_ranges.hpp.
struct GenerationDefaults {
    float temperature = 1;
    float top_p = 1;
    int32_t top_k = 0;       // 0 = all
    float min_p = 0;
    float repetition_penalty = 1;
    int32_t max_tokens = 0;  // of an answer; 0 = until the context is full

    // "temperature 0.7, top_p 0.8": those that are not neutral; empty when all are.
    std::string text() const;
};

// Reads temperature, top_p, top_k, min_p, repetition_penalty and max_new_tokens of DIR/generation_config.json, as vLLM
// does; `do_sample` means nothing here. Absent or null is neutral, as is a missing file. Throws std::runtime_error with
// one sentence for a value that a request may not have either.
GenerationDefaults load_generation_defaults(const std::string& dir);

}  // namespace llm::engine
