// Which token a row had when it was last read: a notification names a row, the zone knows tokens.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "shared/token_hash.hpp"

namespace llm::nginx::sources {

// Row number to token hash, in the memory of the leading worker (60 to 160 bytes a row). A hash table with
// linear probing, split into shards so that no single step copies or frees a million entries; few large
// blocks rather than one per row, because freeing a million small ones makes malloc tidy up for a tenth of a
// second at a time.
class RowIndex {
  public:
    static constexpr size_t kShards = 1024;

    // Row 0 means "no id" and is not kept.
    void set(int64_t row, const TokenHash& token) {
        if (row != 0) {
            shard(row).set(row, token);
        }
    }
    // nullptr when the row is not known; valid until the next change.
    const TokenHash* find(int64_t row) const { return shards_[slot(row)].find(row); }
    void erase(int64_t row) { shard(row).erase(row); }

    void swap(RowIndex& other) { shards_.swap(other.shards_); }

    // Empties some shards, starting at `from`; returns where to go on, kShards when all is empty.
    size_t clear_some(size_t from, size_t shards) {
        for (; from < kShards && shards > 0; ++from, --shards) {
            shards_[from] = Shard();
        }
        return from;
    }
    void clear() { clear_some(0, kShards); }

  private:
    struct Entry {
        int64_t row = 0;  // 0 = unused
        TokenHash token;
    };

    static uint64_t mix(int64_t row) {
        return static_cast<uint64_t>(row) * 0x9e3779b97f4a7c15u;  // Fibonacci hashing
    }
    static size_t slot(int64_t row) { return static_cast<size_t>(mix(row) >> 54); }

    class Shard {
      public:
        const TokenHash* find(int64_t row) const {
            if (entries_.empty() || row == 0) {
                return nullptr;
            }
            const Entry& entry = entries_[place(row)];
            return entry.row == row ? &entry.token : nullptr;
        }
        void set(int64_t row, const TokenHash& token) {
            if ((used_ + 1) * 4 > entries_.size() * 3) {
                grow();
            }
            Entry& entry = entries_[place(row)];
            used_ += entry.row == 0 ? 1 : 0;
            entry = {.row = row, .token = token};
        }
        void erase(int64_t row) {
            if (find(row) == nullptr) {
                return;
            }
            // Entries behind the gap that could not stand at their own place move up (Knuth 6.4, algorithm
            // R).
            const size_t mask = entries_.size() - 1;
            size_t gap = place(row);
            for (size_t next = (gap + 1) & mask; entries_[next].row != 0; next = (next + 1) & mask) {
                const size_t home = first(entries_[next].row);
                if (((next - home) & mask) >= ((next - gap) & mask)) {
                    entries_[gap] = entries_[next];
                    gap = next;
                }
            }
            entries_[gap].row = 0;
            --used_;
        }

      private:
        size_t first(int64_t row) const {
            return static_cast<size_t>(mix(row) >> 22) & (entries_.size() - 1);
        }
        // Where the row is, or where it would go.
        size_t place(int64_t row) const {
            size_t at = first(row);
            while (entries_[at].row != 0 && entries_[at].row != row) {
                at = (at + 1) & (entries_.size() - 1);
            }
            return at;
        }
        void grow() {
            std::vector<Entry> old(entries_.empty() ? 4 : entries_.size() * 2);
            old.swap(entries_);
            for (const Entry& entry : old) {
                if (entry.row != 0) {
                    entries_[place(entry.row)] = entry;
                }
            }
        }

        std::vector<Entry> entries_;  // a power of two, or none
        size_t used_ = 0;
    };

    Shard& shard(int64_t row) { return shards_[slot(row)]; }

    std::array<Shard, kShards> shards_;
};

}  // namespace llm::nginx::sources
