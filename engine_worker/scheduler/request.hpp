// What the server asks of the engine, and what it hears back.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/grammar/compiled_grammar.hpp"

namespace llm::engine {

// How text is drawn and when it ends; shared by all choices of a request. Ranges are checked by the server.
struct Sampling {
    float temperature = 1.0f;
    float top_p = 1.0f;
    int32_t top_k = 0;
    float min_p = 0.0f;
    float repetition_penalty = 1.0f;
    float presence_penalty = 0.0f;
    float frequency_penalty = 0.0f;
    uint64_t seed = 0;
    std::vector<std::pair<int32_t, float>> logit_bias;
    int32_t n_logprobs = -1;  // as SampleParams::n_logprobs
    bool score_prompts = false;  // log probabilities of the prompt's tokens, too; n_logprobs is not -1

    int32_t max_tokens = 0;  // > 0; the engine lowers it to what context and memory hold
    int32_t min_tokens = 0;  // no end-of-text or stop token, and no stop string, before
    bool ignore_eos = false;
    std::vector<int32_t> stop_tokens;  // end the text like an end-of-text token
    std::vector<std::string> stop;     // strings that end the text; not empty ones
    bool include_stop = false;         // leave the stop string in the text
};

// The class of requests that say nothing: the middle of the gateway's scale 0..100 (lower is sooner).
inline constexpr int32_t kDefaultPriorityClass = 50;

// What a request wants of its prompts.
enum class Task : uint8_t {
    generate,
    embed_last,  // one vector per prompt: the last token's hidden state
    embed_mean,  // the mean over all tokens'
};

struct Request {
    uint64_t id = 0;                            // unique in this process
    std::vector<std::vector<int32_t>> prompts;  // at least one, none empty
    Task task = Task::generate;
    int32_t n = 1;  // choices per prompt; choice c of prompt p has index p·n + c
    int32_t priority_class = kDefaultPriorityClass;
    std::string salt;  // who shares cached prefixes with whom
    Sampling sampling;
    std::shared_ptr<CompiledGrammar> grammar;  // what every choice must look like; null = anything
};

enum class FinishReason : uint8_t { none, stop, length, failed };

// One token's text, or the end of a choice. A choice's events come in order; the last has a finish reason.
struct Event {
    uint64_t request = 0;
    int32_t choice = 0;
    FinishReason finish = FinishReason::none;
    std::string text;               // may be empty: text is held back while it may still become a stop string
    int32_t completion_tokens = 0;  // of this choice so far
    int32_t cached_tokens = 0;      // of this choice's prompt, taken from the prefix cache
    std::vector<TokenLogprob> logprobs;  // empty, or the token itself and then the asked-for best ones
    // With the choice's first event, if the prompt is scored: the same of each of its tokens from the second on.
    std::vector<std::vector<TokenLogprob>> prompt_logprobs;
    std::vector<float> embedding;        // with the end of a prompt that was to be embedded: of length 1
    std::string error;                   // with FinishReason::failed: one sentence
};

}  // namespace llm::engine
