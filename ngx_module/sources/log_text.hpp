// Text from outside in log lines.
#pragma once

#include <string>
#include <string_view>

namespace llm::nginx::sources {

// `text` as it may stand in a log line: control characters become '?', and it ends after `limit` bytes.
inline std::string printable(std::string_view text, size_t limit = 128) {
    std::string out(text.substr(0, limit));
    for (char& c : out) {
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
            c = '?';
        }
    }
    return out;
}

}  // namespace llm::nginx::sources
