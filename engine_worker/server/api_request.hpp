// From the body of a generation request to what the engine is asked for.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "engine_worker/scheduler/request.hpp"
#include "engine_worker/server/chat_output.hpp"
#include "engine_worker/server/http_message.hpp"
#include "engine_worker/server/served_model.hpp"

namespace llm::engine {

inline constexpr int32_t kMaxTopLogprobs = 20;  // SampleParams::n_logprobs

// How the answer is to be written.
struct AnswerShape {
    bool chat = true;
    bool embeddings = false;
    bool base64 = false;     // embeddings: not as numbers
    int32_t dimensions = 0;  // embeddings: the first so many; 0 = all
    bool stream = false;
    bool include_usage = false;     // a last chunk with the usage
    bool continuous_usage = false;  // the usage so far in every chunk
    bool logprobs = false;
    bool token_ids = false;         // in logprobs "token_id:5" instead of the token's text
    bool reasoning = true;          // chats: what the model thinks is part of the answer
    ChatOutput::Options output;     // chats: what to look for in the text
    std::string model;              // the name that the client used
    std::vector<std::string> echo;  // completions with echo: each prompt's text, put before its choices
    bool only_echo = false;         // and with max_tokens 0: nothing else
    std::string response;           // /v1/responses: members that repeat the request, `"a":1,"b":2`; else empty
};

struct GenerationCall {
    AnswerShape shape;
    Request request;  // without id
};

// Parses a JSON body; an object, or ApiError.
Json parse_body(const HttpRequest& http);

// 400 without `model`, 404 with one that is not served.
std::string checked_model(const Params& params, const ServedModel& model);

// Headers of the gateway: `x-llm-priority` (an integer, lower is sooner) wins over the body's `priority`
// (vLLM's: lower is sooner, 0 is the default class); `x-llm-client` wins over the body's `cache_salt`.
GenerationCall parse_chat(const HttpRequest& http, const Json& body, const ServedModel& model, uint64_t random_seed);
GenerationCall parse_completion(const HttpRequest& http, const ServedModel& model, uint64_t random_seed);

// POST /v1/embeddings.
GenerationCall parse_embeddings(const HttpRequest& http, const ServedModel& model);

// The ids of POST /tokenize, from `prompt` or `messages`.
std::vector<int32_t> parse_tokenize(const Json& body, const ServedModel& model);

}  // namespace llm::engine
