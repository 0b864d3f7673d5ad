// Which token a row had when it was last read: a notification names a row, the zone knows tokens.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>

#include "shared/token_hash.hpp"

namespace llm::nginx::sources {

// Row number to token hash, in the memory of the leading worker (about 72 bytes a row). Split into shards so
// that no single step rehashes or frees a million entries: O(1) with small constants for up to some million
// rows.
class RowIndex {
  public:
    static constexpr size_t kShards = 1024;

    void set(int64_t row, const TokenHash& token) {
        if (row != 0) {
            shard(row)[row] = token;
        }
    }
    // nullptr when the row is not known; valid until the next change.
    const TokenHash* find(int64_t row) const {
        const auto& map = shards_[slot(row)];
        const auto found = map.find(row);
        return found == map.end() ? nullptr : &found->second;
    }
    void erase(int64_t row) { shard(row).erase(row); }

    void swap(RowIndex& other) { shards_.swap(other.shards_); }

    // Empties some shards, starting at `from`; returns where to go on, kShards when all is empty.
    size_t clear_some(size_t from, size_t shards) {
        for (; from < kShards && shards > 0; ++from, --shards) {
            std::unordered_map<int64_t, TokenHash>().swap(shards_[from]);
        }
        return from;
    }
    void clear() { clear_some(0, kShards); }

  private:
    static size_t slot(int64_t row) {
        return static_cast<size_t>(static_cast<uint64_t>(row) * 0x9e3779b97f4a7c15u >>
                                   54);  // Fibonacci hashing
    }
    std::unordered_map<int64_t, TokenHash>& shard(int64_t row) { return shards_[slot(row)]; }

    std::array<std::unordered_map<int64_t, TokenHash>, kShards> shards_;
};

}  // namespace llm::nginx::sources
