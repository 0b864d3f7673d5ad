// Answers that follow a grammar, where the vocabulary cannot.
#include <gtest/gtest.h>

#include "engine_worker/backend/sim/byte_tokenizer.hpp"
#include "engine_worker/scheduler/engine_core.hpp"
#include "tests/unit/engine/hash_backend.hpp"

namespace llm::engine {
namespace {

// Without a mask the model may say that the text has ended: half a document would look whole.
TEST(EngineGrammar, WhereNoTokenFitsAnEndTokenIsNoEnd) {
    const std::vector<int32_t> prompt = {1, 2, 3};
    const auto tokenizer = make_byte_tokenizer();
    EngineOptions options;
    options.end_tokens = {testing::expected_answer(prompt, 5, 1).front()};
    EngineCore core(std::make_unique<testing::HashBackend>(256, 64), *tokenizer, options, [] { return 1.0; });

    GrammarBuilder builder;
    const int32_t rule = builder.add_rule();
    builder.end(builder.literal(builder.start(rule), "\xff"));
    Request request;
    request.id = 1;
    request.prompts = {prompt};
    request.grammar = std::make_shared<CompiledGrammar>(
        builder.finish(rule),
        std::make_shared<const TokenTrie>(TokenTrie::of(*tokenizer, testing::kVocabulary)));
    request.sampling.max_tokens = 10;
    request.sampling.seed = 5;
    core.add(std::move(request));

    std::vector<Event> events;
    while (core.has_work()) {
        ASSERT_TRUE(core.step(events));
    }
    ASSERT_EQ(events.size(), 1u);
    EXPECT_EQ(events.front().finish, FinishReason::failed);
}

}  // namespace
}  // namespace llm::engine
