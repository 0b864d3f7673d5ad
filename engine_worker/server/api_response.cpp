#include "engine_worker/server/api_response.hpp"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "engine_worker/server/json_text.hpp"

namespace llm::engine {
namespace {

std::string_view reason_text(FinishReason reason) {
    switch (reason) {
        case FinishReason::stop:
            return "\"stop\"";
        case FinishReason::length:
            return "\"length\"";
        case FinishReason::none:
        case FinishReason::failed:
            break;
    }
    return "null";
}

}  // namespace

CompletionAnswer::CompletionAnswer(AnswerShape shape, const Request& request, std::string id, int64_t created,
                                   const Tokenizer& tokenizer)
    : Answer(std::move(shape), request, std::move(id), tokenizer),
      n_per_prompt_(request.n),
      choices_(open_, Choice(shape_.output)) {
    if (request.sampling.score_prompts) {
        for (const auto& prompt : request.prompts) {
            scored_.push_back(prompt.front());
        }
    }
    const std::string_view object = !shape_.chat    ? "text_completion"
                                    : shape_.stream ? "chat.completion.chunk"
                                                    : "chat.completion";
    head_ = "{\"id\":";
    append_json_string(head_, id_);
    head_ += ",\"object\":\"";
    head_ += object;
    head_ += "\",\"created\":" + std::to_string(created) + ",\"model\":";
    append_json_string(head_, shape_.model);
    head_ += ',';
    for (size_t i = 0; i < shape_.echo.size(); ++i) {
        for (int32_t c = 0; c < n_per_prompt_; ++c) {
            choices_[i * static_cast<size_t>(n_per_prompt_) + static_cast<size_t>(c)].text = shape_.echo[i];
        }
    }
}

void CompletionAnswer::take(Event&& event) {
    Choice& choice = choices_[static_cast<size_t>(event.choice)];
    choice.embedding = std::move(event.embedding);
    if (shape_.chat) {
        ChatDelta delta;
        choice.output.push(event.text, delta);
        if (event.finish != FinishReason::none) {
            choice.output.finish(delta);
        }
        if (shape_.reasoning) {
            choice.reasoning += delta.reasoning;
        }
        choice.text += delta.content;
        for (ToolCall& call : delta.calls) {
            if (call.continues && !choice.calls.empty()) {
                choice.calls.back().arguments += call.arguments;
            } else {
                choice.calls.push_back(std::move(call));
            }
        }
    } else {
        if (!shape_.only_echo) {
            choice.text += event.text;
        }
    }
    take_scores(choice, event);
    if (!event.logprobs.empty() && !shape_.only_echo) {
        choice.logprobs.push_back(std::move(event.logprobs));
    }
    // Choices of one prompt share it: what the later ones found in the cache is the first one's work.
    if (choice.completion_tokens == 0 && event.choice % n_per_prompt_ == 0) {
        cached_tokens_ += event.cached_tokens;
    }
    choice.completion_tokens = shape_.only_echo ? 0 : event.completion_tokens;
    if (event.finish != FinishReason::none) {
        choice.finish = shape_.only_echo ? FinishReason::length : event.finish;
        --open_;
    }
    if (!choice.touched) {
        choice.touched = true;
        touched_.push_back(static_cast<size_t>(event.choice));
    }
}

// The first token of a prompt follows nothing: it has no probability.
void CompletionAnswer::take_scores(Choice& choice, Event& event) {
    if (scored_.empty() || std::exchange(choice.scored, true)) {
        return;
    }
    const int32_t first = scored_[static_cast<size_t>(event.choice / n_per_prompt_)];
    choice.logprobs.push_back({{first, std::numeric_limits<float>::quiet_NaN()}});
    std::move(event.prompt_logprobs.begin(), event.prompt_logprobs.end(),
              std::back_inserter(choice.logprobs));
}

// ---- streaming --------------------------------------------------------------------------------------------

void CompletionAnswer::drain(std::string& out) {
    for (const size_t index : touched_) {
        choices_[index].touched = false;
        drain_choice(out, index);
    }
    touched_.clear();
    if (!complete() || done_) {
        return;
    }
    done_ = true;
    if (shape_.include_usage) {
        out += "data: " + head_ + "\"choices\":[],\"usage\":";
        write_usage(out);
        out += "}\n\n";
    }
    out += "data: [DONE]\n\n";
}

void CompletionAnswer::chunk_head(std::string& out, size_t index) const {
    out += "data: ";
    out += head_;
    out += "\"choices\":[{\"index\":";
    out += std::to_string(index);
}

void CompletionAnswer::drain_choice(std::string& out, size_t index) {
    Choice& choice = choices_[index];
    // Clients that asked for the usage find the field in every chunk, null but in the last.
    std::string tail = "}]}\n\n";
    if (shape_.include_usage) {
        tail = "}],\"usage\":";
        shape_.continuous_usage ? write_usage(tail) : static_cast<void>(tail += "null");
        tail += "}\n\n";
    }
    if (shape_.chat && !choice.started) {
        chunk_head(out, index);
        out +=
            ",\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null";
        out += tail;
    }
    choice.started = true;
    const bool ends = choice.finish != FinishReason::none && !choice.ended;
    if (!choice.reasoning.empty()) {
        chunk_head(out, index);
        out += ",\"delta\":{\"reasoning_content\":";
        append_json_string(out, choice.reasoning);
        out += "},\"logprobs\":null,\"finish_reason\":null";
        out += tail;
        choice.reasoning.clear();
    }
    // Text that goes out with the end of a completion shares its chunk; a chat's end has an empty delta.
    if (!choice.text.empty() || !choice.logprobs.empty() || (ends && !shape_.chat)) {
        chunk_head(out, index);
        out += shape_.chat ? ",\"delta\":{\"content\":" : ",\"text\":";
        append_json_string(out, choice.text);
        out += shape_.chat ? "},\"logprobs\":" : ",\"logprobs\":";
        if (!shape_.logprobs || choice.logprobs.empty()) {
            out += "null";
        } else if (shape_.chat) {
            write_chat_logprobs(out, choice);
        } else {
            write_completion_logprobs(out, choice, choice.text_offset);
            choice.text_offset += characters(choice);
        }
        out += ",\"finish_reason\":";
        out += shape_.chat ? "null" : finish_text(choice);
        out += tail;
        choice.text.clear();
        choice.logprobs.clear();
    }
    if (!choice.calls.empty()) {
        chunk_head(out, index);
        out += ",\"delta\":{\"tool_calls\":";
        write_calls(out, index);
        out += "},\"logprobs\":null,\"finish_reason\":null";
        out += tail;
        choice.n_calls +=
            static_cast<int32_t>(choice.calls.size()) - (choice.calls.front().continues ? 1 : 0);
        choice.calls.clear();
    }
    if (ends && shape_.chat) {
        chunk_head(out, index);
        out += ",\"delta\":{},\"logprobs\":null,\"finish_reason\":";
        out += finish_text(choice);
        out += tail;
    }
    choice.ended = choice.ended || ends;
}

// ---- whole answers ----------------------------------------------------------------------------------------

std::string CompletionAnswer::json() const {
    if (shape_.embeddings) {
        return embeddings_json();
    }
    std::string out = head_ + "\"choices\":[";
    for (size_t i = 0; i < choices_.size(); ++i) {
        const Choice& choice = choices_[i];
        out += i == 0 ? "{\"index\":" : ",{\"index\":";
        out += std::to_string(i);
        if (shape_.chat) {
            write_message(out, i);
        } else {
            out += ",\"text\":";
            append_json_string(out, choice.text);
        }
        out += ",\"logprobs\":";
        if (!shape_.logprobs) {
            out += "null";
        } else if (shape_.chat) {
            write_chat_logprobs(out, choice);
        } else {
            write_completion_logprobs(out, choice, 0);
        }
        out += ",\"finish_reason\":";
        out += finish_text(choice);
        out += '}';
    }
    out += "],\"usage\":";
    write_usage(out);
    out += '}';
    return out;
}

void CompletionAnswer::write_message(std::string& out, size_t index) const {
    const Choice& choice = choices_[index];
    out += ",\"message\":{\"role\":\"assistant\",\"content\":";
    if (choice.text.empty() && !choice.calls.empty()) {
        out += "null";
    } else {
        append_json_string(out, choice.text);
    }
    out += ",\"refusal\":null";
    if (!choice.reasoning.empty()) {
        out += ",\"reasoning_content\":";
        append_json_string(out, choice.reasoning);
    }
    if (!choice.calls.empty()) {
        out += ",\"tool_calls\":";
        write_calls(out, index);
    }
    out += '}';
}

// Ids are unique as long as the answer's own is: answer, choice and number of the call. What continues a call
// that is out already has its number and more arguments, nothing else.
void CompletionAnswer::write_calls(std::string& out, size_t index) const {
    const Choice& choice = choices_[index];
    const std::string prefix = "call-" + id_.substr(id_.find('-') + 1) + "-" + std::to_string(index) + "-";
    out += '[';
    size_t next = static_cast<size_t>(choice.n_calls) - (choice.calls.front().continues ? 1 : 0);
    for (const ToolCall& call : choice.calls) {
        const std::string number = std::to_string(next++);
        out += out.back() == '[' ? "{" : ",{";
        out += shape_.stream ? "\"index\":" + number + "," : "";
        if (!call.continues) {
            out += "\"id\":";
            append_json_string(out, prefix + number);
            out += ",\"type\":\"function\",";
        }
        out += "\"function\":{";
        if (!call.continues) {
            out += "\"name\":";
            append_json_string(out, call.name);
            out += ',';
        }
        out += "\"arguments\":";
        append_json_string(out, call.arguments);
        out += "}}";
    }
    out += ']';
}

std::string_view CompletionAnswer::finish_text(const Choice& choice) const {
    const bool calls = choice.n_calls > 0 || !choice.calls.empty();
    return calls && choice.finish == FinishReason::stop ? "\"tool_calls\"" : reason_text(choice.finish);
}

void CompletionAnswer::write_usage(std::string& out) const {
    int32_t completion = 0;
    for (const Choice& choice : choices_) {
        completion += choice.completion_tokens;
    }
    out += "{\"prompt_tokens\":" + std::to_string(prompt_tokens_);
    out += ",\"completion_tokens\":" + std::to_string(completion);
    out += ",\"total_tokens\":" + std::to_string(prompt_tokens_ + completion);
    out += ",\"prompt_tokens_details\":{\"cached_tokens\":" + std::to_string(cached_tokens_) + "}}";
}

// ---- logprobs ---------------------------------------------------------------------------------------------

void CompletionAnswer::write_chat_logprobs(std::string& out, const Choice& choice) const {
    out += "{\"content\":";
    write_logprobs(out, choice.logprobs);
    out += ",\"refusal\":null}";
}

void CompletionAnswer::write_completion_logprobs(std::string& out, const Choice& choice, int64_t offset) const {
    std::string tokens, logprobs, top, offsets;
    for (const auto& entry : choice.logprobs) {
        const std::string_view comma = tokens.empty() ? "" : ",";
        const std::string text = token_text(entry.front().token);
        tokens += comma;
        append_json_string(tokens, token_name(entry.front().token));
        const bool unknown = std::isnan(entry.front().logprob);
        logprobs += comma;
        unknown ? static_cast<void>(logprobs += "null") : append_json_number(logprobs, entry.front().logprob);
        offsets += comma;
        offsets += std::to_string(offset);
        offset += std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
        top += comma;
        if (unknown) {
            top += "null";
            continue;
        }
        top += '{';
        // The best ones, and the token itself where it is not among them. An object has each key once: of
        // tokens that look the same the best one stays.
        std::vector<std::string> seen;
        const auto add = [&](const TokenLogprob& token) {
            std::string key;
            append_json_string(key, token_name(token.token));
            if (std::find(seen.begin(), seen.end(), key) == seen.end()) {
                top += seen.empty() ? "" : ",";
                top += key + ":";
                append_json_number(top, token.logprob);
                seen.push_back(std::move(key));
            }
        };
        std::for_each(entry.begin() + 1, entry.end(), add);
        add(entry.front());
        top += '}';
    }
    out += "{\"tokens\":[" + tokens + "],\"token_logprobs\":[" + logprobs + "],\"top_logprobs\":[" + top +
           "],\"text_offset\":[" + offsets + "]}";
}

int64_t CompletionAnswer::characters(const Choice& choice) const {
    int64_t n = 0;
    for (const auto& entry : choice.logprobs) {
        const std::string text = token_text(entry.front().token);
        n += std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; });
    }
    return n;
}

}  // namespace llm::engine
