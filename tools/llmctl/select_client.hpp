// Which client an operator means.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tools/llmctl/token_store.hpp"

namespace llm::ctl {

inline constexpr std::string_view kWhoHelp =
    "WHO is an id, a name, an email, the first 8 or more digits of a fingerprint, or a secret itself; id:X, "
    "name:X, "
    "email:X and sha256:X say which.";

// The one client that `who` names. Not found: Exit::not_found; more than one: refused, with a list. Neither
// message repeats `who` where it may be a secret.
const StoredClient& select_client(const std::vector<StoredClient>& clients, const std::string& who);

// How messages call a client: 7 "alice" (3f2a9c01b2d4).
std::string label(const StoredClient& client);

// The first twelve digits of its token's SHA-256: enough to recognise it by, useless for asking.
std::string fingerprint(const StoredClient& client);

}  // namespace llm::ctl
