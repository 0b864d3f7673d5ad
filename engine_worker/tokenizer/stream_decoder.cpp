#include "engine_worker/tokenizer/tokenizer.hpp"
#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {

std::string StreamDecoder::push(int32_t id) {
    pending_ += tokenizer_.token_bytes(id, first_);
    // A skipped special token leaves the next one first; a token whose only space was stripped does not.
    if (!tokenizer_.is_special(id) && !tokenizer_.id_to_token(id).empty())
        first_ = false;
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
