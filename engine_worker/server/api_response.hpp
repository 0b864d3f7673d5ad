// Answers of chats, completions and embeddings.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/server/answer.hpp"
#include "engine_worker/server/chat_output.hpp"

namespace llm::engine {

// Streaming: one chunk per choice and drain(); with the last choice's end also the usage, if asked for, and "[DONE]".
class CompletionAnswer final : public Answer {
  public:
    // `created` in seconds since 1970.
    CompletionAnswer(AnswerShape shape, const Request& request, std::string id, int64_t created,
                     const Tokenizer& tokenizer);

    void take(Event&& event) override;
    void drain(std::string& out) override;
    std::string json() const override;

  private:
    struct Choice {
        explicit Choice(const ChatOutput::Options& options) : output(options) {}

        ChatOutput output;  // chats only
        // All of it, or what is not drained yet (streaming).
        std::string text;
        std::vector<float> embedding;
        std::string reasoning;
        std::vector<ToolCall> calls;
        int32_t n_calls = 0;                              // before `calls`, drained already
        std::vector<std::vector<TokenLogprob>> logprobs;  // likewise
        FinishReason finish = FinishReason::none;
        bool started = false;  // its first chunk (chat: the role) is out
        bool ended = false;    // its last chunk is out
        bool touched = false;  // listed in touched_
        bool scored = false;   // `logprobs` has got the prompt's
        int32_t completion_tokens = 0;
        int64_t text_offset = 0;  // characters before the first of `logprobs` (completions)
    };

    void take_scores(Choice& choice, Event& event);
    void chunk_head(std::string& out, size_t index) const;
    void drain_choice(std::string& out, size_t index);
    std::string_view finish_text(const Choice& choice) const;
    void write_message(std::string& out, size_t index) const;
    void write_calls(std::string& out, size_t index) const;
    void write_chat_logprobs(std::string& out, const Choice& choice) const;
    void write_completion_logprobs(std::string& out, const Choice& choice, int64_t offset) const;
    void write_usage(std::string& out) const;
    std::string embeddings_json() const;
    int64_t characters(const Choice& choice) const;

    std::string head_;  // {"id":…,"object":…,"created":…,"model":…,
    int32_t n_per_prompt_;
    std::vector<int32_t> scored_;  // each prompt's first token, if prompts are scored
    std::vector<Choice> choices_;
    std::vector<size_t> touched_;
    bool done_ = false;
};

}  // namespace llm::engine
