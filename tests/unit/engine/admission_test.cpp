#include "engine_worker/scheduler/admission.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace llm::engine {
namespace {

// The definition, step by step: everybody grows by one and leaves when done.
int64_t peak_by_simulation(const std::vector<Footprint>& all) {
    int64_t horizon = 0;
    for (const Footprint& one : all) {
        horizon = std::max(horizon, one.left);
    }
    int64_t peak = 0;
    for (int64_t t = 0; t <= horizon; ++t) {
        int64_t held = 0;
        for (const Footprint& one : all) {
            held += one.left >= t ? one.used + t : 0;
        }
        peak = std::max(peak, held);
    }
    return peak;
}

TEST(PeakSlots, IsZeroForNobodyAndTheSumForOne) {
    std::vector<Footprint> nobody;
    EXPECT_EQ(peak_slots(nobody), 0);
    std::vector<Footprint> one = {{10, 5}};
    EXPECT_EQ(peak_slots(one), 15);
}

TEST(PeakSlots, AgreesWithASimulation) {
    std::mt19937 random(3);
    for (int round = 0; round < 500; ++round) {
        std::vector<Footprint> all(random() % 12 + 1);
        for (Footprint& one : all) {
            one = {static_cast<int64_t>(random() % 50), static_cast<int64_t>(random() % 40)};
        }
        const int64_t expected = peak_by_simulation(all);
        ASSERT_EQ(peak_slots(all), expected);
    }
}

// Most requests name no limit, and theirs is the context: with that, a handful would fill the memory of a GPU.
TEST(OutputLengths, ExpectsUsualAnswersBeforeEnoughWasSeen) {
    OutputLengths lengths;
    for (int i = 0; i < 15; ++i) {
        lengths.record(10);
    }
    EXPECT_EQ(lengths.remaining(0, 131072), 1024);
    EXPECT_EQ(lengths.remaining(300, 131072), 724);
    EXPECT_EQ(lengths.remaining(3000, 131072), 3000);  // a long one
    EXPECT_EQ(lengths.remaining(0, 1000), 1000);       // never more than allowed
    EXPECT_EQ(lengths.remaining(900, 1000), 100);
    lengths.record(10);
    EXPECT_EQ(lengths.remaining(0, 1000), 64);
}

TEST(OutputLengths, ExpectsThe90thPercentileAndThenMoreAndMore) {
    OutputLengths lengths;
    for (int i = 1; i <= 100; ++i) {
        lengths.record(i * 10);
    }
    EXPECT_EQ(lengths.remaining(0, 5000), 910);
    EXPECT_EQ(lengths.remaining(800, 5000), 110);
    EXPECT_EQ(lengths.remaining(2000, 5000), 64);  // longer than expected: a bit more
    EXPECT_EQ(lengths.remaining(0, 100), 100);     // never more than allowed
    EXPECT_EQ(lengths.remaining(4990, 5000), 10);
}

}  // namespace
}  // namespace llm::engine
