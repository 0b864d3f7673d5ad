#include "engine_worker/tokenizer/jinja/analysis.hpp"

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/lexer.hpp"

namespace llm::engine::jinja {
namespace {

// Calls `visit` for every part of an expression that is there.
template <class Visit>
void for_parts(const Expr& expr, const Visit& visit) {
    for (const ExprPtr& part : expr.parts)
        if (part)
            visit(*part);
    for (const auto& [name, value] : expr.named)
        visit(*value);
    for (const ExprPtr* spread : {&expr.spread, &expr.named_spread})
        if (*spread)
            visit(**spread);
}

// ---- Names of filters and tests

class NameCheck {
  public:
    // `soft`: names may be unknown here.
    void block(const Block& block, bool soft) {
        for (const auto& stmt : block)
            statement(*stmt, soft);
    }

  private:
    // Which parts of a statement share its frame, and which begin one of their own, is jinja2's compiler's
    // matter.
    void statement(const Stmt& stmt, bool soft) {
        const bool branch = stmt.kind == StmtKind::kIf;
        const bool own_chain = stmt.kind == StmtKind::kSetBlock || stmt.kind == StmtKind::kFilterBlock;
        if (stmt.a)
            expression(*stmt.a, branch || (soft && !own_chain));
        if (stmt.b)
            expression(*stmt.b, false);
        for (const Parameter& parameter : stmt.parameters)
            if (parameter.fallback)
                expression(*parameter.fallback, soft && stmt.kind == StmtKind::kWith);
        block(stmt.body, branch);
        block(stmt.otherwise, branch);
    }

    void expression(const Expr& expr, bool soft) {
        soft = soft || expr.kind == ExprKind::kConditional;
        if (!soft && expr.kind == ExprKind::kFilter && !find_filter(expr.name))
            syntax_error(expr.line, "filter '" + expr.name + "' is not supported");
        if (!soft && expr.kind == ExprKind::kTest && !find_test(expr.name))
            syntax_error(expr.line, "test '" + expr.name + "' is not supported");
        for_parts(expr, [&](const Expr& part) { expression(part, soft); });
    }
};

// ---- Walks

using OnStmt = std::function<void(const Stmt&)>;
using OnExpr = std::function<void(const Expr&)>;

void walk(const Expr& expr, const OnExpr& on_expr) {
    on_expr(expr);
    for_parts(expr, [&](const Expr& part) { walk(part, on_expr); });
}

void walk(const Block& block, const OnStmt& on_stmt, const OnExpr& on_expr) {
    for (const auto& stmt : block) {
        on_stmt(*stmt);
        for (const ExprPtr* expr : {&stmt->a, &stmt->b})
            if (*expr)
                walk(**expr, on_expr);
        for (const Parameter& parameter : stmt->parameters)
            if (parameter.fallback)
                walk(*parameter.fallback, on_expr);
        walk(stmt->body, on_stmt, on_expr);
        walk(stmt->otherwise, on_stmt, on_expr);
    }
}

void no_expr(const Expr&) {}

// ---- Loops over content

// "messages", or "ns.rest"; empty for anything else.
std::string variable_of(const Expr& expr) {
    if (expr.kind == ExprKind::kName)
        return expr.name;
    const bool dotted = expr.kind == ExprKind::kAttribute && expr.parts[0]->kind == ExprKind::kName;
    return dotted ? expr.parts[0]->name + "." + expr.name : "";
}

// Behind filters, tests and slices, which leave the elements what they are.
const Expr& bare(const Expr& expr) {
    const bool around =
        expr.kind == ExprKind::kFilter || expr.kind == ExprKind::kTest || expr.kind == ExprKind::kSlice;
    return around && !expr.parts.empty() && expr.parts[0] ? bare(*expr.parts[0]) : expr;
}

class ContentLoops {
  public:
    explicit ContentLoops(const Block& root) : root_(root) {
        find_aliases();
        find_message_names();
    }

