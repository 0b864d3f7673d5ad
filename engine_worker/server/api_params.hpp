// Typed, range-checked access to the fields of a request body. Absent and null are the same. Every fault is
// an ApiError that names the field.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "engine_worker/scheduler/request.hpp"
#include "engine_worker/server/generation_defaults.hpp"
#include "engine_worker/server/sampling_ranges.hpp"
#include "shared/json.hpp"

namespace llm::engine {

using Json = nlohmann::ordered_json;

class Params {
  public:
    // `prefix` stands before every name in messages: "stream_options." of an object within the body.
    explicit Params(const Json& body, std::string prefix = "") : body_(body), prefix_(std::move(prefix)) {}

    // The field, or null if it is absent or null.
    const Json* find(const char* name) const;

    std::optional<double> number(const char* name, double low, double high) const;      // low..high inclusive
    std::optional<double> number(const char* name, const NumberRange& range) const;
    std::optional<int64_t> integer(const char* name, int64_t low, int64_t high) const;  // 3.0 counts as 3
    std::optional<bool> boolean(const char* name) const;
    std::optional<std::string> string(const char* name) const;

  private:
    const Json& body_;
    std::string prefix_;
};

// What both generation endpoints share.
struct SamplingLimits {
    int32_t vocab_size = 0;
    int32_t max_context = 0;
    int32_t least_tokens = 1;  // of max_tokens
    GenerationDefaults defaults;
};

// Reads temperature, top_p, top_k, min_p, seed, penalties, logit_bias, stop, max_tokens and the extensions
// that vLLM clients know (min_tokens, ignore_eos, stop_token_ids, include_stop_str_in_output). `random_seed`
// is used where the client gives none. Logprobs differ by endpoint and are not read here.
Sampling parse_sampling(const Params& params, const SamplingLimits& limits, uint64_t random_seed);

// Refuses fields that would change the answer and are not supported; a value that changes nothing is welcome.
void refuse_unsupported(const Params& params);
void refuse_unsupported_embeddings(const Params& params);
void refuse_unsupported_tokenize(const Params& params);  // of a chat

// Whether `value` is an integer that names a token.
bool is_token_id(const Json& value, int32_t vocab_size);
// For messages: which ids there are, as the end of a sentence.
std::string token_range(int32_t vocab_size);

}  // namespace llm::engine
