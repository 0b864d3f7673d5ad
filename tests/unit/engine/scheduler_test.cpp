// The rules of scheduler.hpp, one by one, without backend and clock.
#include "engine_worker/scheduler/scheduler.hpp"

#include <gtest/gtest.h>

#include <map>

namespace llm::engine {
namespace {

class SchedulerTest : public ::testing::Test {
  protected:
    void make(int32_t seats, int32_t n_blocks, int32_t step_tokens = 128) {
        SchedulerOptions options;
        options.max_running = seats;
        options.n_blocks = n_blocks;
        options.max_step_tokens = step_tokens;
        scheduler_ = std::make_unique<Scheduler>(options);
    }

    uint64_t add(int32_t n_prompt, int32_t max_tokens, int32_t priority_class = 50) {
        auto s = std::make_unique<Sequence>();
        s->id = next_++;
        s->request = s->id;
        s->priority_class = priority_class;
        // Different tokens for everybody: no shared prefixes unless wanted.
        s->tokens.assign(static_cast<size_t>(n_prompt), static_cast<int32_t>(1000 + s->id));
        s->n_prompt = n_prompt;
        s->max_tokens = max_tokens;
        s->root = scheduler_->blocks().root("");
        const uint64_t id = s->id;
        scheduler_->add(std::move(s));
        return id;
    }

    struct Done {
        std::map<uint64_t, int32_t> tokens;  // computed, by sequence
        std::vector<uint64_t> ended;
        bool has(uint64_t id) const { return tokens.count(id) > 0; }
    };

    // Plans and "computes" one step; every sampled token is 7.
    Done step(double prefill_ms = 0.1, double decode_ms = 1.0) {
        Done done;
        const Plan& plan = scheduler_->plan(0);
        EXPECT_EQ(scheduler_->check(), "");
        if (plan.rows.empty()) {
            return done;
        }
        scheduler_->cost().observe(plan.load, decode_ms + prefill_ms * plan.load.prefill_tokens);
        for (const PlannedRow& row : plan.rows) {
            done.tokens[row.sequence->id] = row.n_tokens;
            scheduler_->commit(row);
            if (row.sample) {
                row.sequence->tokens.push_back(7);
                if (row.sequence->n_generated() == row.sequence->max_tokens) {
                    done.ended.push_back(row.sequence->id);
                }
            }
        }
        for (const uint64_t id : done.ended) {
            EXPECT_NE(scheduler_->remove(id), nullptr);
        }
        EXPECT_EQ(scheduler_->check(), "");
        return done;
    }

    bool is_running(uint64_t id) const {
        for (const auto& s : scheduler_->running()) {
            if (s->id == id) {
                return true;
            }
        }
        return false;
    }

