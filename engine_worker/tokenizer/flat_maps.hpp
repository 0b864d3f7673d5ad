// Two hash tables made for a tokenizer's load: filled once, then only read. Open addressing, at most half
// full.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace llm::engine {

// A fast 64-bit hash of short byte strings (multiply and fold, eight bytes at a time). Not meant to withstand
// chosen keys: the keys are a vocabulary's, and the word cache has one place per hash anyway.
inline uint64_t hash_bytes(std::string_view text) {
    constexpr uint64_t kMultiplier = 0x9E3779B97F4A7C15u;
    uint64_t h = text.size() * kMultiplier;
    const char* at = text.data();
    size_t left = text.size();
    for (; left >= 8; left -= 8, at += 8) {
        uint64_t word;
        std::memcpy(&word, at, 8);
        h = (std::rotl(h, 29) ^ word) * kMultiplier;
    }
    if (left > 0) {
        uint64_t word = 0;
        std::memcpy(&word, at, left);
        h = (std::rotl(h, 29) ^ word) * kMultiplier;
    }
    h ^= h >> 32;
    h *= kMultiplier;
    return h ^ h >> 29;
}

// String to token id. The strings are not copied: they must outlive the map.
class StringIdMap {
  public:
    void reserve(size_t count) {
        slots_.assign(std::bit_ceil(count * 2 + 2), Slot{});
        used_ = 0;
    }
    // Inserts or overwrites.
    void put(std::string_view key, int32_t id) {
        if ((used_ + 1) * 2 > slots_.size())
            grow();
        Slot& slot = slots_[place(key)];
        if (slot.id < 0) {
            slot.text = key;
            ++used_;
        }
        slot.id = id;
    }
    // -1 when absent.
    int32_t find(std::string_view key) const { return slots_.empty() ? -1 : slots_[place(key)].id; }
    size_t size() const { return used_; }

  private:
    struct Slot {
        std::string_view text;
        int32_t id = -1;
    };
    size_t place(std::string_view key) const {
        const size_t mask = slots_.size() - 1;
        size_t at = hash_bytes(key) & mask;
        while (slots_[at].id >= 0 && slots_[at].text != key)
            at = (at + 1) & mask;
        return at;
    }
    void grow() {
        std::vector<Slot> old = std::move(slots_);
        reserve(old.size());
        for (const Slot& slot : old)
            if (slot.id >= 0)
                put(slot.text, slot.id);
    }
    std::vector<Slot> slots_;
    size_t used_ = 0;
};

// What two adjacent tokens merge into.
struct Merge {
    uint32_t rank = UINT32_MAX;  // lower merges first; UINT32_MAX = no such merge
    int32_t id = -1;
};

// (left id, right id) to Merge.
class MergeMap {
  public:
    void reserve(size_t count) { slots_.assign(std::bit_ceil(count * 2 + 2), Slot{}); }
    // Inserts or overwrites; call reserve() with the number of puts first.
    void put(int32_t left, int32_t right, Merge merge) {
        Slot& slot = slots_[place(key(left, right))];
        slot.key = key(left, right);
        slot.merge = merge;
    }
    Merge find(int32_t left, int32_t right) const { return slots_[place(key(left, right))].merge; }

  private:
    static constexpr uint64_t kFree = UINT64_MAX;  // ids are not negative: no key is all ones
    struct Slot {
        uint64_t key = kFree;
        Merge merge;
    };
    static uint64_t key(int32_t left, int32_t right) {
        return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
    }
    size_t place(uint64_t wanted) const {
        const size_t mask = slots_.size() - 1;
        size_t at = (wanted * 0x9E3779B97F4A7C15u >> 24) & mask;
        while (slots_[at].key != wanted && slots_[at].key != kFree)
            at = (at + 1) & mask;
        return at;
    }
    std::vector<Slot> slots_ = std::vector<Slot>(2);
};

}  // namespace llm::engine
