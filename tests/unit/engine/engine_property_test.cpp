// Random requests, cancellations and classes over little memory, on each kind of backend: whatever happens, everybody who stays gets
// exactly the text that the model says, decodes never starve, and no memory is lost.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/scheduler/engine_core.hpp"
#include "tests/unit/engine/hash_backend.hpp"

namespace llm::engine {
namespace {

using testing::expected_answer;
using testing::HashBackend;
using testing::Overlap;

constexpr int32_t kEndToken = 249;

struct Asked {
    std::vector<int32_t> prompt;
    bool score = false;
    int32_t max_tokens = 0;
    uint64_t seed = 0;
};

std::vector<int32_t> random_prompt(std::mt19937& random) {
    // Built from few long pieces, so that prefixes repeat.
    std::vector<int32_t> prompt;
    for (uint32_t i = 0, n = random() % 4; i < n; ++i) {
        prompt.insert(prompt.end(), 16 + random() % 2 * 8, static_cast<int32_t>(random() % 3));
    }
    prompt.insert(prompt.end(), 1 + random() % 20, static_cast<int32_t>(random() % 200));
    return prompt;
}

class EngineProperty : public ::testing::TestWithParam<uint32_t> {};

TEST_P(EngineProperty, EverybodyGetsTheirOwnText) {
    std::mt19937 random(GetParam());
    const auto overlap = static_cast<Overlap>(GetParam() % 3);
    const auto tokenizer = make_byte_tokenizer();
    const int32_t slots = 16 * (16 + static_cast<int32_t>(random() % 24));
    auto backend =
        std::make_unique<HashBackend>(slots, 200, 48 + static_cast<int32_t>(random() % 64), 12, overlap);
    EngineOptions options;
    options.end_tokens = {kEndToken};
    options.max_running = 2 + static_cast<int32_t>(random() % 10);
    double now = 1;
    EngineCore core(std::move(backend), *tokenizer, options, [&now] { return now += 0.001; });

    std::map<uint64_t, Asked> asked;
    std::map<uint64_t, std::vector<int32_t>> got;  // tokens, through logprobs: they name the ids
    std::map<uint64_t, FinishReason> finished;
    std::set<uint64_t> cancelled;
    const auto take = [&](const Event& event) {
        const Asked& one = asked[event.request];
        const size_t scores = one.score && got[event.request].empty() ? one.prompt.size() - 1 : 0;
        ASSERT_EQ(event.prompt_logprobs.size(), scores);
        for (size_t i = 0; i < scores; ++i) {
            ASSERT_EQ(event.prompt_logprobs[i].size(), 1u);
            ASSERT_EQ(event.prompt_logprobs[i].front().token, one.prompt[i + 1]);
        }
        got[event.request].push_back(event.logprobs.empty() ? kEndToken : event.logprobs.front().token);
        if (event.finish != FinishReason::none) {
            finished[event.request] = event.finish;
        }
    };
    uint64_t next = 1;
    for (int round = 0; round < 1500; ++round) {
        if (round < 1000 && random() % 8 == 0) {
            Request request;
            request.id = next++;
            Asked& one = asked[request.id];
            // Answers become longer: what was learnt of them is wrong then, and memory runs out.
            const uint32_t longest = round < 500 ? 8 : 104;
            one = {random_prompt(random), random() % 4 == 0, 1 + static_cast<int32_t>(random() % longest), random()};
            request.prompts = {one.prompt};
            request.priority_class = static_cast<int32_t>(random() % 3) * 10;
            request.salt = random() % 2 == 0 ? "x" : "";
            request.sampling.max_tokens = one.max_tokens;
            request.sampling.seed = one.seed;
            request.sampling.n_logprobs = 0;
            request.sampling.score_prompts = one.score;
            core.add(std::move(request));
        }
        if (random() % 40 == 0 && next > 1) {
            const uint64_t id = 1 + random() % (next - 1);
            core.cancel(id);
            if (finished.count(id) == 0) {
                cancelled.insert(id);
            }
        }
        // Who decodes before the step has a token after it, unless made to wait: then the step counts a
        // preemption.
        std::map<uint64_t, size_t> decoding;
        for (const auto& s : core.scheduler().running()) {
            if (s->decoding()) {
                decoding[s->request] = got[s->request].size();
            }
        }
        const uint64_t preemptions = core.scheduler().preemptions();
        std::vector<Event> events;
        const bool worked = core.step(events);
        ASSERT_EQ(worked, worked || core.has_work()) << "work is left and nothing is done";
        for (const Event& event : events) {
            ASSERT_EQ(cancelled.count(event.request), 0u) << "an event after cancelling";
            ASSERT_EQ(finished.count(event.request), 0u) << "an event after the last";
            take(event);
        }
        size_t stalled = 0;
        for (const auto& [id, before] : decoding) {
            stalled += got[id].size() == before ? 1 : 0;
        }
        // its event may come with the next step
        ASSERT_LE(overlap != Overlap::synchronous ? 0 : stalled, core.scheduler().preemptions() - preemptions);
        ASSERT_EQ(core.scheduler().check(), "") << "round " << round;
    }
    for (int i = 0; i < 20000 && core.has_work(); ++i) {
        std::vector<Event> events;
        ASSERT_TRUE(core.step(events)) << "work is left and nothing is done";
        for (const Event& event : events) {
            take(event);
        }
    }
    ASSERT_FALSE(core.has_work());
    EXPECT_EQ(core.scheduler().blocks().n_live(), 0);
    for (const auto& [id, one] : asked) {
        if (cancelled.count(id) == 0) {
            ASSERT_EQ(finished.count(id), 1u) << "request " << id;
            std::vector<int32_t> expected = expected_answer(one.prompt, one.seed, one.max_tokens);
            if (const auto end = std::find(expected.begin(), expected.end(), kEndToken); end != expected.end()) {
                expected.erase(end + 1, expected.end());
            }
            ASSERT_EQ(got[id], expected) << "request " << id;
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, EngineProperty, ::testing::Range(1u, 13u));

}  // namespace
}  // namespace llm::engine
