// The bytes of every token of a vocabulary, as a tree that shares beginnings.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/tokenizer.hpp"

namespace llm::engine {

// Immutable. Nodes lie in depth-first order, children by rising byte: a walk reads memory front to back, and
// a subtree is a range of nodes and also a range of tokens.
class TokenTrie {
  public:
    // Ids from 0 on and their bytes; a token without bytes is in no node.
    explicit TokenTrie(std::vector<std::string> tokens);
    // Tokens 0 to vocab_size of a model; special ones have no bytes. O(bytes of the vocabulary · log tokens).
    static TokenTrie of(const Tokenizer& tokenizer, int32_t vocab_size);

    struct Node {
        uint8_t byte;
        uint8_t depth;        // 1 = first byte; a token beyond 255 bytes is left out
        int32_t subtree_end;  // the first node behind the subtree
        int32_t first_token;  // tokens of this node start here, those of the next node end them
    };

    int32_t n_nodes() const { return static_cast<int32_t>(nodes_.size()) - 1; }
    const Node& node(int32_t index) const { return nodes_[static_cast<size_t>(index)]; }
    // Tokens that are spelled by the way to `node`.
    std::span<const int32_t> tokens_at(int32_t node) const { return tokens(node, node + 1); }
    // Tokens of nodes [begin, end).
    std::span<const int32_t> tokens(int32_t begin, int32_t end) const {
        const auto from = static_cast<size_t>(node(begin).first_token);
        return {ordered_.data() + from, static_cast<size_t>(node(end).first_token) - from};
    }

    int32_t vocab_size() const { return static_cast<int32_t>(bytes_.size()); }
    int32_t longest() const { return longest_; }  // bytes of the longest token
    std::string_view bytes(int32_t token) const { return bytes_[static_cast<size_t>(token)]; }

  private:
    std::vector<std::string> bytes_;  // by id
    std::vector<Node> nodes_;         // and one behind the last
    std::vector<int32_t> ordered_;    // token ids in the order of their nodes
    int32_t longest_ = 0;
};

}  // namespace llm::engine
