// The answer to a generation request, as its endpoint writes it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/scheduler/request.hpp"
#include "engine_worker/server/api_error.hpp"
#include "engine_worker/server/api_request.hpp"
#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

// Collects one request's events and writes them down. Streaming: take() the events, then drain() whenever the
// client has room; what piled up meanwhile goes out as one.
class Answer {
  public:
    virtual ~Answer() = default;
    Answer(const Answer&) = delete;
    Answer& operator=(const Answer&) = delete;

    const AnswerShape& shape() const { return shape_; }
    virtual void take(Event&& event) = 0;  // not one with FinishReason::failed
    bool complete() const { return open_ == 0; }
    int64_t open() const { return static_cast<int64_t>(open_); }  // choices that have not ended

    // Server-sent events for everything taken since the last call; the last ones when complete().
    virtual void drain(std::string& out) = 0;
    // The event that ends a stream before it is complete.
    virtual void fail(const ApiError& error, std::string& out);

    virtual std::string json() const = 0;  // the whole answer; complete() only

  protected:
    // `tokenizer` must outlive this object.
    Answer(AnswerShape shape, const Request& request, std::string id, const Tokenizer& tokenizer);

    std::string token_text(int32_t token) const;
    std::string token_name(int32_t token) const;
    // Chats: an array of tokens, each with the best ones in its place.
    void write_logprobs(std::string& out, std::span<const std::vector<TokenLogprob>> entries) const;

    AnswerShape shape_;
    const Tokenizer& tokenizer_;
    std::string id_;
    int32_t prompt_tokens_ = 0;
    int32_t cached_tokens_ = 0;
    size_t open_;

  private:
    void write_token(std::string& out, const TokenLogprob& token) const;
};

}  // namespace llm::engine
