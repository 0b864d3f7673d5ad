#include "ngx_module/core/text/event_pattern.hpp"

#include <cstring>

#include "ngx_module/core/text/string_skip.hpp"

namespace llm::core {
namespace {

// The closing quote of the string whose inside begins at `p`; nullptr if there is a bare control byte or no
// end.
const char* closing_quote(const char* p, const char* end) {
    for (;;) {
        p = find_text_end(p, end);
        if (p == end) {
            return nullptr;
        }
        if (*p == '"') {
            return p;
        }
        if (*p != '\\' || end - p < 2 || static_cast<uint8_t>(p[1]) < 0x20) {
            return nullptr;
        }
        p += 2;
    }
}

}  // namespace

void EventPattern::learn(std::string_view event, size_t text) {
    forget();
    const char* const end = event.data() + event.size();
    const char* const quote = closing_quote(event.data() + text, end);
    // a string with anything else behind it is no value: what it means would depend on its text
    if (quote == nullptr || (quote[1] != ',' && quote[1] != '}') || event.back() != '\n') {
        return;
    }
    const auto behind = static_cast<size_t>(end - quote);
    if (text + behind > kCapacity) {
        return;
    }
    std::memcpy(bytes_, event.data(), text);
    std::memcpy(bytes_ + text, quote, behind);
    before_ = static_cast<uint16_t>(text);
    behind_ = static_cast<uint16_t>(behind);
}

size_t EventPattern::match(std::string_view bytes) const {
    // at least one byte of text
    if (before_ == 0 || bytes.size() < size_t{before_} + behind_ + 1 ||
        std::memcmp(bytes.data(), bytes_, before_) != 0) {
        return 0;
    }
    const char* const end = bytes.data() + bytes.size();
    const char* const text = bytes.data() + before_;
    const char* const quote = closing_quote(text, end);
    if (quote == nullptr || quote == text || end - quote < behind_ ||
        std::memcmp(quote, bytes_ + before_, behind_) != 0) {
        return 0;
    }
    return static_cast<size_t>(quote - bytes.data()) + behind_;
}

}  // namespace llm::core
