#include <algorithm>

#include "engine_worker/tokenizer/tokenizer.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, std::span<const int32_t> before)
    : tokenizer_(tokenizer),
      first_(std::none_of(before.begin(), before.end(), [this](int32_t id) { return begins_text(id); })) {}

// A skipped special token leaves the next one first; a token whose only space was stripped does not.
bool StreamDecoder::begins_text(int32_t id) const {
    return !tokenizer_.is_special(id) && !tokenizer_.id_to_token(id).empty();
}

std::string StreamDecoder::push(int32_t id) {
    pending_ += tokenizer_.token_bytes(id, first_);
    first_ = first_ && !begins_text(id);
    const size_t ready = pending_.size() - unicode::incomplete_tail(pending_);
    std::string text = pending_.substr(0, ready);
    pending_.erase(0, ready);
    return unicode::is_valid_utf8(text) ? text : unicode::to_valid_utf8(text);
}

std::string StreamDecoder::flush() {
    std::string text = unicode::to_valid_utf8(pending_);
    pending_.clear();
    first_ = true;
    return text;
}

}  // namespace llm::engine
