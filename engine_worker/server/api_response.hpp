// Answers of the generation endpoints: one JSON object, or server-sent events.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/scheduler/request.hpp"
#include "engine_worker/server/api_request.hpp"
#include "engine_worker/server/chat_output.hpp"
#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

// Collects one request's events and writes them down. Streaming: take() the events, then drain() whenever the
// client has room; what piled up meanwhile becomes one chunk per choice.
class Answer {
  public:
    // `tokenizer` must outlive this object. `created` in seconds since 1970.
    Answer(AnswerShape shape, const Request& request, std::string id, int64_t created,
           const Tokenizer& tokenizer);

    const AnswerShape& shape() const { return shape_; }
    void take(Event&& event);  // not one with FinishReason::failed
    bool complete() const { return open_ == 0; }
    int64_t open() const { return static_cast<int64_t>(open_); }  // choices that have not ended

    // Server-sent events for everything taken since the last call; with the last choice's end also the usage,
    // if asked for, and "[DONE]".
    void drain(std::string& out);

    std::string json() const;  // the whole answer; complete() only

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
    void write_token(std::string& out, const TokenLogprob& token) const;
    void write_usage(std::string& out) const;
    std::string embeddings_json() const;
    std::string token_text(int32_t token) const;
    std::string token_name(int32_t token) const;
    int64_t characters(const Choice& choice) const;

    AnswerShape shape_;
    const Tokenizer& tokenizer_;
    std::string id_;
    std::string head_;  // {"id":…,"object":…,"created":…,"model":…,
    int32_t n_per_prompt_;
    std::vector<int32_t> scored_;  // each prompt's first token, if prompts are scored
    int32_t prompt_tokens_ = 0;
    int32_t cached_tokens_ = 0;
    std::vector<Choice> choices_;
    std::vector<size_t> touched_;
    size_t open_;
    bool done_ = false;
};

// Appends `text` as a JSON string; bytes that are not UTF-8 become U+FFFD.
void append_json_string(std::string& out, std::string_view text);

}  // namespace llm::engine
