#include "engine_worker/scheduler/block_manager.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <random>

namespace llm::engine {
namespace {

constexpr int32_t kBlock = BlockManager::kBlockSize;

std::vector<int32_t> tokens_from(int32_t first, int32_t n) {
    std::vector<int32_t> out(n);
    std::iota(out.begin(), out.end(), first);
    return out;
}

// Computes a whole sequence: takes what is cached, allocates and publishes the rest.
std::vector<int32_t> compute(BlockManager& blocks, const std::vector<int32_t>& tokens,
                             std::string_view salt = "") {
    std::vector<int32_t> held;
    uint64_t chain = blocks.root(salt);
    blocks.match(tokens, static_cast<int32_t>(tokens.size()), held, chain);
    for (size_t i = held.size(); (i + 1) * kBlock <= tokens.size(); ++i) {
        held.push_back(blocks.allocate());
        chain = blocks.publish(held.back(), chain, std::span(tokens).subspan(i * kBlock, kBlock));
    }
    return held;
}

void release_all(BlockManager& blocks, const std::vector<int32_t>& held) {
    for (auto b = held.rbegin(); b != held.rend(); ++b) {
        blocks.release(*b);
    }
}

int32_t matched(BlockManager& blocks, const std::vector<int32_t>& tokens, std::string_view salt = "") {
    std::vector<int32_t> held;
    uint64_t chain = blocks.root(salt);
    blocks.match(tokens, static_cast<int32_t>(tokens.size()), held, chain);
    release_all(blocks, held);
    return static_cast<int32_t>(held.size());
}

TEST(BlockManager, AllocatesEveryBlockOnceAndThenNone) {
    BlockManager blocks(3, 1);
    std::vector<int32_t> got = {blocks.allocate(), blocks.allocate(), blocks.allocate()};
    std::sort(got.begin(), got.end());
    EXPECT_EQ(got, (std::vector<int32_t>{0, 1, 2}));
    EXPECT_EQ(blocks.allocate(), -1);
    EXPECT_EQ(blocks.n_live(), 3);
    release_all(blocks, got);
    EXPECT_EQ(blocks.n_free(), 3);
    EXPECT_EQ(blocks.check(), "");
}

TEST(BlockManager, FindsAReleasedPrefixAgain) {
    BlockManager blocks(8, 1);
    const auto tokens = tokens_from(100, 3 * kBlock);
    const auto held = compute(blocks, tokens);
    release_all(blocks, held);
    EXPECT_EQ(blocks.n_cached(), 3);

    std::vector<int32_t> again;
    uint64_t chain = blocks.root("");
    blocks.match(tokens, static_cast<int32_t>(tokens.size()), again, chain);
    EXPECT_EQ(again, held);
    EXPECT_EQ(blocks.n_cached(), 0);
    EXPECT_EQ(blocks.n_live(), 3);
    release_all(blocks, again);
    EXPECT_EQ(blocks.check(), "");
}

TEST(BlockManager, MatchesOnlyWholeBlocksUpToTheLimitAndTheFirstDifference) {
    BlockManager blocks(8, 1);
    auto tokens = tokens_from(0, 3 * kBlock);
    release_all(blocks, compute(blocks, tokens));
    std::vector<int32_t> held;
    uint64_t chain = blocks.root("");
    blocks.match(tokens, 3 * kBlock - 1, held, chain);
    EXPECT_EQ(held.size(), 2u);
    release_all(blocks, held);
    tokens[kBlock] = 9999;  // in the second block
    EXPECT_EQ(matched(blocks, tokens), 1);
    // The same tokens at another place of the chain are another block.
    const auto second = tokens_from(kBlock, kBlock);
    EXPECT_EQ(matched(blocks, second), 0);
}

TEST(BlockManager, SaltsShareNothing) {
    BlockManager blocks(8, 1);
    const auto tokens = tokens_from(0, 2 * kBlock);
    release_all(blocks, compute(blocks, tokens, "alice"));
    EXPECT_EQ(matched(blocks, tokens, "alice"), 2);
    EXPECT_EQ(matched(blocks, tokens, "bob"), 0);
    EXPECT_EQ(matched(blocks, tokens, ""), 0);
}

TEST(BlockManager, ReusesTheLeastRecentlyUsedAndTheEndsOfPrefixesFirst) {
    BlockManager blocks(4, 1);
    const auto old = tokens_from(0, 2 * kBlock);
    const auto recent = tokens_from(1000, 2 * kBlock);
    release_all(blocks, compute(blocks, old));
    release_all(blocks, compute(blocks, recent));
    EXPECT_EQ(blocks.n_cached(), 4);
    const int32_t taken = blocks.allocate();
    EXPECT_EQ(matched(blocks, old), 1);  // its second block went
    EXPECT_EQ(matched(blocks, recent), 2);
    blocks.release(taken);
    EXPECT_EQ(blocks.check(), "");
}

TEST(BlockManager, SharedBlocksStayUntilTheLastUserLeaves) {
    BlockManager blocks(4, 1);
    const auto tokens = tokens_from(0, 2 * kBlock);
    const auto first = compute(blocks, tokens);
    const auto second = compute(blocks, tokens);
    EXPECT_EQ(first, second);
    release_all(blocks, first);
    EXPECT_EQ(blocks.n_live(), 2);
    release_all(blocks, second);
    EXPECT_EQ(blocks.n_cached(), 2);
    EXPECT_EQ(blocks.check(), "");
}

// Against a naive model: random sequences over few tokens, so that prefixes are shared often.
TEST(BlockManager, KeepsItsInvariantsUnderRandomUse) {
    std::mt19937 random(7);
    BlockManager blocks(24, 42);
    std::vector<std::vector<int32_t>> live;
    for (int round = 0; round < 4000; ++round) {
        if (live.size() < 6 && random() % 2 == 0) {
            std::vector<int32_t> tokens;
            for (uint32_t b = 0, n = random() % 5; b < n; ++b) {
                tokens.insert(tokens.end(), kBlock, static_cast<int32_t>(random() % 2));
            }
            if (static_cast<int32_t>(tokens.size()) / kBlock <= blocks.n_available()) {
                live.push_back(compute(blocks, tokens, random() % 2 == 0 ? "a" : "b"));
                EXPECT_EQ(live.back().size(), tokens.size() / kBlock);
            }
        } else if (!live.empty()) {
            const size_t at = random() % live.size();
            release_all(blocks, live[at]);
            live.erase(live.begin() + static_cast<std::ptrdiff_t>(at));
        }
        ASSERT_EQ(blocks.check(), "") << "round " << round;
        std::vector<int32_t> held;
        for (const auto& one : live) {
            held.insert(held.end(), one.begin(), one.end());
        }
        std::sort(held.begin(), held.end());
        held.erase(std::unique(held.begin(), held.end()), held.end());
        ASSERT_EQ(static_cast<size_t>(blocks.n_live()), held.size());
        ASSERT_EQ(blocks.n_free() + blocks.n_cached() + blocks.n_live(), blocks.n_blocks());
    }
}

}  // namespace
}  // namespace llm::engine
