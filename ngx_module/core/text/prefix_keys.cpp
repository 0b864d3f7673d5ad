#include "ngx_module/core/text/prefix_keys.hpp"

#include <algorithm>
#include <cstring>

namespace llm::core {
namespace {

constexpr uint64_t kHashed = PrefixKeys::covered(PrefixKeys::kMost - 1);  // what follows is only counted

// Both halves of the product of two words, folded into one: each bit depends on all bits of both (wyhash's
// step).
uint64_t fold(uint64_t a, uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

uint32_t key_of(uint64_t state) {
    const auto key = static_cast<uint32_t>(fold(state ^ 0x8bb84b93962eacc9u, 0x4b33a62ed433d4a3u));
    return key != 0 ? key : 1;
}

}  // namespace

// Keys stand for whole blocks.
void PrefixHash::take_block(const char* bytes) {
    uint64_t low;
    uint64_t high;
    std::memcpy(&low, bytes, sizeof low);
    std::memcpy(&high, bytes + sizeof low, sizeof high);
    state_ = fold(low ^ 0xa0761d6478bd642fu, high ^ state_);
}

void PrefixHash::feed(std::string_view piece) {
    const uint64_t end = bytes_ + piece.size();
    piece = piece.substr(0, bytes_ < kHashed ? std::min<uint64_t>(piece.size(), kHashed - bytes_) : 0);
    while (!piece.empty()) {
        const size_t begun = bytes_ % kBlock;
        size_t taken = std::min(kBlock - begun, piece.size());
        if (taken == kBlock) {
            // as many whole blocks as there are before the next key
            const uint64_t next = PrefixKeys::covered(keys_.count());
            taken = std::min<uint64_t>(piece.size(), next - bytes_) / kBlock * kBlock;
            for (size_t at = 0; at < taken; at += kBlock) {
                take_block(piece.data() + at);
            }
        } else {
            std::memcpy(begun_ + begun, piece.data(), taken);
            if (begun + taken == kBlock) {
                take_block(begun_);
            }
        }
        piece.remove_prefix(taken);
        bytes_ += taken;
        keys_.bytes = static_cast<uint32_t>(bytes_);
        const uint32_t made = keys_.count();
        if (made != 0 && bytes_ == PrefixKeys::covered(made - 1)) {
            keys_.key[made - 1] = key_of(state_);
        }
    }
    bytes_ = end;
}

PrefixKeys PrefixHash::keys() const {
    PrefixKeys keys = keys_;
    keys.bytes = static_cast<uint32_t>(std::min<uint64_t>(bytes_, UINT32_MAX));
    return keys;
}

}  // namespace llm::core
