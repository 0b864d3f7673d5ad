// Template source to tree.
#pragma once

#include <string_view>

#include "engine_worker/tokenizer/jinja/ast.hpp"

namespace llm::engine::jinja {

// Throws std::runtime_error "line N: …" on malformed source and on statements, filters or tests that are not
// supported (see check_names()). O(source); nesting is bounded.
Block parse_template(std::string_view source);

}  // namespace llm::engine::jinja
