// A client's messages and tools as chat templates expect them.
#pragma once

#include <string>

#include "engine_worker/server/api_params.hpp"
#include "engine_worker/server/special_text.hpp"
#include "engine_worker/tokenizer/chat_template.hpp"

namespace llm::engine {

// The messages that `chat_template` is given for `messages`, checked, with control tokens in their text
// marked. Where servers differ, as vLLM and transformers have it:
// - content is a string (text parts joined by line breaks), or a list of text parts for templates that go
// through
//   them themselves; a tool's result is always a string; a missing one of an assistant is empty
// - "developer" is "system" for templates that do not know it, all of them then in one message at the
// beginning
// - tool_calls[].function.arguments is an object; no calls are no tool_calls
// - reasoning_content, reasoning and thinking are one, and a template finds it under each of these names
// - what is null is not there
// Throws ApiError.
Json template_messages(const Json& messages, const ChatTemplate& chat_template, const SpecialText& special);

// `tools` checked, with control tokens marked; otherwise as the client sent them. Throws ApiError.
Json template_tools(const Json& tools, const SpecialText& special);

// chat_template_kwargs checked, with control tokens marked. Throws ApiError.
Json template_variables(const Json& kwargs, const SpecialText& special);

// The text that ends `message`, one of template_messages(): its content, or the last part of that; empty =
// none.
std::string final_text(const Json& message);

}  // namespace llm::engine
