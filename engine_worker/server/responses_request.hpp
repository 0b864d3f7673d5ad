// POST /v1/responses: a chat completion under other names.
#pragma once

#include "engine_worker/server/api_request.hpp"

namespace llm::engine {

// The body of the chat completion that the body of a response asks for. Of what belongs to /v1/responses
// alone nothing is left; what both interfaces know by the same name, and what neither knows, is copied.
// Throws ApiError.
Json chat_of_response(const Json& body);

// parse_chat() of chat_of_response(); faults are told by the names that the client used.
GenerationCall parse_response(const HttpRequest& http, const ServedModel& model, uint64_t random_seed);

}  // namespace llm::engine
