#include "engine_worker/tokenizer/jinja/parser.hpp"

#include <cstdlib>
#include <initializer_list>

#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/lexer.hpp"

namespace llm::engine::jinja {
namespace {

constexpr int kMaxNesting = 150;  // of expressions and statements: each level is a few stack frames

class Parser {
  public:
    explicit Parser(std::string_view source) : tokens_(tokenize(source)) {}

    Block run() { return block({}); }

  private:
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
        explicit Depth(Parser& parser) : parser_(parser) {
            if (++parser_.depth_ > kMaxNesting)
                parser_.fail("nested too deeply");
        }
        ~Depth() { --parser_.depth_; }
        Depth(const Depth&) = delete;
        Depth& operator=(const Depth&) = delete;

      private:
        Parser& parser_;
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

    // ---- statements

    static std::unique_ptr<Stmt> statement(StmtKind kind, int line) {
        auto stmt = std::make_unique<Stmt>();
        stmt->kind = kind;
        stmt->line = line;
        return stmt;
    }

    // Statements up to {% one of `ends`; leaves that name as the current token. No ends: up to the end of
    // source.
    Block block(std::initializer_list<std::string_view> ends) {
        Depth depth(*this);
        Block out;
        while (true) {
            const Token& token = current();
            if (token.kind == TokenKind::kEnd) {
                if (ends.size() > 0)
                    fail("unexpected end of template, expected {% " + std::string(*(ends.end() - 1)) + " %}");
                return out;
            }
            if (token.kind == TokenKind::kData) {
                out.push_back(statement(StmtKind::kText, token.line));
                out.back()->text = next().text;
            } else if (token.kind == TokenKind::kVariableBegin) {
                next();
                out.push_back(statement(StmtKind::kOutput, token.line));
                out.back()->a = tuple_or_expression();
                expect(TokenKind::kVariableEnd, "'}}'");
            } else {
                expect(TokenKind::kBlockBegin, "a tag");
                for (std::string_view end : ends)
                    if (current().name(end))
                        return out;
                tag(out);
                expect(TokenKind::kBlockEnd, "'%}'");
            }
        }
    }

    // The rest of an opening tag, then its body; the end's name is consumed too when there is only one.
    Block body(std::initializer_list<std::string_view> ends) {
        skip_op(":");  // tolerated, for those who think in Python
        expect(TokenKind::kBlockEnd, "'%}'");
        Block out = block(ends);
        if (ends.size() == 1)
            next();
        return out;
    }

    void tag(Block& out) {
        if (current().kind != TokenKind::kName)
            fail("expected the name of a statement");
        const std::string name = current().text;
        const int line = next().line;
        auto add = [&](StmtKind kind) -> Stmt& {
            out.push_back(statement(kind, line));
            return *out.back();
        };
        if (name == "if") {
            if_tag(add(StmtKind::kIf));
        } else if (name == "for") {
            for_tag(add(StmtKind::kFor));
        } else if (name == "set") {
            set_tag(add(StmtKind::kSet));
        } else if (name == "macro") {
            macro_tag(add(StmtKind::kMacro));
        } else if (name == "call") {
            Stmt& stmt = add(StmtKind::kCallBlock);
            if (current().op("("))
                signature(stmt);
            stmt.a = expression();
            if (stmt.a->kind != ExprKind::kCall)
                fail("expected a call");
            callable_body(stmt, "endcall");
        } else if (name == "filter") {
            Stmt& stmt = add(StmtKind::kFilterBlock);
            stmt.a = filter_chain(nullptr, true);
            stmt.body = body({"endfilter"});
        } else if (name == "with") {
            with_tag(add(StmtKind::kWith));
        } else if (name == "generation") {
            add(StmtKind::kScope).body = body({"endgeneration"});
        } else if (name == "break" || name == "continue") {
            if (loops_ == 0)
                syntax_error(line, "'" + name + "' outside of a loop");
            add(name == "break" ? StmtKind::kBreak : StmtKind::kContinue);
        } else if (name == "print") {
            while (current().kind != TokenKind::kBlockEnd) {
                add(StmtKind::kOutput).a = expression();
                if (!skip_op(","))
                    break;
            }
        } else {
            syntax_error(line, "statement '" + name + "' is not supported");
        }
    }

