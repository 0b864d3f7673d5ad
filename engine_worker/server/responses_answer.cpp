#include "engine_worker/server/responses_answer.hpp"

#include <algorithm>
#include <iterator>
#include <span>
#include <utility>

#include "engine_worker/server/json_text.hpp"

namespace llm::engine {
namespace {

constexpr std::string_view kInProgress = "in_progress";
constexpr std::string_view kCompleted = "completed";
constexpr std::string_view kIncomplete = "incomplete";
constexpr std::string_view kEventEnd = "}\n\n";

}  // namespace

const ResponsesAnswer::Words& ResponsesAnswer::words_of(Item::Kind kind) {
    static constexpr Words kWords[] = {
        {"rs", "reasoning", "response.reasoning_text.delta", "response.reasoning_text.done"},
        {"msg", "message", "response.output_text.delta", "response.output_text.done"},
        {"fc", "function_call", "response.function_call_arguments.delta",
         "response.function_call_arguments.done"},
    };
    return kWords[static_cast<size_t>(kind)];
}

ResponsesAnswer::ResponsesAnswer(AnswerShape shape, const Request& request, std::string id, int64_t created,
                                 const Tokenizer& tokenizer)
    : Answer(std::move(shape), request, std::move(id), tokenizer), output_(shape_.output) {
    head_ = "{\"id\":";
    append_json_string(head_, id_);
    head_ += ",\"object\":\"response\",\"created_at\":" + std::to_string(created) + ",\"model\":";
    append_json_string(head_, shape_.model);
    head_ += ",\"temperature\":";
    append_json_number(head_, request.sampling.temperature);
    head_ += ",\"top_p\":";
    append_json_number(head_, request.sampling.top_p);
    head_ += ',' + shape_.response;
}

// ---- items ------------------------------------------------------------------------------------------------

void ResponsesAnswer::take(Event&& event) {
    ChatDelta delta;
    output_.push(event.text, delta);
    if (event.finish != FinishReason::none) {
        output_.finish(delta);
        finish_ = event.finish;
        --open_;
    }
    if (shape_.reasoning) {
        add(Item::Kind::reasoning, delta.reasoning);
    }
    size_t next = 0;
    if (!delta.calls.empty() && delta.calls.front().continues) {
        items_.back().text += delta.calls[next++].arguments;
    }
    add(Item::Kind::message, delta.content);
    for (; next < delta.calls.size(); ++next) {
        add(std::move(delta.calls[next]));
    }
    if (!event.logprobs.empty()) {
        take_logprobs(std::move(event.logprobs));
    }
    if (completion_tokens_ == 0) {
        cached_tokens_ = event.cached_tokens;
    }
    completion_tokens_ = event.completion_tokens;
    // An answer that ends of itself says something, if nothing: clients would ask again otherwise.
    if (finish_ == FinishReason::stop && (items_.empty() || items_.back().kind == Item::Kind::reasoning)) {
        begin(Item::Kind::message);
    }
}

// Ids are unique as long as the answer's own is.
ResponsesAnswer::Item& ResponsesAnswer::begin(Item::Kind kind) {
    Item& item = items_.emplace_back();
    item.kind = kind;
    item.id = std::string(words_of(kind).prefix) + id_.substr(id_.find('_')) + "_" +
              std::to_string(items_.size() - 1);
    return item;
}

void ResponsesAnswer::add(Item::Kind kind, std::string_view text) {
    if (text.empty()) {
        return;
    }
    if (items_.empty() || items_.back().kind != kind) {
        begin(kind);
    }
    items_.back().text += text;
}

void ResponsesAnswer::add(ToolCall&& call) {
    Item& item = begin(Item::Kind::call);
    item.name = std::move(call.name);
    item.text = std::move(call.arguments);
}

// Those of reasoning and calls have no place in a response. Text may be held back while it may still become
// one of these: its tokens wait for the message.
void ResponsesAnswer::take_logprobs(std::vector<TokenLogprob>&& entry) {
    early_.push_back(std::move(entry));
    if (items_.empty()) {
        return;
    }
    if (items_.back().kind == Item::Kind::message) {
        std::move(early_.begin(), early_.end(), std::back_inserter(items_.back().logprobs));
    }
    early_.clear();
}

// ---- streaming --------------------------------------------------------------------------------------------

void ResponsesAnswer::begin_event(std::string& out, std::string_view type) {
    out += "event: ";
    out += type;
    out += "\ndata: {\"type\":\"";
    out += type;
    out += "\",\"sequence_number\":" + std::to_string(events_++);
}

// About an item's text: with its place.
void ResponsesAnswer::begin_text_event(std::string& out, std::string_view type) {
    const Item& item = items_[at_];
    begin_event(out, type);
    out += ",\"item_id\":";
    append_json_string(out, item.id);
    out += ",\"output_index\":" + std::to_string(at_);
    out += item.kind == Item::Kind::call ? "" : ",\"content_index\":0";
}

// About an item as a whole.
void ResponsesAnswer::item_event(std::string& out, std::string_view type, std::string_view status) {
    begin_event(out, type);
    out += ",\"output_index\":" + std::to_string(at_) + ",\"item\":";
    write_item(out, at_, status);
    out += kEventEnd;
}

void ResponsesAnswer::part_event(std::string& out, std::string_view type, bool whole) {
    begin_text_event(out, type);
    out += ",\"part\":";
    write_part(out, items_[at_], whole);
    out += kEventEnd;
}

void ResponsesAnswer::response_event(std::string& out, std::string_view type, std::string_view status,
                                     const ApiError* error) {
    begin_event(out, type);
    out += ",\"response\":";
    write_response(out, status, error);
    out += kEventEnd;
}

void ResponsesAnswer::item_begins(std::string& out) {
    item_event(out, "response.output_item.added", kInProgress);
    if (items_[at_].kind != Item::Kind::call) {
        part_event(out, "response.content_part.added", false);
    }
}

void ResponsesAnswer::item_grows(std::string& out) {
    Item& item = items_[at_];
    if (item.sent == item.text.size() && item.sent_logprobs == item.logprobs.size()) {
        return;
    }
    begin_text_event(out, words_of(item.kind).delta);
    out += ",\"delta\":";
    append_json_string(out, std::string_view(item.text).substr(item.sent));
    if (item.kind == Item::Kind::message) {
        out += ",\"logprobs\":";
        write_logprobs(out, std::span(item.logprobs).subspan(item.sent_logprobs));
    }
    out += kEventEnd;
    item.sent = item.text.size();
    item.sent_logprobs = item.logprobs.size();
}

void ResponsesAnswer::item_ends(std::string& out) {
    const Item& item = items_[at_];
    begin_text_event(out, words_of(item.kind).done);
    if (item.kind == Item::Kind::call) {
        out += ",\"name\":";
        append_json_string(out, item.name);
        out += ",\"arguments\":";
    } else {
        out += ",\"text\":";
    }
    append_json_string(out, item.text);
    if (item.kind == Item::Kind::message) {
        out += ",\"logprobs\":";
        write_logprobs(out, item.logprobs);
    }
    out += kEventEnd;
    if (item.kind != Item::Kind::call) {
        part_event(out, "response.content_part.done", true);
    }
    item_event(out, "response.output_item.done", status_of(at_));
}

void ResponsesAnswer::drain(std::string& out) {
    if (events_ == 0) {
        response_event(out, "response.created", kInProgress);
        response_event(out, "response.in_progress", kInProgress);
    }
    while (at_ < items_.size()) {
        if (!std::exchange(begun_, true)) {
            item_begins(out);
        }
        item_grows(out);
        if (at_ + 1 == items_.size() && !complete()) {
            return;  // it may grow
        }
        item_ends(out);
        begun_ = false;
        ++at_;
    }
    if (complete()) {
        const bool cut = finish_ == FinishReason::length;
        response_event(out, cut ? "response.incomplete" : "response.completed",
                       cut ? kIncomplete : kCompleted);
    }
}

void ResponsesAnswer::fail(const ApiError& error, std::string& out) {
    response_event(out, "response.failed", "failed", &error);
}

// ---- whole answers ----------------------------------------------------------------------------------------

std::string ResponsesAnswer::json() const {
    std::string out;
    write_response(out, finish_ == FinishReason::length ? kIncomplete : kCompleted);
    return out;
}

// What ends the text early ends its last item.
std::string_view ResponsesAnswer::status_of(size_t item) const {
    const bool last = item + 1 == items_.size();
    return last && finish_ != FinishReason::stop ? kIncomplete : kCompleted;
}

// `whole`: else as it is before anything is in it.
void ResponsesAnswer::write_part(std::string& out, const Item& item, bool whole) const {
    const bool message = item.kind == Item::Kind::message;
    out += message ? "{\"type\":\"output_text\",\"text\":" : "{\"type\":\"reasoning_text\",\"text\":";
    append_json_string(out, whole ? item.text : "");
    if (message) {
        out += ",\"annotations\":[],\"logprobs\":";
        write_logprobs(out, std::span(item.logprobs).first(whole ? item.logprobs.size() : 0));
    }
    out += '}';
}

void ResponsesAnswer::write_item(std::string& out, size_t index, std::string_view status) const {
    const Item& item = items_[index];
    const bool whole = status != kInProgress;
    out += "{\"id\":";
    append_json_string(out, item.id);
    out += ",\"type\":";
    append_json_string(out, words_of(item.kind).type);
    out += ",\"status\":";
    append_json_string(out, status);
    if (item.kind == Item::Kind::call) {
        out += ",\"call_id\":";
        append_json_string(out, "call" + item.id.substr(item.id.find('_')));
        out += ",\"name\":";
        append_json_string(out, item.name);
        out += ",\"arguments\":";
        append_json_string(out, whole ? item.text : "");
    } else {
        out += item.kind == Item::Kind::message ? ",\"role\":\"assistant\",\"content\":["
                                                : ",\"summary\":[],\"content\":[";
        if (whole) {
            write_part(out, item, true);
        }
        out += ']';
    }
    out += '}';
}

// The one that begins a stream has neither items nor usage: they come one by one, and at the end.
void ResponsesAnswer::write_response(std::string& out, std::string_view status, const ApiError* error) const {
    out += head_;
    out += ",\"status\":";
    append_json_string(out, status);
    out += ",\"error\":";
    if (error == nullptr) {
        out += "null";
    } else {
        out += "{\"code\":\"server_error\",\"message\":";
        append_json_string(out, error->message);
        out += '}';
    }
    out += ",\"incomplete_details\":";
    out += status == kIncomplete ? "{\"reason\":\"max_output_tokens\"}" : "null";
    out += ",\"output\":[";
    const bool begins = status == kInProgress;
    for (size_t i = 0; i < items_.size() && !begins; ++i) {
        out += i == 0 ? "" : ",";
        write_item(out, i, status_of(i));
    }
    out += "],\"usage\":";
    if (complete() && !begins) {
        write_usage(out);
    } else {
        out += "null";
    }
    out += '}';
}

void ResponsesAnswer::write_usage(std::string& out) const {
    out += "{\"input_tokens\":" + std::to_string(prompt_tokens_);
    out += ",\"input_tokens_details\":{\"cached_tokens\":" + std::to_string(cached_tokens_);
    out += ",\"cache_write_tokens\":0},\"output_tokens\":" + std::to_string(completion_tokens_);
    out += ",\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":";
    out += std::to_string(prompt_tokens_ + completion_tokens_) + '}';
}

}  // namespace llm::engine
