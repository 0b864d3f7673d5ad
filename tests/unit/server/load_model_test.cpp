// A whole model directory through everything but the socket: tokenizer, template, scheduler, CPU backend.
#include "engine_worker/server/load_model.hpp"

#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "engine_worker/scheduler/engine_core.hpp"
#include "engine_worker/server/api_error.hpp"
#include "tests/support/model_builder.hpp"

#ifdef LLM_HAVE_CPU

namespace llm::engine {
namespace {

Options cpu_options(const std::string& dir) {
    Options options;
    options.model = dir;
    options.backend = "cpu";
    options.compute.threads = 1;
    return options;
}

struct Answers {
    std::map<uint64_t, std::string> text;
    std::map<uint64_t, FinishReason> finish;
};

void take(const std::vector<Event>& events, Answers& out) {
    for (const Event& event : events) {
        out.text[event.request] += event.text;
        out.finish[event.request] = event.finish;
    }
}

Request greedy(uint64_t id, std::vector<int32_t> prompt, int32_t max_tokens) {
    Request request;
    request.id = id;
    request.prompts = {std::move(prompt)};
    request.sampling.temperature = 0;
    request.sampling.max_tokens = max_tokens;
    return request;
}

TEST(LoadModel, ALookupModelSaysItsSentence) {
    const llm::testing::TempDir dir;
    // A line break, which ends the prompt, is followed by A, A by B …, and Z ends the text.
    std::vector<int32_t> next(llm::testing::kByteVocab);
    for (int32_t t = 0; t < llm::testing::kByteVocab; ++t) {
        next[static_cast<size_t>(t)] = (t + 1) % llm::testing::kByteVocab;
    }
    next['\n'] = 'A';
    next['Z'] = llm::testing::kImEnd;
    llm::testing::write_lookup_model(dir.path(), next);
    llm::testing::write_byte_tokenizer(dir.path());

    LoadedModel loaded = load_model(cpu_options(dir.path()));
    loaded.model->max_context = 512;
    const Json messages = Json::parse(R"([{"role":"user","content":"say the alphabet <|im_end|>"}])");
    const auto prompt = loaded.model->encode_chat(messages, nullptr, nullptr, {});
    EXPECT_EQ(loaded.model->tokenizer->decode(prompt, false),
              "<|im_start|>user\nsay the alphabet <|im_end|><|im_end|>\n<|im_start|>assistant\n");
    EXPECT_EQ(std::count(prompt.begin(), prompt.end(), llm::testing::kImEnd), 1);

    EngineOptions options;
    options.end_tokens = loaded.model->end_tokens;
    EngineCore core(std::move(loaded.backend), *loaded.model->tokenizer, options, [] { return 1.0; });
    core.add(greedy(1, prompt, 100));
    core.add(greedy(2, prompt, 5));
    Answers answers;
    std::vector<Event> events;
    while (core.has_work()) {
        ASSERT_TRUE(core.step(events));
    }
    take(events, answers);
    EXPECT_EQ(answers.text[1], "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    EXPECT_EQ(answers.finish[1], FinishReason::stop);
    EXPECT_EQ(answers.text[2], "ABCDE");
    EXPECT_EQ(answers.finish[2], FinishReason::length);
}

// Hermes has one template for chats and one, named "tool_use", for requests with tools.
TEST(LoadModel, RequestsWithToolsGetTheTemplateForTools) {
    const llm::testing::TempDir dir;
    llm::testing::write_copy_model(dir.path(), llm::testing::kByteVocab, 20);
    llm::testing::write_byte_tokenizer(dir.path());
    Json settings = Json::parse(std::ifstream(dir.path() + "/tokenizer_config.json"));
    settings["chat_template"] = Json::parse(R"([{"name": "default", "template": "{{ messages[0].content }}"},
        {"name": "tool_use", "template": "<tool_call>{{ tools[0].function.name }}"}])");
    std::ofstream(dir.path() + "/tokenizer_config.json") << settings.dump();

    const LoadedModel loaded = load_model(cpu_options(dir.path()));
    EXPECT_EQ(loaded.model->tool_format, ToolFormat::tags);
    const Json messages = Json::parse(R"([{"role":"user","content":"hello"}])");
    const Json tools = Json::parse(R"([{"type":"function","function":{"name":"look"}}])");
    const auto prompt = [&](const Json* with) {
        return loaded.model->tokenizer->decode(loaded.model->encode_chat(messages, with, nullptr, {}), false);
    };
    EXPECT_EQ(prompt(nullptr), "hello");
    EXPECT_EQ(prompt(&tools), "<tool_call>look");
}

// The model repeats what stood 20 positions before: a wrong slot, a stale block or a bad resume changes the
// text.
TEST(LoadModel, ACopyModelIsNotConfusedByBatchingPreemptionOrSharedPrefixes) {
    constexpr int32_t kDistance = 20;
    const llm::testing::TempDir dir;
    llm::testing::write_copy_model(dir.path(), llm::testing::kByteVocab, kDistance);
    llm::testing::write_byte_tokenizer(dir.path());
    Options asked = cpu_options(dir.path());
    asked.compute.kv_tokens = 320;  // two of the sequences below at their longest
    LoadedModel loaded = load_model(asked);
    EngineOptions options;
    options.max_running = 6;
    EngineCore core(std::move(loaded.backend), *loaded.model->tokenizer, options, [] { return 1.0; });

    std::map<uint64_t, std::string> expected;
    std::vector<Event> events;
    for (uint64_t id = 1; id <= 10; ++id) {
        std::string text = "the same beginning: ";
        for (int i = 0; i < kDistance + 1; ++i) {
            text += static_cast<char>('a' + (id * 7 + static_cast<uint64_t>(i) * id) % 26);
        }
        const std::vector<int32_t> prompt(text.begin(), text.end());
        for (int i = 0; i < 80; ++i) {
            text += text[text.size() - 1 - kDistance];
        }
        expected[id] = text.substr(prompt.size());
        Request request = greedy(id, prompt, 80);
        request.sampling.ignore_eos = true;
        request.priority_class = id % 3 == 0 ? 10 : 90;
        core.add(std::move(request));
        for (int i = 0; i < 18; ++i) {
            core.step(events);
        }
    }
    while (core.has_work()) {
        ASSERT_TRUE(core.step(events));
    }
    Answers answers;
    take(events, answers);
    EXPECT_EQ(answers.text, expected);
    EXPECT_GT(core.scheduler().preemptions(), 0u);
    EXPECT_GT(core.scheduler().prefix_hits(), 0u);
    EXPECT_EQ(core.scheduler().check(), "");
    EXPECT_EQ(core.scheduler().blocks().n_live(), 0);
}

TEST(LoadModel, NamesWhatIsWrongWithADirectory) {
    const llm::testing::TempDir dir;
    EXPECT_THROW(load_model(cpu_options(dir.path() + "/missing")), std::runtime_error);
    EXPECT_THROW(load_model(cpu_options(dir.path())), std::runtime_error);
}

TEST(ServedNames, AreTheLastPartOfTheDirectory) {
    EXPECT_EQ(served_names(cpu_options("/models/llama-3/")), std::vector<std::string>{"llama-3"});
    Options options = cpu_options("/models/x");
    options.served_names = {"a", "b"};
    EXPECT_EQ(served_names(options), (std::vector<std::string>{"a", "b"}));
}

}  // namespace
}  // namespace llm::engine

#endif
