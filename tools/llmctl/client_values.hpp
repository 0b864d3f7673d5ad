// The options that describe a client, checked by the gateway's own rules.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tools/llmctl/arguments.hpp"
#include "tools/llmctl/token_store.hpp"

namespace llm::ctl {

// --name … --disabled.
const std::vector<Option>& client_options();

// What the line says of a client; an empty value clears a column. Throws a usage failure for a value that is
// not allowed.
Changes changes_from(const Arguments& arguments);

// A time as people write it (2026-12-31, 2026-12-31T18:00:00Z, +30d, +12h, never) as tables have it, in UTC;
// nothing = never. Throws a usage failure that begins with `option`.
Value time_of(const std::string& option, const std::string& text);

// Why the gateway would skip a row of these values, empty = it would not. `position` names it in the reason.
std::string why_bad(const ClientValues& values, size_t position);

}  // namespace llm::ctl