    void if_tag(Stmt& first) {
        Stmt* stmt = &first;
        int links = 0;
        while (true) {
            stmt->a = tuple_or_expression(false);
            stmt->body = body({"elif", "else", "endif"});
            const std::string end = next().text;
            if (end == "elif") {  // an if in the else of the one before
                if (++links > kMaxLinks)
                    fail("too many elif");
                stmt->otherwise.push_back(statement(StmtKind::kIf, current().line));
                stmt = stmt->otherwise.back().get();
                continue;
            }
            if (end == "else")
                stmt->otherwise = body({"endif"});
            return;
        }
    }

    void for_tag(Stmt& stmt) {
        stmt.target = target(false, true);
        if (!skip_name("in"))
            fail("expected 'in'");
        stmt.a = tuple_or_expression(false);
        if (skip_name("if"))
            stmt.b = expression();
        if (current().name("recursive"))
            fail("recursive loops are not supported");
        ++loops_;
        stmt.body = body({"else", "endfor"});
        --loops_;
        if (next().text == "else")
            stmt.otherwise = body({"endfor"});
    }

    void set_tag(Stmt& stmt) {
        stmt.target = target(true, false);
        if (skip_op("=")) {
            stmt.a = tuple_or_expression();
            return;
        }
        stmt.kind = StmtKind::kSetBlock;
        if (current().op("|"))
            stmt.a = filter_chain(nullptr, false);
        stmt.body = body({"endset"});
    }

    void macro_tag(Stmt& stmt) {
        stmt.text = expect_name();
        signature(stmt);
        callable_body(stmt, "endmacro");
    }

    void callable_body(Stmt& stmt, std::string_view end) {
        const int loops = std::exchange(loops_, 0);
        const size_t from = at_;
        stmt.body = body({end});
        loops_ = loops;
        for (size_t i = from; i < at_; ++i) {
            stmt.uses_caller = stmt.uses_caller || tokens_[i].name("caller");
            stmt.uses_kwargs = stmt.uses_kwargs || tokens_[i].name("kwargs");
            stmt.uses_varargs = stmt.uses_varargs || tokens_[i].name("varargs");
        }
    }

    void signature(Stmt& stmt) {
        expect_op("(");
        while (!current().op(")")) {
            if (!stmt.parameters.empty())
                expect_op(",");
            Parameter parameter;
            parameter.name = expect_name();
            if (skip_op("="))
                parameter.fallback = expression();
            else if (!stmt.parameters.empty() && stmt.parameters.back().fallback)
                fail("non-default argument follows default argument");
            stmt.parameters.push_back(std::move(parameter));
        }
        expect_op(")");
    }

    void with_tag(Stmt& stmt) {
        while (current().kind != TokenKind::kBlockEnd) {
            if (!stmt.parameters.empty())
                expect_op(",");
            Parameter parameter;
            parameter.name = expect_name();
            expect_op("=");
            parameter.fallback = expression();
            stmt.parameters.push_back(std::move(parameter));
        }
        stmt.body = body({"endwith"});
    }

    static bool assignable(const std::string& name) {
        for (const char* constant : {"true", "false", "none", "True", "False", "None"})
            if (name == constant)
                return false;
        return true;
    }

    Target single_target(bool attributes) {
        Target one;
        if (skip_op("(")) {
            Depth depth(*this);
            one = target(false, false);
            expect_op(")");
            return one;
        }
        one.name = expect_name();
        if (!assignable(one.name))
            fail("cannot assign to '" + one.name + "'");
        if (attributes && skip_op("."))
            one.attribute = expect_name();
        return one;
    }

