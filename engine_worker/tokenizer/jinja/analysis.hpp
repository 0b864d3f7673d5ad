// What can be said of a template without rendering it.
#pragma once

#include <string_view>

#include "engine_worker/tokenizer/jinja/ast.hpp"

namespace llm::engine::jinja {

// Throws std::runtime_error "line N: …" for a filter or test that does not exist. As in jinja2, one inside of
// an `if` or a conditional expression is an error only where it is reached: templates ask first whether they
// need it.
void check_names(const Block& block);

// Whether the template reads a variable of this name.
bool reads(const Block& block, std::string_view variable);

// Whether the template goes through the parts of a message's content by itself, rather than take one string:
// there is a loop over `content` of a message, over a variable `content`, or over a macro's parameter that is
// given one. The rule is vLLM's (vllm/renderers/hf.py), so that both hand the same to a template.
bool walks_content(const Block& block);

}  // namespace llm::engine::jinja
