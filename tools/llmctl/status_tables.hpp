// Parts of status.json as tables for people.
#pragma once

#include "tools/llmctl/text.hpp"

namespace llm::ctl {

Table models_table(const Json& status);
Table engines_table(const Json& status);
Table clients_table(const Json& status);
// Those that wait; `all`: those that run too.
Table requests_table(const Json& status, bool all);

// Whether a request of status.json has no engine yet.
bool is_waiting(const Json& request);

// "ready", "drained", "below minimum", …: the one word that matters most of an engine.
std::string engine_state(const Json& engine);

}  // namespace llm::ctl
