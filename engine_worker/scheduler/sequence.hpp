// One choice of one request on its way: its tokens, its memory, its place in line.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "engine_worker/scheduler/request.hpp"
#include "engine_worker/scheduler/text_output.hpp"

namespace llm::engine {

constexpr int32_t kUnknownToken = -1;

struct Sequence {
    // Identity and order. `id` grows with arrival.
    uint64_t id = 0;
    uint64_t request = 0;
    int32_t choice = 0;
    int32_t prompt_index = 0;
    int32_t priority_class = kDefaultPriorityClass;
    Task task = Task::generate;

    // The text: prompt, then what was generated. A preempted sequence keeps it.
    std::vector<int32_t> tokens;
    bool last_unknown = false;  // the last of them is still being computed, and kUnknownToken
    int32_t n_prompt = 0;
    int32_t max_tokens = 0;  // of generated ones
    std::shared_ptr<const Sampling> sampling;
    uint64_t seed = 0;  // the request's, told apart by choice

    // Memory; only while running. Blocks cover at least the computed tokens.
    uint64_t root = 0;        // start of the hash chain (the salt)
    uint64_t chain = 0;       // hash after the published blocks
    int32_t n_published = 0;  // blocks that are findable (or taken over from the cache)
    int32_t n_computed = 0;   // tokens whose keys and values are in memory
    std::vector<int32_t> blocks;

    // The scheduler's notes.
    bool running = false;
    int32_t shortages = 0;      // how often it gave up its memory because there was no more: it is planned with more each time
    int32_t n_planned = 0;      // tokens it computes in the step being planned
    int64_t admitted_step = 0;  // step in which it was last admitted
    uint32_t table_epoch = 0;   // grows with every admission: an older copy of its block table is stale
    bool ended = false;         // found out while a step was under way: what that step brings is not for it
    uint32_t preemptions = 0;
    int32_t n_cached = -1;  // prompt tokens found in the cache at first admission; -1 = never admitted

    // Times in seconds of the engine's clock.
    double arrived = 0;
    double waiting_since = 0;
    bool queue_counted = false;  // its time in line is in the statistics
    double first_token = 0;      // 0 = none yet
    double last_token = 0;
    double charged_until = 0;  // user seconds are counted up to here

    std::vector<double> hidden_sum;  // of Task::embed_mean, over the computed tokens
    std::vector<std::vector<TokenLogprob>> prompt_logprobs;  // at i: of token i + 1; Sampling::score_prompts
    bool scored = false;                                     // and told

    // End of text and logprobs; the engine core's.
    std::unique_ptr<TextOutput> text;
    std::unique_ptr<GrammarMatcher> grammar;      // where the text stands in its grammar; may be null
    std::vector<std::pair<int32_t, float>> bias;  // logit_bias, and end-of-text forbidden by ignore_eos
    std::vector<std::pair<int32_t, float>> bias_no_end;  // and all that ends the text, before min_tokens

    bool scores_prompt() const { return sampling != nullptr && sampling->score_prompts && !scored; }
    // Tokens of [first, end) whose logits score the prompt's next one.
    int32_t n_scoring(int32_t first, int32_t end) const {
        return scores_prompt() ? std::max(0, std::min(end, n_prompt - 1) - first) : 0;
    }
    // A token that was sampled, in its place if the sequence was planned ahead of it.
    void take(int32_t token) {
        if (last_unknown) {
            tokens.back() = token;
            last_unknown = false;
        } else {
            tokens.push_back(token);
        }
    }
    void expect_token() {
        tokens.push_back(kUnknownToken);
        last_unknown = true;
    }

    int32_t n_tokens() const { return static_cast<int32_t>(tokens.size()); }
    int32_t n_generated() const { return n_tokens() - n_prompt; }
    // One token is missing in memory: the next step is a decode.
    bool decoding() const { return running && n_computed == n_tokens() - 1; }
};

}  // namespace llm::engine
