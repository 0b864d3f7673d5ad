#include "engine_worker/tokenizer/jinja/parser.hpp"

#include <initializer_list>
#include <utility>

#include "engine_worker/tokenizer/jinja/analysis.hpp"
#include "engine_worker/tokenizer/jinja/expression_parser.hpp"

namespace llm::engine::jinja {
namespace {

class Parser final : private ExpressionParser {
  public:
    explicit Parser(std::string_view source) : ExpressionParser(source) {}

    Block run() { return block({}); }

  private:
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

    int loops_ = 0;
};

}  // namespace

Block parse_template(std::string_view source) {
    Block block = Parser(source).run();
    check_names(block);
    return block;
}

}  // namespace llm::engine::jinja
