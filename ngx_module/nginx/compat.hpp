// llm_compat aristote: the exact answers of Aristote Dispatcher, for clients that were written against it.
#pragma once

#include "ngx_module/nginx/request.hpp"

namespace llm::nginx {

// Sets the answer of a refusal where that system has one of its own; the others keep their OpenAI object.
void set_compat_answer(const Request& request, Refusal& refusal);

// The answer for an unknown id in GET /v1/models/{id}.
void set_compat_model_answer(ngx_http_request_t* r, std::string_view id, Refusal& refusal);

}  // namespace llm::nginx
