// What the CUDA backend decides before a GPU is asked: memory, capabilities, buckets, splits, tiles, stored algorithms.
#include "engine_worker/backend/cuda/plan.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "engine_worker/backend/cuda/algorithm_cache.hpp"
#include "tests/support/model_builder.hpp"

namespace llm::engine::cuda {
namespace {

constexpr size_t kGiB = size_t{1} << 30;

TEST(Plan, CapabilitiesRunOnLaterMinorsAndByPtx) {
    const std::string built = "8.0, 8.9, 9.0";
    EXPECT_TRUE(capability_is_built(built, 8, 0));
    EXPECT_TRUE(capability_is_built(built, 8, 6));
    EXPECT_TRUE(capability_is_built(built, 8, 9));
    EXPECT_TRUE(capability_is_built(built, 9, 0));
    EXPECT_TRUE(capability_is_built(built, 12, 0));  // PTX of 9.0
    EXPECT_FALSE(capability_is_built(built, 7, 5));
    EXPECT_FALSE(capability_is_built("9.0", 8, 9));
    EXPECT_FALSE(capability_is_built("", 9, 0));
    EXPECT_FALSE(capability_is_built("nonsense", 9, 0));
}

MemoryRequest request() {
    MemoryRequest r;
    r.total = 80 * kGiB;
    r.free = 79 * kGiB;
    r.fraction = 0.9;
    r.weights = 15 * kGiB;
    r.workspace = 2 * kGiB;
    r.per_token = 128 << 10;
    r.max_kv_tokens = int64_t{1} << 27;
    r.min_kv_tokens = 1024;
    return r;
}

TEST(Plan, KvGetsWhatIsLeft) {
    // 72 GiB may be used, 1 is by others, 17 by weights and work space: 54 GiB of 128 KiB each
    EXPECT_EQ(plan_kv_tokens(request()), 54 * 8192);
    MemoryRequest r = request();
    r.max_kv_tokens = 5000;
    EXPECT_EQ(plan_kv_tokens(r), 5000);
    r.kv_tokens = 7777;
    EXPECT_EQ(plan_kv_tokens(r), 7777);
}

TEST(Plan, WhatDoesNotFitIsRefusedWithNeededAndAvailable) {
    MemoryRequest r = request();
    r.weights = 100 * kGiB;
    try {
        plan_kv_tokens(r);
        FAIL();
    } catch (const std::runtime_error& error) {
        const std::string text = error.what();
        EXPECT_NE(text.find("102.1 GiB"), std::string::npos) << text;
        EXPECT_NE(text.find("71.0 GiB"), std::string::npos) << text;
        EXPECT_EQ(text.find('\n'), std::string::npos);
    }
    r = request();
    r.kv_tokens = 54 * 8192 + 1;
    EXPECT_THROW(plan_kv_tokens(r), std::runtime_error);
    r = request();
    r.free = 5 * kGiB;  // others have the rest
    EXPECT_THROW(plan_kv_tokens(r), std::runtime_error);
    r = request();
    r.fraction = 0.1;
    EXPECT_THROW(plan_kv_tokens(r), std::runtime_error);
}

TEST(Plan, MemoryText) {
    EXPECT_EQ(memory_text(kGiB * 3 / 2), "1.5 GiB");
    EXPECT_EQ(memory_text(kGiB / 2), "512.0 MiB");
}

TEST(Plan, BucketsHoldEverySize) {
    for (const int most : {1, 2, 3, 7, 64, 100, 256, 300, 1024}) {
        const std::vector<int> buckets = decode_buckets(most);
        EXPECT_EQ(buckets.back(), most);
        EXPECT_TRUE(std::is_sorted(buckets.begin(), buckets.end()));
        EXPECT_EQ(std::adjacent_find(buckets.begin(), buckets.end()), buckets.end());
        for (int n = 1; n <= most; n++) {
            const int bucket = bucket_for(buckets, n);
            EXPECT_GE(bucket, n);
            EXPECT_LE(bucket, std::max(n + 63, 1));
            EXPECT_TRUE(n > 64 || bucket < n + 8);
        }
        EXPECT_EQ(bucket_for(buckets, most + 1), 0);
    }
    EXPECT_EQ(decode_buckets(32), (std::vector<int>{1, 2, 4, 8, 16, 24, 32}));
}

TEST(Plan, SplitsFillTheMachineButNotWithCrumbs) {
    EXPECT_EQ(plan_splits(1, 32, 8, 10000, 132), 32);
    EXPECT_EQ(plan_splits(1, 32, 8, 300, 132), 4);   // no part below 64 positions
    EXPECT_EQ(plan_splits(1, 32, 8, 1, 132), 1);
    EXPECT_EQ(plan_splits(256, 32, 8, 100000, 132), 1);
    EXPECT_EQ(plan_splits(8, 32, 8, 100000, 132), 4);
    EXPECT_EQ(plan_splits(24, 32, 8, 100000, 132), 2);
    EXPECT_EQ(plan_splits(32, 32, 8, 100000, 132), 1);  // 256 blocks; 512 would not all run at once
    EXPECT_EQ(plan_prefill_splits(1, 8, 100000, 132), 32);
    EXPECT_EQ(plan_prefill_splits(4, 8, 100000, 132), 8);
    EXPECT_EQ(plan_prefill_splits(4, 8, 1023, 132), 3);  // no part below 256 positions
    EXPECT_EQ(plan_prefill_splits(4, 8, 255, 132), 1);
    EXPECT_EQ(plan_prefill_splits(17, 8, 100000, 132), 1);  // 272 blocks would not all run at once
    for (int tiles = 1; tiles < 200; tiles++) {
        const int splits = plan_prefill_splits(tiles, 2, 1 << 30, 132);
        EXPECT_TRUE(splits == 1 || tiles * 2 * splits <= prefill_parts(132));
    }
    for (int n = 1; n < 300; n++) {
        const int splits = plan_splits(n, 14, 2, 1 << 30, 132);
        EXPECT_EQ(splits & (splits - 1), 0);
        EXPECT_LE(splits, kMaxSplits);
    }
}

TEST(Plan, FewRowsOfLogitsAreSharedByBlocks) {
    EXPECT_EQ(plan_sample_splits(1, 151936, 132), 10);  // 16 logits per thread
    EXPECT_EQ(plan_sample_splits(13, 151936, 132), 10);
    EXPECT_EQ(plan_sample_splits(14, 151936, 132), 9);  // as many blocks as multiprocessors
    EXPECT_EQ(plan_sample_splits(67, 151936, 132), 1);
    EXPECT_EQ(plan_sample_splits(1, 16384, 132), 1);
    EXPECT_EQ(plan_sample_splits(1, 16385, 132), 2);
    EXPECT_EQ(plan_sample_splits(1, 151936, 4), 4);
    EXPECT_EQ(plan_sample_splits(1, 1 << 30, 132), kMaxSampleSplits);
    for (int rows = 1; rows < 300; rows++) {
        const int splits = plan_sample_splits(rows, 151936, 132);
        EXPECT_TRUE(splits == 1 || rows * splits <= 132) << rows;
    }
}

TEST(Plan, SplitRangesCoverEachPositionOnce) {
    for (const int end : {1, 15, 16, 17, 100, 1000}) {
        for (const int begin : {0, 7}) {
            for (const int splits : {1, 2, 8, 32}) {
                int at = begin;
                for (int s = 0; s < splits && begin < end; s++) {
                    int low = 0, high = 0;
                    split_range(begin, end, s, splits, low, high);
                    EXPECT_LE(low, high);
                    if (low < high) {
                        EXPECT_EQ(low, at);
                        at = high;
                    }
                }
                EXPECT_EQ(at, std::max(begin, end));
            }
        }
    }
}

TEST(Plan, PrefillTilesCoverEachRowOnceLongestFirst) {
    const std::vector<int32_t> q_start = {0, 1, 2, 40, 41, 200};
    std::vector<int32_t> pos(200);
    for (int s = 0; s < 5; s++) {
        for (int t = q_start[s]; t < q_start[s + 1]; t++) {
            pos[t] = 500 * (s % 2) + t - q_start[s];
        }
    }
    Step step;
    step.n_seq = 5;
    step.n_decode = 2;
    step.n_tok = 200;
    step.q_start = q_start.data();
    step.pos = pos.data();
    for (const auto& [heads, kv] : {std::pair{8, 8}, {28, 4}, {32, 8}}) {
        const int group = heads / kv;
        std::vector<PrefillTile> tiles;
        plan_prefill(step, heads, kv, tiles);
        EXPECT_LE(tiles.size(), max_prefill_tiles(200, 5, heads, kv));
        std::vector<int> seen(200 * static_cast<size_t>(group), 0);
        int before = 1 << 30;
        for (const PrefillTile& tile : tiles) {
            EXPECT_EQ(tile.first_token, q_start[tile.sequence]);
            for (int r = 0; r < tile.rows; r++) {
                seen[tile.first_token * group + tile.first_row + r]++;
            }
            const int last = pos[tile.first_token + (tile.first_row + tile.rows - 1) / group];
            EXPECT_LE(last, before);
            before = last;
        }
        for (size_t i = 0; i < seen.size(); i++) {
            EXPECT_EQ(seen[i], i >= 2 * static_cast<size_t>(group) ? 1 : 0) << i;
        }
    }
}

TEST(Plan, StepsThatBreakTheLimitsAreRefused) {
    BackendInfo info;
    info.vocab_size = 10;
    info.max_context = 8;
    info.kv_slots = 16;
    info.max_step_tokens = 4;
    info.max_step_seqs = 2;
    std::vector<int32_t> tok{1, 2}, pos{0, 1}, slot{3, 4}, q_start{0, 2}, ctx{2}, table{3, 4}, rows{1};
    Step step;
    step.n_tok = 2;
    step.n_seq = 1;
    step.tok = tok.data();
    step.pos = pos.data();
    step.slot = slot.data();
    step.q_start = q_start.data();
    step.ctx_len = ctx.data();
    step.table = table.data();
    step.table_ld = 2;
    step.n_logit = 1;
    step.logit_row = rows.data();
    check_step(step, info);
    const auto refused = [&](int32_t& field, int32_t value) {
        const int32_t before = std::exchange(field, value);
        EXPECT_THROW(check_step(step, info), std::invalid_argument);
        field = before;
    };
    refused(tok[0], 10);
    refused(tok[0], -1);
    refused(slot[1], 16);
    refused(pos[1], 2);
    refused(ctx[0], 9);
    refused(step.n_tok, 5);
    refused(step.n_seq, 3);
    refused(step.n_decode, 1);
    refused(step.n_logit, 3);
    check_step(step, info);
    tok[0] = -2;
    check_step(step, info, 2);
    EXPECT_THROW(check_step(step, info, 1), std::invalid_argument);
}

TEST(AlgorithmCache, KeepsWhatBelongsToTheSameGpuAndLibrary) {
    const llm::testing::TempDir dir;
    const std::string file = dir.path() + "/deep/er/gemm-algorithms";
    const AlgorithmBytes first{1, 2, 3, 4, 5, 6, 7, ~uint64_t{0}};
    {
        AlgorithmCache cache(file, "GPU A, cuBLASLt 1");
        EXPECT_EQ(cache.size(), 0u);
        cache.put({4096, 1024, 32, 1}, first);
        cache.put({4096, 1024, 64, 1}, {});
        EXPECT_TRUE(cache.save());
    }
    const AlgorithmCache again(file, "GPU A, cuBLASLt 1");
    EXPECT_EQ(again.size(), 2u);
    ASSERT_NE(again.find({4096, 1024, 32, 1}), nullptr);
    EXPECT_EQ(*again.find({4096, 1024, 32, 1}), first);
    EXPECT_EQ(again.find({4096, 1024, 32, 2}), nullptr);
    EXPECT_EQ(AlgorithmCache(file, "GPU B, cuBLASLt 1").size(), 0u);
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path() + "/deep/er"), {}), 1) << "left a temporary";
}