    bool any() {
        bool found = false;
        loops_in(root_, {}, false, found);
        return found;
    }

  private:
    // Variables that hold the messages, or some of them.
    void find_aliases() {
        for (size_t known = 0; known != lists_.size();) {
            known = lists_.size();
            walk(
                root_,
                [&](const Stmt& stmt) {
                    if (stmt.kind != StmtKind::kSet || stmt.target.is_tuple)
                        return;
                    const std::string& name = stmt.target.name;
                    if (lists_.contains(variable_of(bare(*stmt.a))))
                        lists_.insert(stmt.target.attribute.empty() ? name
                                                                    : name + "." + stmt.target.attribute);
                    if (stmt.a->kind == ExprKind::kCall && stmt.a->parts[0]->kind == ExprKind::kName &&
                        stmt.a->parts[0]->name == "namespace")
                        for (const auto& [member, value] : stmt.a->named)
                            if (lists_.contains(variable_of(bare(*value))))
                                lists_.insert(name + "." + member);
                },
                no_expr);
        }
    }

    // Variables that loops over the messages give one of them.
    void find_message_names() {
        walk(
            root_,
            [&](const Stmt& stmt) {
                if (stmt.kind == StmtKind::kFor && !stmt.target.is_tuple &&
                    lists_.contains(variable_of(bare(*stmt.a))))
                    messages_.insert(stmt.target.name);
            },
            no_expr);
    }

    // message.content or message['content']
    bool is_content(const Expr& whole) const {
        const Expr& expr = bare(whole);
        const bool attribute = expr.kind == ExprKind::kAttribute && expr.name == "content";
        const bool item = expr.kind == ExprKind::kItem && expr.parts[1]->kind == ExprKind::kConstant &&
                          expr.parts[1]->value.string() && *expr.parts[1]->value.string() == "content";
        return (attribute || item) && messages_.contains(variable_of(*expr.parts[0]));
    }

    // The parameters of `macro` that some call gives a content.
    std::set<std::string> content_parameters(const Stmt& macro) const {
        std::set<std::string> out;
        walk(
            root_, [](const Stmt&) {},
            [&](const Expr& call) {
                if (call.kind != ExprKind::kCall || call.parts[0]->kind != ExprKind::kName ||
                    call.parts[0]->name != macro.text)
                    return;
                for (size_t i = 1; i < call.parts.size() && i <= macro.parameters.size(); ++i)
                    if (is_content(*call.parts[i]))
                        out.insert(macro.parameters[i - 1].name);
                for (const auto& [name, value] : call.named)
                    if (is_content(*value))
                        out.insert(name);
            });
        return out;
    }

    void loops_in(const Block& block, const std::set<std::string>& parameters, bool in_macro, bool& found) {
        for (const auto& stmt : block) {
            if (stmt->kind == StmtKind::kFor) {
                const std::string over = stmt->a->kind == ExprKind::kName ? stmt->a->name : "";
                found = found || is_content(*stmt->a) || parameters.contains(over) ||
                        (!in_macro && over == "content");
            }
            const bool macro = stmt->kind == StmtKind::kMacro;
            const std::set<std::string> own = macro ? content_parameters(*stmt) : parameters;
            loops_in(stmt->body, own, in_macro || macro, found);
            loops_in(stmt->otherwise, own, in_macro || macro, found);
        }
    }

    const Block& root_;
    std::set<std::string> lists_{"messages"};
    std::set<std::string> messages_;
};

}  // namespace

void check_names(const Block& block) {
    NameCheck().block(block, false);
}

bool reads(const Block& block, std::string_view variable) {
    bool found = false;
    walk(
        block, [](const Stmt&) {},
        [&](const Expr& expr) { found = found || (expr.kind == ExprKind::kName && expr.name == variable); });
    return found;
}

bool walks_content(const Block& block) {
    return ContentLoops(block).any();
}

}  // namespace llm::engine::jinja
