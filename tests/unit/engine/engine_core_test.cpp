// The engine without threads, over a backend that notices every wrong slot.
#include "engine_worker/scheduler/engine_core.hpp"

#include <gtest/gtest.h>

#include <map>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/backend/sim/sim_backend.hpp"
#include "tests/unit/engine/hash_backend.hpp"

namespace llm::engine {
namespace {

using testing::expected_answer;
using testing::HashBackend;
using testing::Overlap;

struct Outcome {
    std::string text;
    FinishReason finish = FinishReason::none;
    int32_t tokens = 0;
    int32_t cached = 0;
    std::string error;
};

// By parameter: the backend computes while launch() waits, or afterwards, or one step is launched ahead.
class EngineCoreTest : public ::testing::TestWithParam<Overlap> {
  protected:
    void make(int32_t seats = 8, int64_t slots = 1024, int32_t max_context = 256) {
        auto backend = std::make_unique<HashBackend>(slots, max_context, 128, 32, GetParam());
        backend_ = backend.get();
        EngineOptions options;
        options.max_running = seats;
        options.end_tokens = {249};
        core_ =
            std::make_unique<EngineCore>(std::move(backend), *tokenizer_, options, [this] { return now_; });
    }

    // Every answer is raw bytes: as text it depends on what is valid UTF-8, so the tests look at both sides
    // alike.
    static std::string text_of(const Tokenizer& tokenizer, const std::vector<int32_t>& tokens) {
        StreamDecoder decoder(tokenizer);
        std::string out;
        for (const int32_t token : tokens) {
            out += decoder.push(token);
        }
        return out + decoder.flush();
    }

    Request request(std::vector<int32_t> prompt, int32_t max_tokens, int32_t priority_class = 50) {
        Request out;
        out.id = next_++;
        out.prompts = {std::move(prompt)};
        out.priority_class = priority_class;
        out.sampling.max_tokens = max_tokens;
        out.sampling.seed = 5;
        out.sampling.ignore_eos = true;
        return out;
    }

    bool step() {
        now_ += 0.01;
        std::vector<Event> events;
        const bool worked = core_->step(events);
        for (Event& event : events) {
            Outcome& outcome = outcomes_[{event.request, event.choice}];
            EXPECT_EQ(outcome.finish, FinishReason::none) << "an event after the last";
            outcome.text += event.text;
            outcome.finish = event.finish;
            outcome.tokens = event.completion_tokens;
            outcome.cached = event.cached_tokens;
            outcome.error = event.error;
        }
        EXPECT_EQ(core_->scheduler().check(), "");
        return worked;
    }

    void run() {
        while (core_->has_work()) {
            ASSERT_TRUE(step()) << "work is left and nothing is done";
        }
    }