    std::unique_ptr<Scheduler> scheduler_;
    uint64_t next_ = 1;
};

TEST_F(SchedulerTest, NothingToDoIsAnEmptyPlan) {
    make(4, 16);
    EXPECT_TRUE(scheduler_->plan(0).rows.empty());
}

TEST_F(SchedulerTest, PrefillsThenDecodesOneTokenPerStep) {
    make(4, 16);
    const uint64_t id = add(20, 3);
    EXPECT_EQ(step().tokens[id], 20);
    EXPECT_EQ(step().tokens[id], 1);
    const Done last = step();
    EXPECT_EQ(last.ended, std::vector<uint64_t>{id});
    EXPECT_EQ(scheduler_->blocks().n_live(), 0);
}

TEST_F(SchedulerTest, NobodyDecodingMeansThePromptTakesTheWholeStep) {
    make(4, 64, 100);
    const uint64_t id = add(250, 5);
    EXPECT_EQ(step().tokens[id], 100);
    EXPECT_EQ(step().tokens[id], 100);
    EXPECT_EQ(step().tokens[id], 50);
    EXPECT_EQ(step().tokens[id], 1);
}

TEST_F(SchedulerTest, EverybodyWhoDecodesGetsATokenInEveryStepHoweverLongThePrompts) {
    make(8, 400, 256);
    const uint64_t a = add(10, 200);
    const uint64_t b = add(10, 200);
    step();
    for (int i = 0; i < 10; ++i) {
        step();
    }
    add(2000, 10);
    add(2000, 10);
    for (int i = 0; i < 60; ++i) {
        const Done done = step();
        EXPECT_TRUE(done.has(a) && done.has(b)) << "step " << i;
    }
}

TEST_F(SchedulerTest, ChunksFitTheStepsTimeOnceTheCostIsKnown) {
    struct {
        double decode_ms;
        int32_t chunk;  // of tokens that take 0.1 ms
    } const cases[] = {
        {100, 500},  // half as long again
        {4, 260},    // 30 ms
    };
    for (const auto& c : cases) {
        make(8, 1000, 1024);
        add(10, 500);
        const uint64_t warm = add(600, 2);
        for (int i = 0; i < 60; ++i) {
            step(0.1, c.decode_ms);
        }
        EXPECT_FALSE(is_running(warm));
        const uint64_t id = add(3000, 2);
        const int32_t chunk = step(0.1, c.decode_ms).tokens[id];
        EXPECT_NEAR(chunk, c.chunk, 0.1 * c.chunk) << c.decode_ms;
    }
}

TEST_F(SchedulerTest, SeatsAreGivenByClassThenArrival) {
    make(1, 16);
    const uint64_t low = add(8, 1, 90);
    const uint64_t second = add(8, 1, 20);
    const uint64_t third = add(8, 1, 20);
    const uint64_t first = add(8, 1, 10);
    std::vector<uint64_t> order;
    while (order.size() < 4) {
        for (const auto& [id, n] : step().tokens) {
            order.push_back(id);
        }
    }
    EXPECT_EQ(order, (std::vector<uint64_t>{first, second, third, low}));
}

TEST_F(SchedulerTest, AHigherClassTakesTheSeatOfALowerOneInTheNextStepAfterItsQuantum) {
    make(1, 32);
    const uint64_t low = add(8, 100, 90);
    for (int i = 0; i < 20; ++i) {
        step();
    }
    const uint64_t high = add(8, 5, 10);
    const Done done = step();
    EXPECT_TRUE(done.has(high));
    EXPECT_FALSE(done.has(low));
    EXPECT_EQ(scheduler_->preemptions(), 1u);
}

TEST_F(SchedulerTest, AQuantumIsRespectedButWithinSixteenStepsTheHigherClassRuns) {
    make(1, 32);
    const uint64_t low = add(8, 100, 90);
    step();
    step();
    const uint64_t high = add(8, 5, 10);
    int waited = 0;
    while (!step().has(high)) {
        ASSERT_LT(++waited, 16);
    }
    EXPECT_GT(waited, 10);  // and not at once: the victim had its quantum
    EXPECT_FALSE(is_running(low));
}

TEST_F(SchedulerTest, EqualClassesNeverPreemptEachOther) {
    make(2, 64);
    add(8, 200);
    add(8, 200);
    const uint64_t third = add(8, 5);
    for (int i = 0; i < 100; ++i) {
        EXPECT_FALSE(step().has(third));
    }
    EXPECT_EQ(scheduler_->preemptions(), 0u);
}

TEST_F(SchedulerTest, OnlyAsManyAsNeededMakeRoomAndTheLowestClassFirst) {
    make(3, 64);
    const uint64_t middle = add(8, 200, 50);
    const uint64_t low = add(8, 200, 90);
    const uint64_t lower = add(8, 200, 95);
    for (int i = 0; i < 20; ++i) {
        step();
    }
    add(8, 50, 10);
    step();
    EXPECT_TRUE(is_running(middle));
    EXPECT_TRUE(is_running(low));
    EXPECT_FALSE(is_running(lower));
    EXPECT_EQ(scheduler_->preemptions(), 1u);
}

TEST_F(SchedulerTest, NobodyIsPreemptedWhenThatWouldNotHelp) {
    make(4, 16);        // 256 slots
    add(100, 100, 10);  // higher than the newcomer: stays
    const uint64_t low = add(16, 20, 90);
    for (int i = 0; i < 18; ++i) {
        step();
    }
    ASSERT_TRUE(is_running(low));
    add(150, 50, 50);  // would not fit beside the first even without `low`
    step();
    EXPECT_TRUE(is_running(low));
    EXPECT_EQ(scheduler_->preemptions(), 0u);
}

TEST_F(SchedulerTest, AdmissionWaitsForMemoryAndKeepsTheOrder) {
    make(8, 16);  // 256 slots
    const uint64_t first = add(64, 128);
    const uint64_t big = add(64, 128);  // together 384 at the peak
    const uint64_t small = add(8, 4);   // would fit, but came later
    step();
    EXPECT_TRUE(is_running(first));
    EXPECT_FALSE(is_running(big));
    EXPECT_FALSE(is_running(small));
    while (is_running(first)) {
        step();
    }
    const Done done = step();
    EXPECT_TRUE(done.has(big) && done.has(small));
}

TEST_F(SchedulerTest, AWrongGuessPreemptsTheLastInOrderAndEverybodyFinishes) {
    make(8, 16);  // 256 slots
    for (int i = 0; i < 32; ++i) {
        scheduler_->record_output(1);  // teach it that answers are short
    }
    const uint64_t a = add(16, 150);
    const uint64_t b = add(16, 150);
    std::vector<uint64_t> ended;
    for (int i = 0; i < 2000 && ended.size() < 2; ++i) {
        const Done done = step();
        ended.insert(ended.end(), done.ended.begin(), done.ended.end());
    }
    EXPECT_EQ(ended, (std::vector<uint64_t>{a, b}));
    EXPECT_GE(scheduler_->preemptions(), 1u);
    EXPECT_LE(scheduler_->preemptions(), 2u);  // no ping-pong
}

// Few requests name a limit: theirs is the context, which nearly all of the memory was kept for when they ran out of it once.
TEST_F(SchedulerTest, WhoRanOutOfMemoryStillRunsBesideOthers) {
    make(32, 256);  // 4096 slots, of which an answer will need 320
    for (int i = 0; i < 32; ++i) {
        scheduler_->record_output(20);
    }
    for (int i = 0; i < 32; ++i) {
        add(16, 4000);
    }
    int steps = 0;
    for (size_t left = 32; left > 0; ++steps) {
        ASSERT_LT(steps, 1200);  // two and a half rounds of 300 tokens, and what is computed again
        step();
        std::vector<uint64_t> ended;
        for (const auto& s : scheduler_->running()) {
            if (s->n_generated() == 300) {
                ended.push_back(s->id);
            }
        }
        for (const uint64_t id : ended) {
            scheduler_->remove(id);
        }
        left -= ended.size();
    }
    EXPECT_LE(scheduler_->preemptions(), 64u);
}

TEST_F(SchedulerTest, APromptFoundInTheCacheIsNotComputedAgain) {
    make(4, 64);
    const uint64_t first = add(64, 2);
    while (step().ended.empty()) {
    }
    auto again = std::make_unique<Sequence>();
    again->id = again->request = next_++;
    again->tokens.assign(64, static_cast<int32_t>(1000 + first));
    again->n_prompt = 64;
    again->max_tokens = 2;
    again->root = scheduler_->blocks().root("");
    const uint64_t id = again->id;
    scheduler_->add(std::move(again));
    EXPECT_EQ(step().tokens[id], 16);  // three whole blocks are known; the last token is always computed
    EXPECT_EQ(scheduler_->prefix_hits(), 48u);
}

TEST_F(SchedulerTest, RemovingFreesTheMemoryAtOnce) {
    make(4, 64);
    const uint64_t running = add(100, 50);
    const uint64_t other = add(100, 50);
    step();
    EXPECT_NE(scheduler_->remove(running), nullptr);
    EXPECT_NE(scheduler_->remove(other), nullptr);
    EXPECT_EQ(scheduler_->blocks().n_live(), 0);
    EXPECT_EQ(scheduler_->remove(running), nullptr);
    EXPECT_EQ(scheduler_->check(), "");
}

TEST_F(SchedulerTest, TheFirstChunkOfAHigherClassComesBeforeTheRestOfALowerPrompt) {
    make(4, 1000, 256);
    const uint64_t low = add(5000, 5, 90);
    step();
    const uint64_t high = add(600, 5, 10);
    const Done done = step();
    EXPECT_EQ(done.tokens.at(high), 256);
    EXPECT_FALSE(done.has(low));
}

}  // namespace
}  // namespace llm::engine
