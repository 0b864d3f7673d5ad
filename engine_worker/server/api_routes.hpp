// The paths of the API and what they take.
#pragma once

#include <string>
#include <string_view>

#include "engine_worker/server/http_message.hpp"

namespace llm::engine {

inline constexpr std::string_view kModels = "/v1/models";
inline constexpr std::string_view kChat = "/v1/chat/completions";
inline constexpr std::string_view kCompletions = "/v1/completions";
inline constexpr std::string_view kResponses = "/v1/responses";
inline constexpr std::string_view kOneResponse = "/v1/responses/";  // followed by its id
inline constexpr std::string_view kEmbeddings = "/v1/embeddings";
inline constexpr std::string_view kTokenize = "/tokenize";
inline constexpr std::string_view kDetokenize = "/detokenize";

// What monitoring asks, which has no key: nothing of clients is in it.
bool is_probe(std::string_view path);

// What every path has in common: the paths there are (404), the methods they take (405), and OPTIONS. True: `reply` is all.
// Throws ApiError.
bool answered_by_routes(const HttpRequest& request, HttpReply& reply);

HttpReply text_reply(int status, std::string body);

}  // namespace llm::engine