    std::unique_ptr<Tokenizer> tokenizer_ = make_byte_tokenizer();
    std::unique_ptr<EngineCore> core_;
    HashBackend* backend_ = nullptr;
    double now_ = 100;
    uint64_t next_ = 1;
    std::map<std::pair<uint64_t, int32_t>, Outcome> outcomes_;
};

TEST_P(EngineCoreTest, AnswersAsTheModelSays) {
    make();
    const std::vector<int32_t> prompt = {1, 2, 3};
    core_->add(request(prompt, 40));
    run();
    const Outcome& outcome = outcomes_[{1, 0}];
    EXPECT_EQ(outcome.text, text_of(*tokenizer_, expected_answer(prompt, 5, 40)));
    EXPECT_EQ(outcome.finish, FinishReason::length);
    EXPECT_EQ(outcome.tokens, 40);
}

TEST_P(EngineCoreTest, BatchedIsTheSameAsAlone) {
    make(6, 4096);
    std::vector<std::vector<int32_t>> prompts;
    for (int i = 0; i < 12; ++i) {
        prompts.emplace_back(static_cast<size_t>(5 + i * 17), i);
        core_->add(request(prompts.back(), 10 + i));
        step();
    }
    run();
    for (int i = 0; i < 12; ++i) {
        EXPECT_EQ((outcomes_[{static_cast<uint64_t>(i + 1), 0}].text),
                  text_of(*tokenizer_, expected_answer(prompts[i], 5, 10 + i)));
    }
}

// A client hears of the first token also where it has no text yet: the others may take long.
TEST_P(EngineCoreTest, TheFirstTokenIsAnEventWithoutText) {
    make();
    for (int32_t first = 0; first < 249; ++first) {
        const std::vector<int32_t> answer = expected_answer({first, 1}, 5, 6);
        if (!text_of(*tokenizer_, {answer.front()}).empty() && answer.front() < 128) {
            continue;  // no part of a character
        }
        core_->add(request({first, 1}, 6));
        std::vector<Event> events;
        for (int i = 0; i < 2 && events.empty(); ++i) {  // it may be told while the next step is computed
            ASSERT_TRUE(core_->step(events));
        }
        ASSERT_EQ(events.size(), 1u);
        EXPECT_EQ(events[0].completion_tokens, 1);
        run();
        return;
    }
    FAIL() << "no answer begins with a part of a character";
}

TEST_P(EngineCoreTest, CountsExactly) {
    make(4);
    core_->add(request({1, 2, 3}, 10));
    core_->add(request({4, 5, 6, 7}, 1));
    run();
    const EngineStats& stats = core_->stats();
    EXPECT_EQ(stats.tokens_in, 7u);
    EXPECT_EQ(stats.tokens_out, 11u);
    EXPECT_EQ(stats.decode_tokens, 9u);
    EXPECT_EQ(stats.completed, 2u);
    EXPECT_EQ(stats.running, 0u);
    // The clock moves only between steps: 9 gaps of 10 ms from first to last token.
    EXPECT_NEAR(stats.user_seconds, 0.09, 1e-9);
    EXPECT_EQ(core_->scheduler().blocks().n_live(), 0);
}

TEST_P(EngineCoreTest, UserSecondsLeaveOutThePreemptedTime) {
    make(1);
    core_->add(request({1, 2, 3}, 40, 90));
    for (int i = 0; i < 20; ++i) {
        step();
    }
    core_->add(request({9, 9}, 10, 10));
    run();
    // 39 gaps of the first less those between its preemption and its next token, and 9 of the second.
    EXPECT_EQ(core_->stats().preemptions, 1u);
    EXPECT_EQ(core_->stats().decode_tokens, 39u + 9u);
    EXPECT_NEAR(core_->stats().user_seconds, 0.01 * (38 + 9), 0.011);
}

TEST_P(EngineCoreTest, CancelFreesEverythingBeforeTheNextStep) {
    make(4);
    core_->add(request(std::vector<int32_t>(100, 3), 100));
    core_->add(request({1, 2}, 5));
    step();
    EXPECT_GT(core_->scheduler().blocks().n_live(), 7);  // 7 and 1 blocks
    core_->cancel(1);
    EXPECT_EQ(core_->stats().running, 1u);
    if (GetParam() == Overlap::pipelined) {
        step();  // what it was part of is computed to its end first
    }
    EXPECT_LE(core_->scheduler().blocks().n_live(), 1);
    run();
    EXPECT_EQ((outcomes_[{2, 0}].finish), FinishReason::length);
    EXPECT_EQ((outcomes_[{1, 0}].finish), FinishReason::none);
    EXPECT_EQ(core_->stats().cancelled, 1u);
    EXPECT_EQ(core_->stats().completed, 1u);
    core_->cancel(1);
    core_->cancel(77);
    EXPECT_EQ(core_->stats().cancelled, 1u);
}

TEST_P(EngineCoreTest, ChoicesShareThePromptAndDifferByTheirSeed) {
    make(8);
    Request asked = request(std::vector<int32_t>(65, 8), 12);
    asked.n = 3;
    core_->add(std::move(asked));
    run();
    // 65 tokens once; the others take four blocks over and compute one token.
    EXPECT_EQ(backend_->n_computed_tokens, 65 + 2 + 3 * 11);
    EXPECT_EQ((outcomes_[{1, 0}].text),
              text_of(*tokenizer_, expected_answer(std::vector<int32_t>(65, 8), 5, 12)));
    EXPECT_NE((outcomes_[{1, 0}].text), (outcomes_[{1, 1}].text));
    EXPECT_NE((outcomes_[{1, 1}].text), (outcomes_[{1, 2}].text));
    EXPECT_EQ(core_->stats().completed, 1u);
    EXPECT_EQ(core_->stats().tokens_in, 65u);
}

TEST_P(EngineCoreTest, APromptIsScoredOnceAndAsAWhole) {
    make(4, 1024, 512);
    core_->add(request(std::vector<int32_t>(200, 8), 2));
    run();  // its blocks can be found now
    backend_->n_computed_tokens = 0;
    Request asked = request(std::vector<int32_t>(200, 8), 3);
    asked.sampling.score_prompts = true;
    asked.sampling.n_logprobs = 0;
    core_->add(std::move(asked));
    std::vector<size_t> scores;
    while (core_->has_work()) {
        std::vector<Event> events;
        ASSERT_TRUE(core_->step(events));
        for (const Event& event : events) {
            scores.push_back(event.prompt_logprobs.size());
        }
    }
    EXPECT_EQ(scores, (std::vector<size_t>{199, 0, 0}));
    EXPECT_EQ(backend_->n_computed_tokens, 200 + 2);
}

TEST_P(EngineCoreTest, SaltsKeepClientsApart) {
    make(8);
    for (const char* salt : {"a", "b", "a"}) {
        Request asked = request(std::vector<int32_t>(65, 8), 2);
        asked.salt = salt;
        core_->add(std::move(asked));
        run();
    }
    EXPECT_EQ((outcomes_[{1, 0}].cached), 0);
    EXPECT_EQ((outcomes_[{2, 0}].cached), 0);
    EXPECT_EQ((outcomes_[{3, 0}].cached), 64);
}

TEST_P(EngineCoreTest, AnEndTokenEndsTheTextAndIsCountedButNotShown) {
    make();
    // Find a prompt whose answer holds the end token early.
    for (int32_t first = 0; first < 249; ++first) {
        const auto answer = expected_answer({first, 1}, 5, 30);
        const auto end = std::find(answer.begin(), answer.end(), 249);
        if (end == answer.end() || end == answer.begin()) {
            continue;
        }
        Request asked = request({first, 1}, 30);
        asked.sampling.ignore_eos = false;
        core_->add(std::move(asked));
        run();
        const Outcome& outcome = outcomes_[{1, 0}];
        EXPECT_EQ(outcome.finish, FinishReason::stop);
        EXPECT_EQ(outcome.tokens, end - answer.begin() + 1);
        EXPECT_EQ(outcome.text, text_of(*tokenizer_, {answer.begin(), end}));
        return;
    }
    FAIL() << "no prompt with an end token";
}

TEST_P(EngineCoreTest, TheContextBoundsTheAnswer) {
    make(4, 1024, 64);
    core_->add(request(std::vector<int32_t>(60, 1), 1000));
    run();
    EXPECT_EQ((outcomes_[{1, 0}].tokens), 4);
    EXPECT_EQ((outcomes_[{1, 0}].finish), FinishReason::length);
}

// The sharpest test of preemption: cut at every step, the text never changes.
TEST_P(EngineCoreTest, PreemptedAtAnyStepItContinuesTokenForToken) {
    const std::vector<int32_t> prompt(40, 6);
    const std::string expected = text_of(*tokenizer_, expected_answer(prompt, 5, 50));
    for (int cut = 16; cut <= 51; ++cut) {
        make(1, 128, 128);  // the intruder needs the memory, too: cached blocks are lost
        outcomes_.clear();
        next_ = 1;
        core_->add(request(prompt, 50, 90));
        for (int i = 0; i < cut && core_->has_work(); ++i) {
            step();
        }
        core_->add(request(std::vector<int32_t>(90, 200), 10, 10));
        run();
        ASSERT_EQ((outcomes_[{1, 0}].text), expected) << "cut at step " << cut;
        ASSERT_EQ((outcomes_[{1, 0}].tokens), 50);
    }
}

TEST_P(EngineCoreTest, AFailureEndsEveryRequestWithItsReason) {
    make();
    core_->add(request({1, 2}, 10));
    step();
    std::vector<Event> events;
    core_->fail("the GPU is lost", events);
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events[0].finish, FinishReason::failed);
    EXPECT_EQ(events[0].error, "the GPU is lost");
    EXPECT_FALSE(core_->has_work());
    EXPECT_EQ(core_->scheduler().blocks().n_live(), 0);
}

TEST_P(EngineCoreTest, AStopStringEndsTheTextThoughMoreWasComputed) {
    const std::vector<int32_t> prompt = {4, 5, 6};
    const std::vector<int32_t> tokens = expected_answer(prompt, 5, 40);
    make();
    Request asked = request(prompt, 40);
    const std::string whole = text_of(*tokenizer_, tokens);
    // the first printable byte that the text holds nowhere before
    size_t at = 1;
    while (at < whole.size() && (whole[at] <= ' ' || whole.find(whole[at]) != at)) {
        ++at;
    }
    ASSERT_LT(at, whole.size());
    asked.sampling.stop = {std::string(1, whole[at])};
    core_->add(asked);
    core_->add(request({9, 9}, 40));
    run();
    const Outcome& outcome = outcomes_[{1, 0}];
    EXPECT_EQ(outcome.text, whole.substr(0, at));
    EXPECT_EQ(outcome.finish, FinishReason::stop);
    EXPECT_LT(outcome.tokens, 40);
    EXPECT_EQ(core_->stats().tokens_out, static_cast<uint64_t>(outcome.tokens) + 40);
    const Outcome& other = outcomes_[{2, 0}];
    EXPECT_EQ(other.tokens, 40);
}

std::string name_of(const ::testing::TestParamInfo<Overlap>& info) {
    switch (info.param) {
    case Overlap::synchronous:
        return "synchronous";
    case Overlap::asynchronous:
        return "asynchronous";
    case Overlap::pipelined:
        return "pipelined";
    }
    return "";
}

INSTANTIATE_TEST_SUITE_P(Backend, EngineCoreTest,
                         ::testing::Values(Overlap::synchronous, Overlap::asynchronous, Overlap::pipelined), name_of);

// What is launched before the step before it is known, and what is not.
class EngineCoreAhead : public EngineCoreTest {};

TEST_P(EngineCoreAhead, EveryDecodeAfterTheFirstStep) {
    make();
    core_->add(request({1, 2, 3}, 10));
    core_->add(request({4, 5, 6}, 12));
    run();
    EXPECT_EQ(backend_->n_steps, 12);  // no row too many where the length ends the text
    EXPECT_EQ(backend_->n_ahead, 11);
    EXPECT_EQ(backend_->n_computed_tokens, 6 + 9 + 11);
}

TEST_P(EngineCoreAhead, NotWhatDependsOnTheToken) {
    for (float Sampling::*penalty :
         {&Sampling::repetition_penalty, &Sampling::presence_penalty, &Sampling::frequency_penalty}) {
        make();
        Request asked = request({1, 2, 3}, 10);
        asked.sampling.*penalty = 1.5f;
        core_->add(std::move(asked));
        run();
        EXPECT_EQ(backend_->n_ahead, 0);
    }
}

TEST_P(EngineCoreAhead, NotWhereSomebodyCouldStartOrComputesAPrompt) {
    make(1);
    core_->add(request({1, 2, 3}, 30));
    core_->add(request({1, 2, 4}, 5));  // waits for the seat
    for (int i = 0; i < 18; ++i) {
        step();
        EXPECT_EQ(backend_->n_ahead, i + 1);
    }
    core_->add(request({1, 2, 5}, 5, 10));  // may have it at once
    step();
    EXPECT_EQ(backend_->n_ahead, 18);
    step();
    EXPECT_EQ(core_->stats().preemptions, 1u);
    run();
    EXPECT_EQ((outcomes_[{1, 0}].text), text_of(*tokenizer_, expected_answer({1, 2, 3}, 5, 30)));

    make(2);
    core_->add(request(std::vector<int32_t>(200, 1), 3));  // a step takes 128 tokens
    step();
    EXPECT_EQ(backend_->n_steps, 1);
    step();
    EXPECT_EQ(backend_->n_steps, 3);
}

// Memory is what a busy engine is short of, most often, and seats are free.
TEST_P(EngineCoreAhead, BesideWhoeverWaitsForMemory) {
    make(4, 512);
    const std::vector<int32_t> first(50, 1), second(50, 2), third(150, 3);
    core_->add(request(first, 100));
    core_->add(request(second, 150));
    core_->add(request(third, 100));
    for (int i = 0; i < 40; ++i) {
        step();
    }
    ASSERT_EQ(core_->scheduler().waiting().size(), 1u);
    EXPECT_GT(backend_->n_ahead, 35);
    while (outcomes_[{1, 0}].finish == FinishReason::none) {
        step();
    }
    EXPECT_EQ(core_->scheduler().waiting().size(), 0u);  // it started when all would fit to the end
    run();
    EXPECT_EQ((outcomes_[{2, 0}].text), text_of(*tokenizer_, expected_answer(second, 5, 150)));
    EXPECT_EQ((outcomes_[{3, 0}].text), text_of(*tokenizer_, expected_answer(third, 5, 100)));
}

TEST_P(EngineCoreAhead, NotWhereMemoryIsShort) {
    make(2, 32, 32);
    core_->add(request(std::vector<int32_t>(14, 1), 10, 10));
    core_->add(request(std::vector<int32_t>(14, 2), 2, 10));
    run();
    EXPECT_EQ((outcomes_[{1, 0}].text), text_of(*tokenizer_, expected_answer(std::vector<int32_t>(14, 1), 5, 10)));
    EXPECT_EQ((outcomes_[{2, 0}].tokens), 2);
}

TEST_P(EngineCoreAhead, AnEndTokenWastesOneRow) {
    make();
    std::vector<int32_t> answer;
    std::vector<int32_t> prompt;
    for (int32_t first = 0; first < 249 && prompt.empty(); ++first) {
        answer = expected_answer({first, 1}, 5, 30);
        const auto end = std::find(answer.begin(), answer.end(), 249);
        if (end != answer.end() && end - answer.begin() > 2) {
            prompt = {first, 1};
            answer.erase(end, answer.end());
        }
    }
    ASSERT_FALSE(prompt.empty());
    Request asked = request(prompt, 30);
    asked.sampling.ignore_eos = false;
    core_->add(std::move(asked));
    run();
    EXPECT_EQ(backend_->n_computed_tokens, 2 + static_cast<int64_t>(answer.size()) + 1);
    EXPECT_EQ(core_->stats().tokens_out, answer.size() + 1);
    EXPECT_EQ(core_->scheduler().blocks().n_live(), 0);
}

INSTANTIATE_TEST_SUITE_P(Backend, EngineCoreAhead, ::testing::Values(Overlap::pipelined), name_of);

TEST(EngineCoreOverlap, EventsLeaveWhileTheNextStepIsComputed) {
    const auto tokenizer = make_byte_tokenizer();
    EngineCore core(std::make_unique<HashBackend>(1024, 256, 128, 32, Overlap::asynchronous), *tokenizer, EngineOptions(),
                    [] { return 1.0; });
    Request asked;
    asked.id = 1;
    asked.prompts = {{1, 2, 3}};
    asked.sampling.max_tokens = 3;
    asked.sampling.ignore_eos = true;
    asked.sampling.n_logprobs = 0;
    core.add(asked);
    std::vector<Event> events;
    std::vector<size_t> early;  // tokens that had left before each step ended
    while (core.has_work()) {
        early.push_back(0);
        ASSERT_TRUE(core.step(events, [&] { early.back() = events.size(); }));
    }
    EXPECT_EQ(early, (std::vector<size_t>{0, 1, 2}));
    EXPECT_EQ(events.size(), 3u);
}

TEST(SimBackend, AnswersWithItsTextWhateverTheBatch) {
    const auto tokenizer = make_byte_tokenizer();
    BackendOptions compute;
    compute.max_step_seqs = 4;
    SimOptions sim;
    sim.base_ms = sim.per_sequence_ms = sim.per_context_ms = sim.per_prefill_ms = 0;
    sim.text = "abc";
    sim.reply_tokens = 7;
    EngineOptions options;
    options.end_tokens = {tokenizer->eos_id()};
    EngineCore core(make_sim_backend(compute, sim), *tokenizer, options, [] { return 1.0; });
    for (uint64_t id = 1; id <= 3; ++id) {
        Request asked;
        asked.id = id;
        asked.prompts = {{1, 2, 3}};
        asked.sampling.max_tokens = id == 3 ? 5 : 100;
        core.add(asked);
    }
    std::map<uint64_t, std::string> texts;
    std::vector<Event> events;
    while (core.has_work()) {
        ASSERT_TRUE(core.step(events));
    }
    for (const Event& event : events) {
        texts[event.request] += event.text;
    }
    EXPECT_EQ(texts[1], "abcabca");
    EXPECT_EQ(texts[2], "abcabca");
    EXPECT_EQ(texts[3], "abcab");
}

}  // namespace
}  // namespace llm::engine
