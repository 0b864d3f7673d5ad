// The part of the parser that reads expressions, loosest binding first; parser.cpp adds the statements.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/jinja/ast.hpp"
#include "engine_worker/tokenizer/jinja/lexer.hpp"

namespace llm::engine::jinja {

class ExpressionParser {
  protected:
    // Each level of nesting is a few stack frames here, and one in whatever walks the tree.
    static constexpr int kMaxNesting = 150;
    static constexpr int kMaxLinks = 300;  // of one left-growing chain: a.b.c, a + b + c, elif

    explicit ExpressionParser(std::string_view source) : tokens_(tokenize(source)) {}

    // "a, b" is a tuple. Without `conditional` an `if` behind it is left alone ({% for x in y if z %}).
    ExprPtr tuple_or_expression(bool conditional = true);
    ExprPtr expression();
    // `expr` through the filters that follow; `inline_first`: the first comes without its bar ({% filter
    // upper %}).
    ExprPtr filter_chain(ExprPtr expr, bool inline_first);

    // ---- tokens

    const Token& current() const { return tokens_[at_]; }
    const Token& after() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
    const Token& next() {
        const Token& token = tokens_[at_];
        if (at_ + 1 < tokens_.size())
            ++at_;
        return token;
    }
    [[noreturn]] void fail(const std::string& what) const { syntax_error(current().line, what); }
    [[noreturn]] void unexpected() const {
        const Token& token = current();
        switch (token.kind) {
            case TokenKind::kEnd:
                fail("unexpected end of template");
            case TokenKind::kBlockEnd:
            case TokenKind::kVariableEnd:
                fail("unexpected end of tag");
            default:
                fail("unexpected '" + token.text + "'");
        }
    }
    bool skip_op(std::string_view op) { return current().op(op) && (next(), true); }
    bool skip_name(std::string_view name) { return current().name(name) && (next(), true); }
    void expect_op(std::string_view op) {
        if (!skip_op(op))
            fail("expected '" + std::string(op) + "'");
    }
    void expect(TokenKind kind, const char* what) {
        if (current().kind != kind)
            fail(std::string("expected ") + what);
        next();
    }
    std::string expect_name() {
        if (current().kind != TokenKind::kName)
            fail("expected a name");
        return next().text;
    }

    class Depth {
      public:
        explicit Depth(ExpressionParser& parser) : parser_(parser) {
            if (++parser_.depth_ > kMaxNesting)
                parser_.fail("nested too deeply");
        }
        ~Depth() { --parser_.depth_; }
        Depth(const Depth&) = delete;
        Depth& operator=(const Depth&) = delete;

      private:
        ExpressionParser& parser_;
    };

    ExprPtr make(ExprKind kind) const {
        auto expr = std::make_unique<Expr>();
        expr->kind = kind;
        expr->line = current().line;
        return expr;
    }
    ExprPtr make(ExprKind kind, ExprPtr first) const {
        ExprPtr expr = make(kind);
        expr->parts.push_back(std::move(first));
        return expr;
    }

    std::vector<Token> tokens_;
    size_t at_ = 0;

  private:
    ExprPtr or_expression();
    ExprPtr and_expression();
    ExprPtr not_expression();
    bool comparison_operator(Operator& op);
    ExprPtr comparison();
    ExprPtr arithmetic(ExprPtr left, Operator op, ExprPtr right);
    ExprPtr sum();
    // binds tighter than + in Jinja
    ExprPtr concatenation();
    ExprPtr product();
    // groups to the left in Jinja
    ExprPtr power();
    ExprPtr unary(bool with_filters);
    ExprPtr primary();
    // Left-growing chains (a.b.c…, a + b + …) nest in the tree without nesting in the source.
    void chain();
    ExprPtr postfix(ExprPtr expr);
    ExprPtr subscript(ExprPtr object);
    void arguments(Expr& call);
    ExprPtr filters_and_tests(ExprPtr expr);
    ExprPtr test(ExprPtr expr);

    int depth_ = 0;
    int links_ = 0;
};

}  // namespace llm::engine::jinja
