// A backend that only takes the time that a cost model says, and reads its answers from a text.
#pragma once

#include <memory>
#include <string>

#include "engine_worker/backend/backend.hpp"

namespace llm::engine {

struct SimOptions {
    // Milliseconds of a step: base + per_sequence·decodes + per_context·context tokens + per_prefill·prompt
    // tokens. The defaults are about those of an 8-billion-parameter model on one large GPU.
    double base_ms = 5.0;
    double per_sequence_ms = 0.03;
    double per_context_ms = 0.00003;
    double per_prefill_ms = 0.03;

    // Every sequence answers with this text over and over, one byte per token (byte_tokenizer.hpp); never
    // empty.
    std::string text = "The quick brown fox jumps over the lazy dog. ";
    int32_t reply_tokens = 0;  // then the end-of-text token; 0 = never
};

// Token number i of an answer depends on nothing but i: preempted or not, batched or not, the text is the
// same. Bias and masks are obeyed: the next of the text that they allow is taken. Logprobs are those of a
// model that is sure of every token (0). Uses kv_tokens, max_context, max_step_tokens and max_step_seqs of
// `options`.
std::unique_ptr<Backend> make_sim_backend(const BackendOptions& options, const SimOptions& sim);

}  // namespace llm::engine
