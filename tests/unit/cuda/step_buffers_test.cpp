// Step metadata: fixed places, padding of graph batches, changes of the slot table, parameters of sampling.
#include "engine_worker/backend/cuda/step_buffers.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine_worker/backend/cpu/philox.hpp"

namespace llm::engine::cuda {
namespace {

StepLimits limits() {
    StepLimits l;
    l.max_tokens = 64;
    l.max_sequences = 4;
    l.max_context = 100;
    l.max_tiles = 9;
    l.vocab = 1000;
    return l;
}

class Buffers : public ::testing::Test {
  protected:
    Buffers() : host_(StepLayout(limits()).total), buffers_(limits(), host_.data(), kDevice, 777) {}

    // Steps of one token per sequence.
    Step step(const std::vector<int>& contexts) {
        const auto n = static_cast<int32_t>(contexts.size());
        tok_.clear(), pos_.clear(), slot_.clear(), rows_.clear();
        for (int32_t i = 0; i < n; i++) {
            tok_.push_back(100 + i);
            pos_.push_back(contexts[static_cast<size_t>(i)] - 1);
            slot_.push_back(200 + i);
            rows_.push_back(i);
        }
        ctx_.assign(contexts.begin(), contexts.end());
        Step s;
        s.n_tok = s.n_seq = s.n_decode = s.n_logit = n;
        s.tok = tok_.data();
        s.pos = pos_.data();
        s.slot = slot_.data();
        s.logit_row = rows_.data();
        s.ctx_len = ctx_.data();
        s.table = table_.data();
        s.table_ld = 100;
        return s;
    }

    // Applies what next_table_ranges() wrote to a copy of the device's table.
    int apply(const Step& s) {
        const int n = buffers_.next_table_ranges(s, 1000);
        const auto* ranges = buffers_.host<TableRange>(buffers_.layout().ranges);
        const int* values = buffers_.host<int>(buffers_.layout().values);
        for (int r = 0; r < n; r++) {
            for (int i = 0; i < ranges[r].count; i++) {
                device_table_[static_cast<size_t>(ranges[r].target + i)] = values[ranges[r].source + i];
                changed_++;
            }
        }
        return n;
    }

