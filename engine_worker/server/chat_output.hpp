// Takes a chat model's text apart: what it thought, what it says, which tools it calls.
//
//   <think>…</think> at the start                        reasoning (DeepSeek-R1, Qwen3 and many others)
//   <tool_call>{"name":…,"arguments":{…}}</tool_call>    a call (Hermes, Qwen); any number, anywhere
//   {"name":…,"parameters":{…}} as the whole text        a call (Llama 3.1)
//
// Calls are only looked for when the request offers tools. What looks like one but is none stays text; what
// has begun with a name and an object of arguments is one: its arguments are passed on while they are
// written, and they may end before they are whole, with the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/server/tool_call_scan.hpp"

namespace llm::engine {

struct ToolCall {
    std::string name;
    std::string arguments;   // JSON text
    bool continues = false;  // more arguments of the call before; no name
};

// New parts of a message, to be appended to what is there.
struct ChatDelta {
    std::string reasoning;
    std::string content;
    std::vector<ToolCall> calls;
};

class ChatOutput {
  public:
    struct Options {
        bool tools = false;     // look for calls
        bool one_call = false;  // drop all but the first
        bool thinking = false;  // the prompt has opened <think> already
        // Functions that exist, for whole texts that look like a call: {"name":"Ada"} may be just an answer.
        std::vector<std::string> names = {};  // empty: any name will do
    };
    explicit ChatOutput(const Options& options)
        : options_(options), state_(options.thinking ? State::thinking : State::start) {}

    // Takes the next piece of text; what may still become a tag is held back. Amortised O(text).
    void push(std::string_view text, ChatDelta& out);
    // The text is complete.
    void finish(ChatDelta& out);

  private:
    enum class State : uint8_t {
        start,   // nothing but white space yet; <think> may come
        answer,  // the same, behind the reasoning
        thinking,
        text,
        call,        // behind <tool_call>: what follows is not known yet
        json,        // the whole text may be one call: likewise
        arguments,   // of a call
        call_rest,   // behind them, before </tool_call>
        json_rest,   // behind them, before the brace that ends the call
        whole_call,  // behind <tool_call>: only the whole tells
        whole_json,  // the whole text may be one call: only the whole tells
        after_call,  // only white space since
    };

    bool step(ChatDelta& out);
    bool begin(ChatDelta& out);
    bool until(std::string_view tag, State next, std::string& out);
    bool head(ChatDelta& out);
    bool arguments(ChatDelta& out);
    bool whole_call(ChatDelta& out);
    void end_text_call(std::string_view text, ChatDelta& out);
    void end_call(std::string_view json, std::string_view raw, ChatDelta& out);
    bool exists(const std::string& name) const;

    Options options_;
    State state_;
    std::string held_;
    size_t n_calls_ = 0;
    // The call whose arguments are being written.
    ArgumentsScan scan_;
    bool tagged_ = false;  // behind <tool_call>
    bool wanted_ = false;  // false: one too many
};

}  // namespace llm::engine
