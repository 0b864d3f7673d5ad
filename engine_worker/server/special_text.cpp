#include "engine_worker/server/special_text.hpp"

#include <algorithm>

namespace llm::engine {
namespace {

constexpr std::string_view kOpen = "\xEF\xB7\x90";   // U+FDD0
constexpr std::string_view kClose = "\xEF\xB7\x91";  // U+FDD1
constexpr std::string_view kLineBreak = "\n";
constexpr Tokenizer::EncodeOptions kBare{.add_special = false, .parse_special = false};
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

}  // namespace

SpecialText::SpecialText(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {
    for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
        if (tokenizer.is_special(id)) {
            AddedToken& token = special_.emplace_back();
            token.id = id;
            token.spelling = tokenizer.id_to_token(id);
        }
    }
    for (const AddedToken& token : special_) {
        matcher_.add(token);
    }
    line_break_ = tokenizer.encode(kLineBreak, kBare);
    adds_blank_ = tokenizer.encode("a", kBare) != encode_behind_line_break("a", kBare);
}

std::vector<int32_t> SpecialText::encode_behind_line_break(std::string_view text,
                                                           Tokenizer::EncodeOptions options) const {
    options.most += options.most < SIZE_MAX - line_break_.size() ? line_break_.size() : 0;
    std::vector<int32_t> ids = tokenizer_.encode(std::string(kLineBreak) + std::string(text), options);
    if (!std::equal(line_break_.begin(), line_break_.end(), ids.begin(),
                    ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), line_break_.size())))) {
        return {};  // the break has become one token with what follows
    }
    ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(line_break_.size()));
    return ids;
}

// A blank at its beginning would be one too many: behind a line break there is none. (transformers does the
// same.)
std::vector<int32_t> SpecialText::encode_inside(std::string_view text,
                                                const Tokenizer::EncodeOptions& options) const {
    std::vector<int32_t> ids;
    if (adds_blank_) {
        ids = encode_behind_line_break(text, options);
    }
    return ids.empty() ? tokenizer_.encode(text, options) : ids;
}

std::string SpecialText::mark(std::string_view text) const {
    std::vector<AddedTokenMatcher::Segment> segments;
    matcher_.split(text, false, segments);
    std::string out;
    out.reserve(text.size());
    for (const auto& segment : segments) {
        if (segment.token != nullptr) {
            out.append(kOpen).append(segment.text).append(kClose);
            continue;
        }
        const size_t from = out.size();
        out += segment.text;
        for (const std::string_view mark : {kOpen, kClose}) {
            for (size_t at = out.find(mark, from); at != std::string::npos; at = out.find(mark, at)) {
                out.replace(at, mark.size(), kReplacement);  // of the same length
            }
        }
    }
    return out;
}

std::vector<int32_t> SpecialText::encode(std::string_view rendered, size_t most) const {
    std::vector<int32_t> ids;
    bool begun = false;
    const auto add = [&](std::string_view text, bool parse_special) {
        if (text.empty() || ids.size() > most) {
            return;
        }
        // The template has written what the model needs at the start: nothing is added.
        const Tokenizer::EncodeOptions options{
            .add_special = false, .parse_special = parse_special, .most = most - ids.size()};
        const auto part = begun ? encode_inside(text, options) : tokenizer_.encode(text, options);
        begun = true;
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