    Target target(bool attributes, bool stop_at_in) {
        Target first = single_target(attributes);
        if (!current().op(","))
            return first;
        Target all;
        all.is_tuple = true;
        all.tuple.push_back(std::move(first));
        while (skip_op(",")) {
            if ((stop_at_in && current().name("in")) || current().op("=") || current().op(")"))
                break;
            all.tuple.push_back(single_target(attributes));
        }
        return all;
    }

    // ---- expressions, loosest binding first

    ExprPtr tuple_or_expression(bool conditional = true) {
        auto one = [&] { return conditional ? expression() : or_expression(); };
        ExprPtr first = one();
        if (!current().op(","))
            return first;
        ExprPtr tuple = make(ExprKind::kTuple, std::move(first));
        while (skip_op(",")) {
            const TokenKind kind = current().kind;
            if (kind == TokenKind::kVariableEnd || kind == TokenKind::kBlockEnd || current().op(")"))
                break;
            tuple->parts.push_back(one());
        }
        return tuple;
    }

    ExprPtr expression() {
        Depth depth(*this);
        ExprPtr value = or_expression();
        while (skip_name("if")) {
            ExprPtr choice = make(ExprKind::kConditional, std::move(value));
            choice->parts.push_back(or_expression());
            choice->parts.push_back(skip_name("else") ? expression() : nullptr);
            value = std::move(choice);
        }
        return value;
    }

    ExprPtr or_expression() {
        const int links = links_;
        ExprPtr left = and_expression();
        while (current().name("or")) {
            left = make(ExprKind::kOr, std::move(left));
            next();
            left->parts.push_back(and_expression());
            chain();
        }
        links_ = links;
        return left;
    }

    ExprPtr and_expression() {
        ExprPtr left = not_expression();
        while (current().name("and")) {
            left = make(ExprKind::kAnd, std::move(left));
            next();
            left->parts.push_back(not_expression());
            chain();
        }
        return left;
    }

    ExprPtr not_expression() {
        if (!current().name("not"))
            return comparison();
        Depth depth(*this);
        ExprPtr expr = make(ExprKind::kNot);
        next();
        expr->parts.push_back(not_expression());
        return expr;
    }

    bool comparison_operator(Operator& op) {
        static constexpr std::pair<std::string_view, Operator> kOperators[] = {
            {"==", Operator::kEq}, {"!=", Operator::kNe}, {"<", Operator::kLt},
            {"<=", Operator::kLe}, {">", Operator::kGt},  {">=", Operator::kGe}};
        for (const auto& [text, kind] : kOperators) {
            if (current().op(text)) {
                op = kind;
                next();
                return true;
            }
        }
        if (skip_name("in")) {
            op = Operator::kIn;
            return true;
        }
        if (current().name("not") && after().name("in")) {
            op = Operator::kNotIn;
            next();
            next();
            return true;
        }
        return false;
    }

    ExprPtr comparison() {
        ExprPtr left = sum();
        Operator op;
        if (!comparison_operator(op))
            return left;
        ExprPtr expr = make(ExprKind::kCompare, std::move(left));
        do {
            expr->operators.push_back(op);
            expr->parts.push_back(sum());
        } while (comparison_operator(op));
        return expr;
    }

    ExprPtr arithmetic(ExprPtr left, Operator op, ExprPtr right) {
        left = make(ExprKind::kArithmetic, std::move(left));
        left->operators.push_back(op);
        left->parts.push_back(std::move(right));
        chain();
        return left;
    }

    ExprPtr sum() {
        ExprPtr left = concatenation();
        while (current().op("+") || current().op("-")) {
            const Operator op = next().text == "+" ? Operator::kAdd : Operator::kSub;
            left = arithmetic(std::move(left), op, concatenation());
        }
        return left;
    }

