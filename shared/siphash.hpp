// SipHash-2-4 with 128 bits of output (J.-P. Aumasson, D. J. Bernstein, "SipHash: a fast short-input PRF",
// 2012; the long output as in the authors' reference code): a keyed hash for short texts that an opponent
// may choose.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace llm {

using SipKey = std::array<uint64_t, 2>;  // secret and random
using SipTag = std::array<uint64_t, 2>;  // two little-endian words of the output

// O(bytes); about 30 instructions per 8 bytes.
SipTag siphash128(const SipKey& key, std::string_view text);

}  // namespace llm
