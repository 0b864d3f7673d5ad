#include "engine_worker/scheduler/block_manager.hpp"

#include <algorithm>

namespace llm::engine {
namespace {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): every input bit reaches every output bit.
uint64_t mix(uint64_t x) {
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9ULL;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

}  // namespace

BlockManager::BlockManager(int32_t n_blocks, uint64_t key) : key_(key), blocks_(n_blocks) {
    free_.reserve(n_blocks);
    for (int32_t i = n_blocks - 1; i >= 0; --i) {
        free_.push_back(i);
    }
}

uint64_t BlockManager::root(std::string_view salt) const {
    uint64_t h = mix(key_ + salt.size());
    for (unsigned char c : salt) {
        h = mix(h ^ (key_ + c));
    }
    return h;
}

uint64_t BlockManager::hash(uint64_t chain, std::span<const int32_t> tokens) const {
    uint64_t h = mix(chain ^ key_);
    for (int32_t token : tokens) {
        h = mix(h + 0x9e3779b97f4a7c15ULL + static_cast<uint32_t>(token));
    }
    return h;
}

void BlockManager::match(std::span<const int32_t> tokens, int32_t limit, std::vector<int32_t>& blocks,
                         uint64_t& chain) {
    for (int32_t at = 0; at + kBlockSize <= limit; at += kBlockSize) {
        const auto part = tokens.subspan(at, kBlockSize);
        const uint64_t h = hash(chain, part);
        const auto found = by_hash_.find(h);
        if (found == by_hash_.end()) {
            return;
        }
        Block& block = blocks_[found->second];
        if (block.parent != chain || !std::equal(part.begin(), part.end(), block.tokens)) {
            return;
        }
        if (block.refs++ == 0) {
            unlink(found->second);
        }
        blocks.push_back(found->second);
        chain = h;
    }
}

int32_t BlockManager::allocate() {
    int32_t index = -1;
    if (!free_.empty()) {
        index = free_.back();
        free_.pop_back();
    } else if (oldest_ >= 0) {
        index = oldest_;
        unlink(index);
        forget(blocks_[index]);
    } else {
        return -1;
    }
    blocks_[index].refs = 1;
    return index;
}

void BlockManager::release(int32_t index) {
    Block& block = blocks_[index];
    if (--block.refs > 0) {
        return;
    }
    if (block.published) {
        link_youngest(index);
    } else {
        free_.push_back(index);
    }
}

uint64_t BlockManager::publish(int32_t index, uint64_t chain, std::span<const int32_t> tokens) {
    const uint64_t h = hash(chain, tokens);
    Block& block = blocks_[index];
    // A twin computed the same block at the same time and was first: one findable copy is enough.
    if (!block.published && by_hash_.emplace(h, index).second) {
        block.published = true;
        block.parent = chain;
        block.hash = h;
        std::copy(tokens.begin(), tokens.end(), block.tokens);
    }
    return h;
}

void BlockManager::forget(Block& block) {
    by_hash_.erase(block.hash);
    block.published = false;
}

void BlockManager::unlink(int32_t index) {
    Block& block = blocks_[index];
    (block.prev >= 0 ? blocks_[block.prev].next : oldest_) = block.next;
    (block.next >= 0 ? blocks_[block.next].prev : youngest_) = block.prev;
    block.prev = block.next = -1;
    --n_cached_;
}

void BlockManager::link_youngest(int32_t index) {
    Block& block = blocks_[index];
    block.prev = youngest_;
    block.next = -1;
    (youngest_ >= 0 ? blocks_[youngest_].next : oldest_) = index;
    youngest_ = index;
    ++n_cached_;
}

std::string BlockManager::check() const {
    std::vector<int> seen(blocks_.size(), 0);
    for (int32_t i : free_) {
        if (seen[i]++ != 0) {
            return "block " + std::to_string(i) + " is free twice";
        }
        if (blocks_[i].refs != 0 || blocks_[i].published) {
            return "free block " + std::to_string(i) + " is in use or findable";
        }
    }
    int32_t cached = 0;
    for (int32_t i = oldest_, before = -1; i >= 0; before = i, i = blocks_[i].next) {
        if (seen[i]++ != 0) {
            return "block " + std::to_string(i) + " is in two lists";
        }
        if (blocks_[i].refs != 0 || !blocks_[i].published || blocks_[i].prev != before) {
            return "cached block " + std::to_string(i) + " is in use, unfindable or wrongly linked";
        }
        ++cached;
    }
    if (cached != n_cached_) {
        return "cached blocks are miscounted";
    }
    size_t published = 0;
    for (size_t i = 0; i < blocks_.size(); ++i) {
        if (seen[i] == 0 && blocks_[i].refs <= 0) {
            return "block " + std::to_string(i) + " is lost";
        }
        if (blocks_[i].published) {
            ++published;
            const auto found = by_hash_.find(blocks_[i].hash);
            if (found == by_hash_.end() || found->second != static_cast<int32_t>(i)) {
                return "published block " + std::to_string(i) + " cannot be found";
            }
        }
    }
    return published == by_hash_.size() ? "" : "the index names blocks that are not published";
}

}  // namespace llm::engine
