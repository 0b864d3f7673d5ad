#include "engine_worker/tokenizer/added_tokens.hpp"

#include <algorithm>

#include "engine_worker/tokenizer/unicode.hpp"

namespace llm::engine {

void AddedTokenMatcher::add(const AddedToken& token) {
    const std::string& spelling = token.spelling;
    if (spelling.empty())
        return;
    first_byte_[static_cast<unsigned char>(spelling[0])] = true;
    uint32_t at = 0;
    for (char c : spelling) {
        const auto byte = static_cast<unsigned char>(c);
        auto& next = nodes_[at].next;
        auto it = std::lower_bound(next.begin(), next.end(), byte,
                                   [](const auto& edge, unsigned char b) { return edge.first < b; });
        if (it != next.end() && it->first == byte) {
            at = it->second;
        } else {
            const auto fresh = static_cast<uint32_t>(nodes_.size());
            next.insert(it, {byte, fresh});
            nodes_.emplace_back();
            at = fresh;
        }
    }
    if (!nodes_[at].token)  // two tokens of one spelling: the first stands, as in the reference
        nodes_[at].token = &token;
}

const AddedToken* AddedTokenMatcher::longest(std::string_view text, size_t at, size_t& end) const {
    const AddedToken* best = nullptr;
    uint32_t node = 0;
    for (size_t i = at; i < text.size(); ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        const auto& next = nodes_[node].next;
        auto it = std::lower_bound(next.begin(), next.end(), byte,
                                   [](const auto& edge, unsigned char b) { return edge.first < b; });
        if (it == next.end() || it->first != byte)
            break;
        node = it->second;
        if (nodes_[node].token) {
            best = nodes_[node].token;
            end = i + 1;
        }
    }
    return best;
}

void AddedTokenMatcher::split(std::string_view text, bool skip_special, std::vector<Segment>& out) const {
    size_t done = 0;  // everything before it is in `out`
    for (size_t at = 0; at < text.size();) {
        size_t end = 0;
        const AddedToken* token = nullptr;
        if (first_byte_[static_cast<unsigned char>(text[at])])
            token = longest(text, at, end);
        if (!token) {
            ++at;
            continue;
        }
        size_t begin = at;
        at = end;  // a match that is turned down below is not searched again from inside
        if (token->special && skip_special)
            continue;
        if (token->single_word &&
            (unicode::ends_with_word(text.substr(0, begin)) || unicode::starts_with_word(text.substr(end))))
            continue;
        if (token->lstrip)
            begin = std::max(unicode::trailing_space_begin(text.substr(0, begin)), done);
        if (token->rstrip)
            end += unicode::leading_space_length(text.substr(end));
        if (done < begin)
            out.push_back({text.substr(done, begin - done), nullptr});
        if (begin < end)  // else the token before it has swallowed all of it
            out.push_back({text.substr(begin, end - begin), token});
        done = end;
    }
    if (done < text.size())
        out.push_back({text.substr(done), nullptr});
}

}  // namespace llm::engine
