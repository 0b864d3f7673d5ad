#include "engine_worker/server/special_text.hpp"

#include <algorithm>

namespace llm::engine {
namespace {

constexpr std::string_view kOpen = "\xEF\xB7\x90";   // U+FDD0
constexpr std::string_view kClose = "\xEF\xB7\x91";  // U+FDD1
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

SpecialText::SpecialText(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
        const std::string_view text = tokenizer.id_to_token(id);
        if (!text.empty() && tokenizer.is_special(id)) {
            by_first_byte_[static_cast<unsigned char>(text.front())].emplace_back(text);
        }
    }
    for (auto& list : by_first_byte_) {
        std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.size() > b.size(); });
    }
}

size_t SpecialText::special_length_at(std::string_view text) const {
    for (const std::string& special : by_first_byte_[static_cast<unsigned char>(text.front())]) {
        if (text.substr(0, special.size()) == special) {
            return special.size();
        }
    }
    return 0;
}

std::string SpecialText::mark(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    while (!text.empty()) {
        if (text.substr(0, kOpen.size()) == kOpen || text.substr(0, kClose.size()) == kClose) {
            out += kReplacement;
            text.remove_prefix(kOpen.size());
        } else if (const size_t length = special_length_at(text); length > 0) {
            out += kOpen;
            out += text.substr(0, length);
            out += kClose;
            text.remove_prefix(length);
        } else {
            out += text.front();
            text.remove_prefix(1);
        }
    }
    return out;
}

std::vector<int32_t> SpecialText::encode(std::string_view rendered, size_t most) const {
    std::vector<int32_t> ids;
    const auto add = [&](std::string_view text, bool parse_special) {
        if (text.empty() || ids.size() > most) {
            return;
        }
        // The template has written what the model needs at the start: nothing is added.
        const auto part = tokenizer_.encode(
            text, {.add_special = false, .parse_special = parse_special, .most = most - ids.size()});
        ids.insert(ids.end(), part.begin(), part.end());
    };
    while (!rendered.empty() && ids.size() <= most) {
        const size_t open = std::min(rendered.find(kOpen), rendered.size());
        add(rendered.substr(0, open), true);
        rendered.remove_prefix(std::min(open + kOpen.size(), rendered.size()));
        const size_t close = std::min(rendered.find(kClose), rendered.size());
        add(rendered.substr(0, close), false);
        rendered.remove_prefix(std::min(close + kClose.size(), rendered.size()));
    }
    return ids;
}

}  // namespace llm::engine