    ExprPtr concatenation() {  // binds tighter than + in Jinja
        ExprPtr first = product();
        if (!current().op("~"))
            return first;
        ExprPtr expr = make(ExprKind::kConcat, std::move(first));
        while (skip_op("~"))
            expr->parts.push_back(product());
        return expr;
    }

    ExprPtr product() {
        ExprPtr left = power();
        while (current().op("*") || current().op("/") || current().op("//") || current().op("%")) {
            const std::string text = next().text;
            const Operator op = text == "*"    ? Operator::kMul
                                : text == "/"  ? Operator::kDiv
                                : text == "//" ? Operator::kFloorDiv
                                               : Operator::kMod;
            left = arithmetic(std::move(left), op, power());
        }
        return left;
    }

    ExprPtr power() {  // groups to the left in Jinja
        ExprPtr left = unary(true);
        while (skip_op("**"))
            left = arithmetic(std::move(left), Operator::kPow, unary(true));
        return left;
    }

    ExprPtr unary(bool with_filters) {
        ExprPtr expr;
        if (current().op("-") || current().op("+")) {
            Depth depth(*this);
            expr = make(current().op("-") ? ExprKind::kNegative : ExprKind::kPositive);
            next();
            expr->parts.push_back(unary(false));
        } else {
            expr = primary();
        }
        expr = postfix(std::move(expr));
        return with_filters ? filters_and_tests(std::move(expr)) : std::move(expr);
    }

    ExprPtr primary() {
        ExprPtr expr = make(ExprKind::kConstant);
        const Token& token = current();
        switch (token.kind) {
            case TokenKind::kName:
                next();
                if (token.text == "true" || token.text == "True") {
                    expr->value = Value(true);
                } else if (token.text == "false" || token.text == "False") {
                    expr->value = Value(false);
                } else if (token.text != "none" && token.text != "None") {
                    expr->kind = ExprKind::kName;
                    expr->name = token.text;
                }
                return expr;
            case TokenKind::kString: {
                std::string text = next().text;
                while (current().kind == TokenKind::kString)
                    text += next().text;
                expr->value = Value(std::move(text));
                return expr;
            }
            case TokenKind::kInteger:
                expr->value = Value(static_cast<int64_t>(std::strtoll(next().text.c_str(), nullptr, 10)));
                return expr;
            case TokenKind::kFloat:
                expr->value = Value(std::strtod(next().text.c_str(), nullptr));
                return expr;
            default:
                break;
        }
        if (skip_op("(")) {
            if (skip_op(")")) {
                expr->kind = ExprKind::kTuple;
                return expr;
            }
            expr = tuple_or_expression();
            expect_op(")");
            return expr;
        }
        if (skip_op("[")) {
            expr->kind = ExprKind::kList;
            while (!current().op("]")) {
                expr->parts.push_back(expression());
                if (!skip_op(","))
                    break;
            }
            expect_op("]");
            return expr;
        }
        if (skip_op("{")) {
            expr->kind = ExprKind::kDict;
            while (!current().op("}")) {
                expr->parts.push_back(expression());
                expect_op(":");
                expr->parts.push_back(expression());
                if (!skip_op(","))
                    break;
            }
            expect_op("}");
            return expr;
        }
        unexpected();
    }

    // Left-growing chains (a.b.c…, a + b + …) nest in the tree without nesting in the source.
    void chain() {
        if (++links_ > kMaxLinks)
            fail("expression too long");
    }

    ExprPtr postfix(ExprPtr expr) {
        const int links = links_;
        while (true) {
            if (current().op(".")) {
                next();
                if (current().kind == TokenKind::kInteger) {
                    ExprPtr index = primary();
                    expr = make(ExprKind::kItem, std::move(expr));
                    expr->parts.push_back(std::move(index));
                } else {
                    expr = make(ExprKind::kAttribute, std::move(expr));
                    expr->name = expect_name();
                }
            } else if (current().op("[")) {
                expr = subscript(std::move(expr));
            } else if (current().op("(")) {
                expr = make(ExprKind::kCall, std::move(expr));
                arguments(*expr);
            } else {
                break;
            }
            chain();
        }
        links_ = links;
        return expr;
    }

