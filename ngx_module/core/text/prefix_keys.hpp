// What the beginnings of a request body are known by, so that a request can go to the engine that has
// computed the same beginning before.
//
// A hash of the raw bytes: no tokenizer is needed, and what an engine's prefix cache can share is nearly
// always also the same bytes. Chains of such keys: Mooncake (Qin et al., 2024), SGLang's router.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace llm::core {

struct PrefixKeys {
    static constexpr uint32_t kMost = 11;
    static constexpr uint32_t kFirstBytes = 1024;
    // How many bytes of the body key `i` stands for: 1 KiB, 2 KiB … 1 MiB.
    static constexpr uint32_t covered(uint32_t i) { return kFirstBytes << i; }

    uint32_t bytes = 0;        // of the whole body; 0: there are no keys
    uint32_t key[kMost] = {};  // of the first covered(i) bytes; set where the body has so many, then not 0

    uint32_t count() const {
        uint32_t n = 0;
        while (n < kMost && bytes >= covered(n)) {
            ++n;
        }
        return n;
    }
};

// Makes the keys of a body that comes in pieces. Equal beginnings have equal keys, wherever the pieces begin;
// of different ones, unless somebody contrives it, one pair in 2^32 has. A wrong key costs speed, nothing
// else.
class PrefixHash {
  public:
    void feed(std::string_view piece);
    PrefixKeys keys() const;  // of what was fed so far

  private:
    static constexpr size_t kBlock = 16;

    void take_block(const char* bytes);

    uint64_t state_ = 0x2d358dccaa6c78a5u;
    uint64_t bytes_ = 0;
    PrefixKeys keys_;
    char begun_[kBlock] = {};  // bytes_ % kBlock of a block, while there are keys to make
};

}  // namespace llm::core
