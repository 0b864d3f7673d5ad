// The ring of the last fifteen minutes.
#include "tests/unit/core/harness.hpp"

namespace llm::core {
namespace {

constexpr int64_t kSecond = 1'000'000;

// What a heartbeat does.
void beat(TestZone& t) {
    if (history_due(t.zone, t.now)) {
        const HistoryTotals totals = history_totals(t.zone);
        ZoneLock lock(t.zone);
        record_history(lock, totals, t.now, t.wall);
    }
}

std::vector<HistorySample> samples(TestZone& t) {
    std::vector<HistorySample> out(kHistorySamples);
    ZoneLock lock(t.zone);
    out.resize(read_history(lock, out.data(), kHistorySamples));
    return out;
}

TEST(History, CountsWhatHappenedBetweenTwoSamples) {
    TestZone t;
    count_outcome(t.zone, kNone, Outcome::rejected_invalid_api_key);
    beat(t);
    EXPECT_TRUE(samples(t).empty());
    count_outcome(t.zone, kNone, Outcome::rejected_model_required);
    count_outcome(t.zone, kNone, Outcome::timeout);
    count_outcome(t.zone, kNone, Outcome::cancelled_queued);
    count_outcome(t.zone, kNone, Outcome::completed);
    t.now += 4 * kSecond;
    beat(t);
    EXPECT_TRUE(samples(t).empty());
    t.now += kSecond + 200'000;
    t.wall += 5;
    beat(t);
    ASSERT_EQ(samples(t).size(), 1u);
    const HistorySample sample = samples(t)[0];
    EXPECT_EQ(sample.wall_s, t.wall);
    EXPECT_EQ(sample.interval_ms, 5200u);
    EXPECT_EQ(sample.rejected, 2u);
    EXPECT_EQ(sample.failed, 1u);
    EXPECT_EQ(sample.cancelled, 1u);
    EXPECT_EQ(sample.completed, 1u);
    t.now += 5 * kSecond;
    beat(t);
    EXPECT_EQ(samples(t)[1].rejected, 0u);
}

TEST(History, OneOfManyWorkersRecords) {
    TestZone t;
    beat(t);
    t.now += 5 * kSecond;
    // two saw that a sample is due; the second one comes too late
    const HistoryTotals totals = history_totals(t.zone);
    for (int worker = 0; worker < 2; ++worker) {
        ZoneLock lock(t.zone);
        record_history(lock, totals, t.now, t.wall);
    }
    EXPECT_EQ(samples(t).size(), 1u);
}

TEST(History, KeepsTheNewestInOrder) {
    TestZone t;
    for (uint32_t i = 0; i < kHistorySamples + 50; ++i) {
        t.now += 5 * kSecond;
        t.wall += 5;
        beat(t);
    }
    const std::vector<HistorySample> kept = samples(t);
    ASSERT_EQ(kept.size(), kHistorySamples);
    EXPECT_EQ(kept.back().wall_s, t.wall);
    for (size_t i = 1; i < kept.size(); ++i) {
        EXPECT_EQ(kept[i].wall_s, kept[i - 1].wall_s + 5);
    }
    HistorySample newest;
    ZoneLock lock(t.zone);
    EXPECT_EQ(read_history(lock, &newest, 1), 1u);
    EXPECT_EQ(newest.wall_s, t.wall);
}

TEST(History, Quantiles) {
    const double bound[] = {1, 2, 4};
    const uint64_t none[] = {0, 0, 0, 0};
    EXPECT_EQ(histogram_quantile(bound, 3, none, .5), 0);
    const uint64_t spread[] = {10, 10, 0, 0};
    EXPECT_DOUBLE_EQ(histogram_quantile(bound, 3, spread, .5), 1);
    EXPECT_DOUBLE_EQ(histogram_quantile(bound, 3, spread, .75), 1.5);
    EXPECT_DOUBLE_EQ(histogram_quantile(bound, 3, spread, 1), 2);
    const uint64_t beyond[] = {0, 0, 0, 3};
    EXPECT_DOUBLE_EQ(histogram_quantile(bound, 3, beyond, .5), 4);
}

}  // namespace
}  // namespace llm::core
