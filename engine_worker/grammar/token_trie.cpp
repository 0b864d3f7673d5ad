#include "engine_worker/grammar/token_trie.hpp"

#include <algorithm>
#include <limits>
#include <utility>

namespace llm::engine {
namespace {

constexpr size_t kMaxBytes = std::numeric_limits<uint8_t>::max();

size_t common_prefix(std::string_view a, std::string_view b) {
    return static_cast<size_t>(
        std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(std::min(a.size(), b.size())),
                      b.begin())
            .first -
        a.begin());
}

}  // namespace

TokenTrie::TokenTrie(std::vector<std::string> tokens) : bytes_(std::move(tokens)) {
    for (size_t id = 0; id < bytes_.size(); ++id) {
        if (!bytes_[id].empty() && bytes_[id].size() <= kMaxBytes) {
            ordered_.push_back(static_cast<int32_t>(id));
            longest_ = std::max(longest_, static_cast<int32_t>(bytes_[id].size()));
        }
    }
    std::sort(ordered_.begin(), ordered_.end(), [this](int32_t a, int32_t b) {
        const int order = bytes(a).compare(bytes(b));
        return order != 0 ? order < 0 : a < b;
    });
    std::vector<int32_t> path;  // nodes on the way to the latest token
    std::string_view before;
    for (size_t i = 0; i < ordered_.size(); ++i) {
        const std::string_view text = bytes(ordered_[i]);
        const size_t shared = common_prefix(before, text);
        for (; path.size() > shared; path.pop_back()) {
            nodes_[static_cast<size_t>(path.back())].subtree_end = static_cast<int32_t>(nodes_.size());
        }
        for (size_t depth = shared; depth < text.size(); ++depth) {
            path.push_back(static_cast<int32_t>(nodes_.size()));
            nodes_.push_back({static_cast<uint8_t>(text[depth]), static_cast<uint8_t>(depth + 1), 0,
                              static_cast<int32_t>(i)});
        }
        before = text;
    }
    const auto end = static_cast<int32_t>(nodes_.size());
    for (const int32_t node : path) {
        nodes_[static_cast<size_t>(node)].subtree_end = end;
    }
    nodes_.push_back({0, 0, end, static_cast<int32_t>(ordered_.size())});
}

TokenTrie TokenTrie::of(const Tokenizer& tokenizer, int32_t vocab_size) {
    std::vector<std::string> tokens(static_cast<size_t>(vocab_size));
    for (int32_t id = 0; id < std::min(vocab_size, tokenizer.vocab_size()); ++id) {
        if (!tokenizer.is_special(id)) {
            tokens[static_cast<size_t>(id)] = tokenizer.token_bytes(id, false);
        }
    }
    return TokenTrie(std::move(tokens));
}

}  // namespace llm::engine
