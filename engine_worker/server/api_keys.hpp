// The keys that clients of an engine must know, where it is not open to everybody who reaches it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "shared/token_hash.hpp"

namespace llm::engine {

class ApiKeys {
  public:
    // Reads one key per line; blank lines and those that begin with '#' are none. Empty, or what is wrong: no
    // key at all, or one that no header could carry.
    std::string load(const std::string& path);

    bool empty() const { return hashes_.empty(); }

    // Whether the value of an Authorization header is `Bearer` and one of the keys; always true when there
    // are no keys. How long it takes depends on the number of keys only.
    bool admits(std::string_view authorization) const;

  private:
    std::vector<TokenHash> hashes_;
};

}  // namespace llm::engine
