// KV memory in blocks of 16 slots, with a prefix cache that costs nothing while memory is short.
//
// A block is free (holds nothing of use), live (one or more sequences use it) or cached (nobody uses it, but
// its tokens are known, so that a later prompt that starts the same way can take it over). free + cached +
// live = all, always. Cached blocks are the reserve of the free ones: they are reused, least recently used
// first, when the free ones run out. (The data structure is nano-vllm's: a freed block keeps its hash until
// somebody overwrites it.)
//
// Blocks are found by a chain of hashes, h(i) = H(h(i-1), tokens of block i), that starts from the salt: two
// clients with different salts never share a block, so nobody learns from timing what others asked. The hash
// is keyed per process, and the token ids are compared again before a block is shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace llm::engine {

class BlockManager {
  public:
    static constexpr int32_t kBlockSize = 16;  // slots; slot = block * kBlockSize + offset

    // `key` makes hashes unguessable; any value is correct.
    BlockManager(int32_t n_blocks, uint64_t key);

    // The start of the chain for a salt; an empty salt is the one that everybody without a salt shares.
    uint64_t root(std::string_view salt) const;

    // The longest run of known blocks that `tokens` starts with, at most `limit` tokens long. Takes a
    // reference on each block, appends them to `blocks` and moves `chain` (in: root) to the hash of the last.
    // O(blocks found).
    void match(std::span<const int32_t> tokens, int32_t limit, std::vector<int32_t>& blocks, uint64_t& chain);

    // A block with one reference, or -1 when every block is live. O(1).
    int32_t allocate();

    // Drops one reference. The last one turns the block cached, if it was published, or free. O(1).
    // Release a sequence's blocks last to first: then the end of a prefix is forgotten before its start.
    void release(int32_t block);

    // Makes a full block findable and returns the chain's next hash. Only after the step that wrote it
    // completed.
    uint64_t publish(int32_t block, uint64_t chain, std::span<const int32_t> tokens);

    int32_t n_blocks() const { return static_cast<int32_t>(blocks_.size()); }
    int32_t n_free() const { return static_cast<int32_t>(free_.size()); }
    int32_t n_cached() const { return n_cached_; }
    int32_t n_live() const { return n_blocks() - n_free() - n_cached_; }
    int32_t n_available() const { return n_free() + n_cached_; }

    // Recounts everything. Empty, or the first contradiction found. O(all blocks): for tests and idle
    // moments.
    std::string check() const;

  private:
    struct Block {
        int32_t refs = 0;
        int32_t prev = -1, next = -1;  // neighbours in the list of cached blocks
        uint64_t parent = 0;           // hash of the chain before this block
        uint64_t hash = 0;
        bool published = false;
        int32_t tokens[kBlockSize] = {};
    };

    uint64_t hash(uint64_t chain, std::span<const int32_t> tokens) const;
    void forget(Block& block);
    void unlink(int32_t index);
    void link_youngest(int32_t index);

    uint64_t key_;
    std::vector<Block> blocks_;
    std::vector<int32_t> free_;
    std::unordered_map<uint64_t, int32_t> by_hash_;
    int32_t oldest_ = -1, youngest_ = -1;  // of the cached blocks
    int32_t n_cached_ = 0;
};

}  // namespace llm::engine