    static inline std::byte* const kDevice = reinterpret_cast<std::byte*>(uintptr_t{1} << 40);
    std::vector<std::byte> host_;
    StepBuffers buffers_;
    std::vector<int32_t> tok_, pos_, slot_, rows_, ctx_;
    std::vector<int32_t> table_ = std::vector<int32_t>(400, 0);
    std::vector<int32_t> device_table_ = std::vector<int32_t>(400, 0);
    int changed_ = 0;
};

TEST_F(Buffers, PartsDoNotOverlapAndAreAligned) {
    const StepLayout layout(limits());
    const size_t starts[] = {layout.tokens, layout.positions, layout.slots, layout.logit_rows, layout.tiles,
                             layout.head_end, layout.sample_rows, layout.extra, layout.ranges, layout.values,
                             layout.total};
    EXPECT_TRUE(std::is_sorted(std::begin(starts), std::end(starts)));
    for (const size_t start : starts) {
        EXPECT_EQ(start % 64, 0u);
    }
    EXPECT_GE(layout.positions - layout.tokens, 64 * sizeof(int));
    EXPECT_GE(layout.head_end - layout.tiles, 9 * sizeof(PrefillTile));
    EXPECT_GE(layout.extra - layout.sample_rows, 64 * sizeof(SampleRow));
    EXPECT_GE(layout.ranges - layout.extra, 1000 * sizeof(SampleEdit) + 125);
}

TEST_F(Buffers, PaddingWritesToTheSpareSlot) {
    buffers_.fill(step({5, 6, 7}), 8, {});
    const StepLayout& layout = buffers_.layout();
    const auto ints = [&](size_t at) {
        const int* from = buffers_.host<int>(at);
        return std::vector<int>(from, from + 8);
    };
    EXPECT_EQ(ints(layout.tokens), (std::vector<int>{100, 101, 102, 0, 0, 0, 0, 0}));
    EXPECT_EQ(ints(layout.positions), (std::vector<int>{4, 5, 6, 0, 0, 0, 0, 0}));
    EXPECT_EQ(ints(layout.slots), (std::vector<int>{200, 201, 202, 777, 777, 777, 777, 777}));
    EXPECT_EQ(ints(layout.logit_rows), (std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7}));
}

TEST_F(Buffers, OnlyWhatChangedOfTheTableIsSent) {
    for (size_t i = 0; i < table_.size(); i++) {
        table_[i] = static_cast<int32_t>(i % 900 + 1);
    }
    Step s = step({50, 60});
    buffers_.fill(s, 2, {});
    EXPECT_EQ(apply(s), 2);
    EXPECT_EQ(changed_, 110);
    EXPECT_TRUE(std::equal(table_.begin(), table_.begin() + 50, device_table_.begin()));
    EXPECT_TRUE(std::equal(table_.begin() + 100, table_.begin() + 160, device_table_.begin() + 100));

    s = step({51, 61});  // each grew by one
    buffers_.fill(s, 2, {});
    changed_ = 0;
    EXPECT_EQ(apply(s), 2);
    EXPECT_EQ(changed_, 2);
    buffers_.fill(s, 2, {});
    EXPECT_EQ(apply(s), 0);

    std::swap_ranges(table_.begin(), table_.begin() + 100, table_.begin() + 100);  // another sequence took the row
    s = step({61, 51, 3});
    buffers_.fill(s, 3, {});
    apply(s);
    EXPECT_TRUE(buffers_.table_complete(s));
    for (const auto& [row, length] : {std::pair{0, 61}, {1, 51}, {2, 3}}) {
        EXPECT_TRUE(std::equal(table_.begin() + row * 100, table_.begin() + row * 100 + length,
                               device_table_.begin() + row * 100));
    }
}

TEST_F(Buffers, ASlotOutsideTheCacheIsRefused) {
    table_[3] = 1000;
    const Step s = step({5});
    buffers_.fill(s, 1, {});
    EXPECT_THROW(buffers_.next_table_ranges(s, 1000), std::invalid_argument);
    table_[3] = -1;
    buffers_.fill(s, 1, {});
    EXPECT_THROW(buffers_.next_table_ranges(s, 1000), std::invalid_argument);
}

TEST(StepBuffers, LargeChangesOfTheTableGoInRounds) {
    StepLimits l = limits();
    l.max_context = 200000;
    const StepLayout layout(l);
    std::vector<std::byte> host(layout.total);
    StepBuffers buffers(l, host.data(), nullptr, 0);
    std::vector<int32_t> table(4 * 200000, 7), ctx(4, 200000), q{0, 1, 2, 3, 4};
    Step s;
    s.n_seq = 4;
    s.ctx_len = ctx.data();
    s.table = table.data();
    s.table_ld = 200000;
    buffers.fill(s, 0, {});
    int ranges = 0;
    int rounds = 0;
    while (const int n = buffers.next_table_ranges(s, 10)) {
        ranges += n;
        rounds++;
        EXPECT_LE(buffers.values_used(), static_cast<size_t>(layout.max_values) * sizeof(int));
    }
    EXPECT_EQ(ranges, 4);
    EXPECT_EQ(rounds, 4);
}

TEST_F(Buffers, EditsNameEachTokenOnce) {
    const std::vector<int32_t> tokens = {5, 6, 5, 7, 7, 7, 2000};
    const std::vector<std::pair<int32_t, float>> bias = {{7, 1.0f}, {9, 2.0f}, {7, 0.5f}};
    SampleParams p;
    p.temperature = 0.5f;
    p.seed = 42;
    p.position = 3;
    p.tokens = tokens.data();
    p.n_prompt = 2;
    p.n_tokens = 7;
    p.repetition_penalty = 1.5f;
    p.frequency_penalty = 0.25f;
    p.logit_bias = bias.data();
    p.n_logit_bias = 3;
    const std::vector<uint32_t> mask(32, 0xf0f0f0f0u);
    SampleParams q;
    q.mask = mask.data();
    const std::vector<SampleParams> both = {p, q};
    Step s = step({3, 4});
    s.sampling = both.data();
    EXPECT_EQ(buffers_.fill_sampling(s, 0), 2);
    buffers_.pad_sampling(2, 4);
    const auto* rows = buffers_.host<SampleRow>(buffers_.layout().sample_rows);
    EXPECT_EQ(rows[0].uniform, uniform_draw(42, 3));
    EXPECT_EQ(rows[0].active, 1);
    EXPECT_EQ(rows[2].active, 0);
    EXPECT_EQ(rows[0].mask, nullptr);
    ASSERT_EQ(rows[0].n_edits, 4);
    // device addresses of what lies at the same place on the host
    const auto* edits = reinterpret_cast<const SampleEdit*>(
        host_.data() + (reinterpret_cast<const std::byte*>(rows[0].edits) - kDevice));
    const auto expect = [&](int i, int token, float b, int seen, int count) {
        EXPECT_EQ(edits[i].token, token);
        EXPECT_EQ(edits[i].bias, b);
        EXPECT_EQ(edits[i].seen, seen);
        EXPECT_EQ(edits[i].count, count);
    };
    expect(0, 7, 1.5f, 1, 3);
    expect(1, 9, 2.0f, 0, 0);
    expect(2, 5, 0.0f, 1, 1);
    expect(3, 6, 0.0f, 1, 0);
    EXPECT_EQ(rows[1].n_edits, 0);
    const auto* copied = reinterpret_cast<const uint32_t*>(
        host_.data() + (reinterpret_cast<const std::byte*>(rows[1].mask) - kDevice));
    EXPECT_TRUE(std::equal(mask.begin(), mask.end(), copied));
    EXPECT_GT(buffers_.extra_used(), 0u);
}

TEST_F(Buffers, SamplingThatDoesNotFitGoesInRounds) {
    const size_t room = buffers_.layout().extra_bytes;
    std::vector<int32_t> tokens(1000);
    for (int32_t i = 0; i < 1000; i++) {
        tokens[static_cast<size_t>(i)] = i;
    }
    SampleParams p;
    p.tokens = tokens.data();
    p.n_tokens = 1000;
    p.repetition_penalty = 2;
    const size_t per_row = (1000 * sizeof(SampleEdit) + 63) / 64 * 64;
    const auto n = static_cast<int32_t>(room / per_row + 5);
    const std::vector<SampleParams> all(static_cast<size_t>(n), p);
    StepLimits l = limits();
    l.max_tokens = n;
    std::vector<std::byte> host(StepLayout(l).total);
    StepBuffers buffers(l, host.data(), nullptr, 0);
    Step s;
    s.n_logit = n;
    s.sampling = all.data();
    const int first = buffers.fill_sampling(s, 0);
    EXPECT_EQ(first, static_cast<int>(room / per_row));
    EXPECT_LE(buffers.extra_used(), room);
    EXPECT_EQ(buffers.fill_sampling(s, first), n);
}

}  // namespace
}  // namespace llm::engine::cuda
