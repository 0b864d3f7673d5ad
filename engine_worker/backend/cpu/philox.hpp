// Philox4x32-10, a counter-based random generator: the draw for a key and a counter is a pure function of the
// two, so there is no state that batching or preemption could disturb. Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>

namespace llm::engine {

inline std::array<uint32_t, 4> philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    for (int round = 0; round < 10; round++) {
        const uint64_t first = uint64_t{0xD2511F53} * counter[0];
        const uint64_t second = uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<uint32_t>(second >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(second),
                   static_cast<uint32_t>(first >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(first)};
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return counter;
}

// Uniform in [0, 1), 53 bits, of the token at `position` in a sequence sampled with `seed`.
inline double uniform_draw(uint64_t seed, uint32_t position) {
    const auto random =
        philox4x32({position, 0, 0, 0}, {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
    const uint64_t bits = (uint64_t{random[0]} << 32) | random[1];
    return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace llm::engine