    ExprPtr subscript(ExprPtr object) {
        expect_op("[");
        ExprPtr expr = make(ExprKind::kItem, std::move(object));
        auto bound = [&]() -> ExprPtr {
            return current().op(":") || current().op("]") ? nullptr : expression();
        };
        ExprPtr first = bound();
        if (skip_op(":")) {
            expr->kind = ExprKind::kSlice;
            expr->parts.push_back(std::move(first));
            expr->parts.push_back(bound());
            expr->parts.push_back(skip_op(":") ? bound() : nullptr);
        } else {
            if (!first)
                unexpected();
            if (current().op(",")) {  // x[a, b] takes a tuple
                first = make(ExprKind::kTuple, std::move(first));
                while (skip_op(","))
                    first->parts.push_back(expression());
            }
            expr->parts.push_back(std::move(first));
        }
        expect_op("]");
        return expr;
    }

    void arguments(Expr& call) {
        expect_op("(");
        while (!current().op(")")) {
            if (skip_op("*")) {
                if (call.spread || call.named_spread)
                    fail("invalid arguments");
                call.spread = expression();
            } else if (skip_op("**")) {
                if (call.named_spread)
                    fail("invalid arguments");
                call.named_spread = expression();
            } else if (current().kind == TokenKind::kName && after().op("=")) {
                std::string name = next().text;
                next();
                call.named.emplace_back(std::move(name), expression());
            } else {
                if (call.spread || call.named_spread || !call.named.empty())
                    fail("positional argument after keyword arguments");
                call.parts.push_back(expression());
            }
            if (!skip_op(","))
                break;
        }
        expect_op(")");
    }

    ExprPtr filters_and_tests(ExprPtr expr) {
        const int links = links_;
        while (true) {
            if (current().op("|")) {
                expr = filter_chain(std::move(expr), false);
            } else if (current().name("is")) {
                expr = test(std::move(expr));
            } else if (current().op("(")) {
                expr = make(ExprKind::kCall, std::move(expr));
                arguments(*expr);
            } else {
                break;
            }
            chain();
        }
        links_ = links;
        return expr;
    }

    // `inline_first`: the first filter comes without its bar ({% filter upper %}).
    ExprPtr filter_chain(ExprPtr expr, bool inline_first) {
        const int links = links_;
        while (inline_first || skip_op("|")) {
            inline_first = false;
            expr = make(ExprKind::kFilter, std::move(expr));
            expr->name = expect_name();
            if (!find_filter(expr->name))
                fail("filter '" + expr->name + "' is not supported");
            if (current().op("("))
                arguments(*expr);
            chain();
        }
        links_ = links;
        return expr;
    }

    ExprPtr test(ExprPtr expr) {
        next();
        const bool negated = skip_name("not");
        expr = make(ExprKind::kTest, std::move(expr));
        expr->name = expect_name();
        if (!find_test(expr->name))
            fail("test '" + expr->name + "' is not supported");
        const Token& token = current();
        const bool word = token.name("else") || token.name("or") || token.name("and");
        if (token.name("is"))
            fail("tests cannot be chained with 'is'");
        if (token.op("("))
            arguments(*expr);
        else if ((token.kind == TokenKind::kName && !word) || token.kind == TokenKind::kString ||
                 token.kind == TokenKind::kInteger || token.kind == TokenKind::kFloat || token.op("[") ||
                 token.op("{"))
            expr->parts.push_back(postfix(primary()));
        return negated ? make(ExprKind::kNot, std::move(expr)) : std::move(expr);
    }

    static constexpr int kMaxLinks = 300;
    std::vector<Token> tokens_;
    size_t at_ = 0;
    int depth_ = 0;
    int links_ = 0;
    int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) {
    return Parser(source).run();
}

}  // namespace llm::engine::jinja
