#include "engine_worker/scheduler/text_output.hpp"

#include <algorithm>
#include <string_view>

namespace llm::engine {
namespace {

// Length of the longest end of `text` that is a beginning (not the whole) of a stop string.
size_t possible_stop(std::string_view text, const std::vector<std::string>& stops) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
        for (size_t n = std::min(stop.size() - 1, text.size()); n > longest; --n) {
            if (text.substr(text.size() - n) == std::string_view(stop).substr(0, n)) {
                longest = n;
            }
        }
    }
    return longest;
}

}  // namespace

TextOutput::TextOutput(const Tokenizer& tokenizer, const std::vector<std::string>& stops, bool include_stop,
                       int32_t min_tokens, std::span<const int32_t> prompt)
    : decoder_(tokenizer, prompt), stops_(stops), include_stop_(include_stop), free_tokens_(min_tokens) {}

bool TextOutput::push(int32_t token, std::string& out) {
    if (free_tokens_ > 0) {
        --free_tokens_;
        out += decoder_.push(token);
        return false;
    }
    return take(decoder_.push(token), out);
}

bool TextOutput::finish(std::string& out) {
    const bool stopped = take(decoder_.flush(), out);
    if (!stopped) {
        out += held_;
    }
    held_.clear();
    return stopped;
}

bool TextOutput::take(std::string text, std::string& out) {
    if (stops_.empty()) {
        out += text;
        return false;
    }
    held_ += text;
    size_t at = std::string::npos;
    size_t length = 0;
    for (const std::string& stop : stops_) {
        const size_t found = held_.find(stop);
        if (found < at) {
            at = found;
            length = stop.size();
        }
    }
    if (at != std::string::npos) {
        out.append(held_, 0, at + (include_stop_ ? length : 0));
        held_.clear();
        return true;
    }
    const size_t keep = possible_stop(held_, stops_);
    out.append(held_, 0, held_.size() - keep);
    held_.erase(0, held_.size() - keep);
    return false;
}

}  // namespace llm::engine
