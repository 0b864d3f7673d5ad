#include "shared/siphash.hpp"

#include <bit>
#include <cstring>

namespace llm {
namespace {

struct State {
    uint64_t v0, v1, v2, v3;

    void round() {
        v0 += v1;
        v2 += v3;
        v1 = std::rotl(v1, 13) ^ v0;
        v3 = std::rotl(v3, 16) ^ v2;
        v0 = std::rotl(v0, 32) + v3;
        v2 += v1;
        v3 = std::rotl(v3, 21) ^ v0;
        v1 = std::rotl(v1, 17) ^ v2;
        v2 = std::rotl(v2, 32);
    }

    void take(uint64_t word) {
        v3 ^= word;
        round();
        round();
        v0 ^= word;
    }

    uint64_t finish() {
        for (int i = 0; i < 4; ++i) {
            round();
        }
        return v0 ^ v1 ^ v2 ^ v3;
    }
};

// Eight bytes as a little-endian number.
uint64_t load(const char* p) {
    static_assert(std::endian::native == std::endian::little);
    uint64_t word;
    std::memcpy(&word, p, sizeof(word));
    return word;
}

}  // namespace

SipTag siphash128(const SipKey& key, std::string_view text) {
    State state{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d ^ 0xee, key[0] ^ 0x6c7967656e657261,
                key[1] ^ 0x7465646279746573};
    const char* p = text.data();
    size_t left = text.size();
    for (; left >= 8; left -= 8, p += 8) {
        state.take(load(p));
    }
    uint64_t last = uint64_t{text.size()} << 56;
    if (left != 0 && text.size() >= 8) {
        last |= load(p + left - 8) >> (64 - 8 * left);  // with some that have been taken, which fall out
    } else {
        for (size_t i = 0; i < left; ++i) {
            last |= uint64_t{static_cast<uint8_t>(p[i])} << (8 * i);
        }
    }
    state.take(last);
    state.v2 ^= 0xee;
    const uint64_t low = state.finish();
    state.v1 ^= 0xdd;
    return {low, state.finish()};
}

}  // namespace llm
