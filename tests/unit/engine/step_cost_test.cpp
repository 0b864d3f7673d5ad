#include "engine_worker/scheduler/step_cost.hpp"

#include <gtest/gtest.h>

#include <random>

namespace llm::engine {
namespace {

double truth(const StepCost::Load& load) {
    return 4.0 + 0.05 * load.decodes + 0.0004 * static_cast<double>(load.context_tokens) +
           0.03 * load.prefill_tokens;
}

TEST(StepCost, KnowsNothingAtFirst) {
    const StepCost cost;
    EXPECT_EQ(cost.predict({10, 1000, 100}), 0);
    EXPECT_EQ(cost.prefill_room({10, 1000, 0}, 50, 77), 77);
}

TEST(StepCost, LearnsALinearCost) {
    StepCost cost;
    std::mt19937 random(1);
    for (int i = 0; i < 300; ++i) {
        const StepCost::Load load = {static_cast<int32_t>(random() % 64),
                                     static_cast<int64_t>(random() % 60000),
                                     static_cast<int32_t>(random() % 512)};
        cost.observe(load, truth(load));
    }
    for (const StepCost::Load load : {StepCost::Load{1, 500, 0}, {32, 30000, 256}, {64, 60000, 0}}) {
        EXPECT_NEAR(cost.predict(load), truth(load), 0.05);
    }
    const StepCost::Load decodes = {16, 8000, 0};
    EXPECT_NEAR(cost.prefill_room(decodes, truth(decodes) + 6.0, 0), 200, 5);
    EXPECT_EQ(cost.prefill_room(decodes, truth(decodes) * 0.5, 0), 0);
}

TEST(StepCost, FollowsAChange) {
    StepCost cost;
    for (int i = 0; i < 400; ++i) {
        const StepCost::Load load = {i % 8 + 1, 100 * (i % 7), 0};
        cost.observe(load, i < 200 ? 5.0 : 20.0);
    }
    EXPECT_NEAR(cost.predict({4, 300, 0}), 20.0, 0.5);
}

TEST(StepCost, NeverPredictsLessForMore) {
    StepCost cost;
    std::mt19937 random(5);
    for (int i = 0; i < 500; ++i) {  // noise only
        cost.observe({static_cast<int32_t>(random() % 9), static_cast<int64_t>(random() % 999),
                      static_cast<int32_t>(random() % 99)},
                     static_cast<double>(random() % 1000) / 100);
        EXPECT_LE(cost.predict({1, 0, 0}), cost.predict({2, 10, 1}));
        EXPECT_GE(cost.predict({0, 0, 0}), 0);
    }
}

}  // namespace
}  // namespace llm::engine
