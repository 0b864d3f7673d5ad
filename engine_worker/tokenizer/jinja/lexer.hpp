// A template's source as tokens, with jinja2's white space rules (trim_blocks and lstrip_blocks on, the
// newline at the end dropped).
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace llm::engine::jinja {

enum class TokenKind {
    kData,        // text outside of tags; never empty
    kBlockBegin,  // {%
    kBlockEnd,
    kVariableBegin,  // {{
    kVariableEnd,
    kName,
    kString,    // text: unescaped
    kInteger,   // text: decimal digits
    kFloat,     // text: as std::strtod reads it
    kOperator,  // text: the operator
    kEnd,
};

struct Token {
    TokenKind kind;
    std::string text;
    int line;
    bool is(TokenKind k, std::string_view t) const { return kind == k && text == t; }
    bool op(std::string_view t) const { return is(TokenKind::kOperator, t); }
    bool name(std::string_view t) const { return is(TokenKind::kName, t); }
};

// The last token is kEnd. Throws std::runtime_error that names the line. O(source).
std::vector<Token> tokenize(std::string_view source);

// Fails with "line N: what", the form of every error about a template's source.
[[noreturn]] void syntax_error(int line, const std::string& what);

}  // namespace llm::engine::jinja
