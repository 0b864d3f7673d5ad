#include "engine_worker/server/chat_output.hpp"

#include <algorithm>
#include <utility>

#include "engine_worker/server/bounded_json.hpp"

namespace llm::engine {
namespace {

constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr std::string_view kCall = "<tool_call>";
constexpr std::string_view kCallEnd = "</tool_call>";

std::string_view trimmed(std::string_view text) {
    const size_t first = text.find_first_not_of(kJsonSpace);
    if (first == std::string_view::npos) {
        return {};
    }
    return text.substr(first, text.find_last_not_of(kJsonSpace) - first + 1);
}

// Bytes at the end of `text` that are the beginning of `tag`, not all of it.
size_t partial_tag(std::string_view text, std::string_view tag) {
    for (size_t n = std::min(text.size(), tag.size() - 1); n > 0; --n) {
        if (text.substr(text.size() - n) == tag.substr(0, n)) {
            return n;
        }
    }
    return 0;
}

bool parse_call(std::string_view text, ToolCall& out) {
    using Json = nlohmann::ordered_json;
    const Json call = parse_bounded_json(text);
    if (!call.is_object() || !call.contains("name") || !call["name"].is_string()) {
        return false;
    }
    const char* key = call.contains("arguments") ? "arguments" : "parameters";
    const Json arguments = call.contains(key) ? call[key] : Json::object();
    if (!arguments.is_object() && !arguments.is_string()) {
        return false;
    }
    out.name = call["name"].get<std::string>();
    out.arguments = arguments.is_string() ? arguments.get<std::string>()
                                          : arguments.dump(-1, ' ', false, Json::error_handler_t::replace);
    return true;
}

}  // namespace

void ChatOutput::push(std::string_view text, ChatDelta& out) {
    held_ += text;
    while (!held_.empty() && step(out)) {
    }
}

// Decides about the beginning of the text; false: more is needed.
bool ChatOutput::begin(ChatDelta& out) {
    const size_t first = held_.find_first_not_of(kJsonSpace);
    if (first == std::string::npos) {
        return false;
    }
    const std::string_view text = std::string_view(held_).substr(first);
    if (state_ == State::start && text.substr(0, kThink.size()) == kThink) {
        held_.erase(0, first + kThink.size());
        state_ = State::thinking;
        return true;
    }
    if (state_ == State::start && text.size() < kThink.size() && kThink.substr(0, text.size()) == text) {
        return false;
    }
    const bool brace = text.front() == '{';
    if (state_ == State::answer) {
        held_.erase(0, first);  // the line breaks behind </think> belong to nobody
    }
    state_ = options_.tools && brace ? State::json : State::text;
    return true;
}

// Passes text on up to `tag`, which it swallows; true: the tag was there.
bool ChatOutput::until(std::string_view tag, State next, std::string& out) {
    const size_t at = held_.find(tag);
    if (at == std::string::npos) {
        const size_t keep = partial_tag(held_, tag);
        out.append(held_, 0, held_.size() - keep);
        held_.erase(0, held_.size() - keep);
        return false;
    }
    out.append(held_, 0, at);
    held_.erase(0, at + tag.size());
    state_ = next;
    return true;
}

// One move; false: nothing can be decided before more text comes.
bool ChatOutput::step(ChatDelta& out) {
    switch (state_) {
        case State::start:
        case State::answer:
            return begin(out);
        case State::thinking:
            return until(kThinkEnd, State::answer, out.reasoning);
        case State::text:
            if (!options_.tools) {
                out.content += held_;
                held_.clear();
                return false;
            }
            return until(kCall, State::call, out.content);
        case State::call:
        case State::json:
            return head(out);
        case State::arguments:
            return arguments(out);
        case State::call_rest: {  // the last brace, and what else a model puts there
            const size_t end = held_.find(kCallEnd);
            const size_t next = held_.find(kCall);  // some models close only the last of several calls
            if (end == next) {
                held_.erase(0,
                            held_.size() - std::max(partial_tag(held_, kCallEnd), partial_tag(held_, kCall)));
                return false;
            }
            held_.erase(0, end < next ? end + kCallEnd.size() : next + kCall.size());
            state_ = end < next ? State::after_call : State::call;
            return true;
        }
        case State::json_rest: {
            const size_t brace = held_.find('}');
            held_.erase(0, brace == std::string::npos ? brace : brace + 1);
            state_ = brace == std::string::npos ? state_ : State::after_call;
            return brace != std::string::npos;
        }
        case State::whole_call:
            return whole_call(out);
        case State::after_call: {
            const size_t first = held_.find_first_not_of(kJsonSpace);
            held_.erase(0, first);
            state_ = first == std::string::npos ? state_ : State::text;
            return first != std::string::npos;
        }
        case State::whole_json:
            return false;
    }
    return false;
}

// Decides whether a call begins here.
bool ChatOutput::head(ChatDelta& out) {
    tagged_ = state_ == State::call;
    CallHead head = read_call_head(held_);
    if (head.is == CallHead::Is::unknown) {
        return false;
    }
    if (head.is == CallHead::Is::other || (!tagged_ && !exists(head.name))) {
        state_ = tagged_ ? State::whole_call : State::whole_json;
        return true;
    }
    held_.erase(0, head.size);
    scan_ = {};
    state_ = State::arguments;
    wanted_ = ++n_calls_ == 1 || !options_.one_call;
    if (wanted_) {
        out.calls.push_back({std::move(head.name), {}});
    }
    return true;
}

bool ChatOutput::arguments(ChatDelta& out) {
    std::string piece;
    held_.erase(0, scan_.push(held_, piece));
    if (wanted_ && !piece.empty()) {
        if (out.calls.empty()) {
            out.calls.push_back({.name = {}, .arguments = {}, .continues = true});
        }
        out.calls.back().arguments += piece;
    }
    if (!scan_.ended()) {
        return false;
    }
    state_ = tagged_ ? State::call_rest : State::json_rest;
    return true;
}

bool ChatOutput::whole_call(ChatDelta& out) {
    const size_t end = held_.find(kCallEnd);
    if (end == std::string::npos) {
        return false;
    }
    const std::string json = held_.substr(0, end);
    held_.erase(0, end + kCallEnd.size());
    state_ = State::after_call;
    end_call(json, std::string(kCall) + json + std::string(kCallEnd), out);
    return true;
}

// Whether a whole text that looks like a call of `name` is one.
bool ChatOutput::exists(const std::string& name) const {
    const auto& names = options_.names;
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
}

void ChatOutput::end_call(std::string_view json, std::string_view raw, ChatDelta& out) {
    ToolCall call;
    if (!parse_call(trimmed(json), call)) {
        out.content += raw;
    } else if (++n_calls_ == 1 || !options_.one_call) {
        out.calls.push_back(std::move(call));
    }
}

void ChatOutput::end_text_call(std::string_view text, ChatDelta& out) {
    ToolCall call;
    if (parse_call(trimmed(text), call) && exists(call.name)) {
        out.calls.push_back(std::move(call));
    } else {
        out.content += text;
    }
}

void ChatOutput::finish(ChatDelta& out) {
    const std::string rest = std::exchange(held_, {});
    switch (state_) {
        case State::thinking:
            out.reasoning += rest;
            break;
        case State::call:
        case State::whole_call:  // some models end the text instead of closing the tag
            end_call(rest, std::string(kCall) + rest, out);
            break;
        case State::json:
        case State::whole_json:
            end_text_call(rest, out);
            break;
        case State::arguments:
        case State::call_rest:
        case State::json_rest:
        case State::after_call:
            break;
        case State::start:
        case State::answer:
        case State::text:
            out.content += rest;
            break;
    }
}

}  // namespace llm::engine
