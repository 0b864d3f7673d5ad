#include "engine_worker/tokenizer/jinja/expression_parser.hpp"

#include <cstdlib>

#include "engine_worker/tokenizer/jinja/builtins.hpp"

namespace llm::engine::jinja {

ExprPtr ExpressionParser::tuple_or_expression(bool conditional) {
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

ExprPtr ExpressionParser::expression() {
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

ExprPtr ExpressionParser::or_expression() {
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

ExprPtr ExpressionParser::and_expression() {
    ExprPtr left = not_expression();
    while (current().name("and")) {
        left = make(ExprKind::kAnd, std::move(left));
        next();
        left->parts.push_back(not_expression());
        chain();
    }
    return left;
}

ExprPtr ExpressionParser::not_expression() {
    if (!current().name("not"))
        return comparison();
    Depth depth(*this);
    ExprPtr expr = make(ExprKind::kNot);
    next();
    expr->parts.push_back(not_expression());
    return expr;
}

bool ExpressionParser::comparison_operator(Operator& op) {
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

ExprPtr ExpressionParser::comparison() {
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

ExprPtr ExpressionParser::arithmetic(ExprPtr left, Operator op, ExprPtr right) {
    left = make(ExprKind::kArithmetic, std::move(left));
    left->operators.push_back(op);
    left->parts.push_back(std::move(right));
    chain();
    return left;
}

ExprPtr ExpressionParser::sum() {
    ExprPtr left = concatenation();
    while (current().op("+") || current().op("-")) {
        const Operator op = next().text == "+" ? Operator::kAdd : Operator::kSub;
        left = arithmetic(std::move(left), op, concatenation());
    }
    return left;
}

ExprPtr ExpressionParser::concatenation() {
    ExprPtr first = product();
    if (!current().op("~"))
        return first;
    ExprPtr expr = make(ExprKind::kConcat, std::move(first));
    while (skip_op("~"))
        expr->parts.push_back(product());
    return expr;
}

ExprPtr ExpressionParser::product() {
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

ExprPtr ExpressionParser::power() {
    ExprPtr left = unary(true);
    while (skip_op("**"))
        left = arithmetic(std::move(left), Operator::kPow, unary(true));
    return left;
}

ExprPtr ExpressionParser::unary(bool with_filters) {
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

ExprPtr ExpressionParser::primary() {
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

void ExpressionParser::chain() {
    if (++links_ > kMaxLinks)
        fail("expression too long");
}

ExprPtr ExpressionParser::postfix(ExprPtr expr) {
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

ExprPtr ExpressionParser::subscript(ExprPtr object) {
    expect_op("[");
    ExprPtr expr = make(ExprKind::kItem, std::move(object));
    auto bound = [&]() -> ExprPtr { return current().op(":") || current().op("]") ? nullptr : expression(); };
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

void ExpressionParser::arguments(Expr& call) {
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

ExprPtr ExpressionParser::filters_and_tests(ExprPtr expr) {
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

ExprPtr ExpressionParser::filter_chain(ExprPtr expr, bool inline_first) {
    const int links = links_;
    while (inline_first || skip_op("|")) {
        inline_first = false;
        expr = make(ExprKind::kFilter, std::move(expr));
        expr->name = expect_name();
        if (current().op("("))
            arguments(*expr);
        chain();
    }
    links_ = links;
    return expr;
}

ExprPtr ExpressionParser::test(ExprPtr expr) {
    next();
    const bool negated = skip_name("not");
    expr = make(ExprKind::kTest, std::move(expr));
    expr->name = expect_name();
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

}  // namespace llm::engine::jinja
