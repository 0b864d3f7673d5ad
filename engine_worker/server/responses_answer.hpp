// Answers of POST /v1/responses.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/server/answer.hpp"
#include "engine_worker/server/chat_output.hpp"

namespace llm::engine {

// What the model has written becomes items: its reasoning, a message, calls, in their order. A stream tells
// of each item when it begins, while it grows and when it is whole, and of all of them again with its last
// event.
class ResponsesAnswer final : public Answer {
  public:
    // `created` in seconds since 1970; `request` has one prompt and one choice.
    ResponsesAnswer(AnswerShape shape, const Request& request, std::string id, int64_t created,
                    const Tokenizer& tokenizer);

    void take(Event&& event) override;
    void drain(std::string& out) override;
    void fail(const ApiError& error, std::string& out) override;
    std::string json() const override;

  private:
    using Logprobs = std::vector<std::vector<TokenLogprob>>;

    struct Item {
        enum class Kind : uint8_t { reasoning, message, call } kind = Kind::message;
        std::string id;
        std::string name;   // of the function that is called
        std::string text;   // a call's: the arguments
        Logprobs logprobs;  // a message's
        size_t sent = 0;    // bytes of the text that the stream has
        size_t sent_logprobs = 0;
    };

    // What a kind of item is called.
    struct Words {
        std::string_view prefix;  // of its id
        std::string_view type;
        std::string_view delta;  // the event of more text
        std::string_view done;   // ... of all of it
    };
    static const Words& words_of(Item::Kind kind);

    Item& begin(Item::Kind kind);
    void add(Item::Kind kind, std::string_view text);
    void add(ToolCall&& call);
    void take_logprobs(std::vector<TokenLogprob>&& entry);

    void begin_event(std::string& out, std::string_view type);
    void begin_text_event(std::string& out, std::string_view type);
    void item_event(std::string& out, std::string_view type, std::string_view status);
    void part_event(std::string& out, std::string_view type, bool whole);
    void response_event(std::string& out, std::string_view type, std::string_view status,
                        const ApiError* error = nullptr);
    void item_begins(std::string& out);
    void item_grows(std::string& out);
    void item_ends(std::string& out);

    std::string_view status_of(size_t item) const;
    void write_part(std::string& out, const Item& item, bool whole) const;
    void write_item(std::string& out, size_t index, std::string_view status) const;
    void write_response(std::string& out, std::string_view status, const ApiError* error = nullptr) const;
    void write_usage(std::string& out) const;

    std::string head_;  // {"id":…,"object":"response","created_at":…,"model":… and what repeats the request
    ChatOutput output_;
    std::vector<Item> items_;
    Logprobs early_;  // of tokens before the first item
    FinishReason finish_ = FinishReason::none;
    int32_t completion_tokens_ = 0;
    // Of a stream.
    uint64_t events_ = 0;  // so far
    size_t at_ = 0;        // the item whose end is not out
    bool begun_ = false;   // its beginning is
};

}  // namespace llm::engine