TEST(AlgorithmCache, TellsWhereTheOwnKernelIsFaster) {
    const llm::testing::TempDir dir;
    const std::string file = dir.path() + "/gemm-algorithms";
    AlgorithmCache cache(file, "owner");
    const auto choice = [](const AlgorithmCache& of, int rows, int kind = 1) {
        return of.own_choice({4096, 1024, rows, kind}, 64, 7);
    };
    EXPECT_EQ(choice(cache, 17), 7) << "nothing was timed";
    cache.put({4096, 1024, 24, 1}, own_kernel(2));
    cache.put({4096, 1024, 32, 0}, {1});
    cache.put({4096, 1024, 32, 1}, own_kernel(0));
    cache.put({4096, 1024, 48, 1}, {2});
    cache.put({4096, 1024, 128, 1}, {3});
    ASSERT_TRUE(cache.save());
    const AlgorithmCache again(file, "owner");
    for (const AlgorithmCache* of : {&std::as_const(cache), &again}) {
        EXPECT_EQ(choice(*of, 17), 2);
        EXPECT_EQ(choice(*of, 24), 2);
        EXPECT_EQ(choice(*of, 25), 0) << "32 rows of another kind come first";
        EXPECT_EQ(choice(*of, 33), kLibrary);
        EXPECT_EQ(choice(*of, 48), kLibrary);
        EXPECT_EQ(choice(*of, 49), 7) << "what is timed above 64 was not timed against it";
        EXPECT_EQ(choice(*of, 20, 0), kLibrary);
        EXPECT_EQ(of->own_choice({4096, 2048, 48, 1}, 64, 7), 7) << "another shape";
    }
    AlgorithmBytes strange = own_kernel(0);
    strange[7] = ~uint64_t{0};
    EXPECT_EQ(own_choice(strange), kLibrary);
    strange = own_kernel(3);
    strange[6] = 0;
    EXPECT_EQ(own_choice(strange), kLibrary);
}

TEST(AlgorithmCache, ADamagedFileCountsAsNone) {
    const llm::testing::TempDir dir;
    const std::string file = dir.path() + "/gemm-algorithms";
    AlgorithmCache cache(file, "owner");
    cache.put({1, 2, 3, 0}, {9});
    ASSERT_TRUE(cache.save());
    std::ifstream in(file);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    for (const std::string& bad : {text + "1 2 3\n", text + "x", text.substr(0, text.size() - 4) + " zz\n",
                                   std::string("\0\1\2", 3), std::string()}) {
        std::ofstream(file) << bad;
        EXPECT_EQ(AlgorithmCache(file, "owner").size(), 0u) << bad;
    }
    EXPECT_FALSE(AlgorithmCache("/proc/nowhere/file", "owner").save());
    EXPECT_FALSE(AlgorithmCache("", "owner").save());
}

}  // namespace
}  // namespace llm::engine::cuda
