// The SHA-256 of tokens that this worker has seen lately: a client sends the same token with every request.
//
// What is kept is no token but a tag: 128 bits of SipHash under a key that this worker drew at random and
// that never leaves it. So the memory of a worker holds no secret of a client's, as before. A tag that agrees
// stands for the token: two different tokens agree with a probability of 2^-128, and whoever does not know
// the key cannot do better than guess, since tags are never shown. The time of a look-up tells whether this
// very token was used before, which only its owner can ask.
#pragma once

#include <string_view>

#include "shared/token_hash.hpp"

namespace llm::nginx {

// The same as hash_token(), mostly from memory. O(bytes); about 200 instructions for a token seen before.
TokenHash cached_hash(std::string_view token);

}  // namespace llm::nginx
