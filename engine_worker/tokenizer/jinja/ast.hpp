// The tree of a parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine_worker/tokenizer/jinja/value.hpp"

namespace llm::engine::jinja {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

enum class ExprKind {
    kConstant,   // value
    kName,       // name
    kList,       // parts
    kTuple,      // parts
    kDict,       // parts: key, value, key, value, …
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], null where left out
    kCall,       // parts[0](parts[1…], named…)
    kFilter,  // parts[0] | name(parts[1…], named…); parts[0] is null in {% filter %} and {% set x | f %}
    kTest,    // parts[0] is name(parts[1…], named…)
    kNot,     // not parts[0]
    kNegative,     // -parts[0]
    kPositive,     // +parts[0]
    kAnd,          // parts[0] and parts[1]
    kOr,           // parts[0] or parts[1]
    kConditional,  // parts[0] if parts[1] else parts[2]; parts[2] may be null
    kConcat,       // parts[0] ~ parts[1] ~ …
    kCompare,      // parts[0] operators[0] parts[1] operators[1] parts[2] …
    kArithmetic,   // parts[0] operators[0] parts[1]
};

enum class Operator {
    kAdd,
    kSub,
    kMul,
    kDiv,
    kFloorDiv,
    kMod,
    kPow,
    kEq,
    kNe,
    kLt,
    kLe,
    kGt,
    kGe,
    kIn,
    kNotIn
};

struct Expr {
    ExprKind kind;
    int line;
    std::string name;
    Value value;
    std::vector<ExprPtr> parts;
    std::vector<std::pair<std::string, ExprPtr>> named;
    std::vector<Operator> operators;
    ExprPtr spread, named_spread;  // *expression and **expression of a call
};

struct Stmt;
using Block = std::vector<std::unique_ptr<Stmt>>;

enum class StmtKind {
    kText,         // text
    kOutput,       // a
    kIf,           // a; body; otherwise (an elif is an if in it)
    kFor,          // target; a; b = filter or null; body; otherwise
    kSet,          // target; a
    kSetBlock,     // target; a = filter chain or null; body
    kMacro,        // name; parameters; body
    kCallBlock,    // a = call; parameters; body
    kFilterBlock,  // a = filter chain; body
    kWith,         // targets and values in parameters; body
    kScope,        // body in a scope of its own ({% generation %})
    kBreak,
    kContinue,
};

// Names to assign to: one, a tuple of targets, or an attribute of a namespace.
struct Target {
    std::string name;
    std::string attribute;  // ns.attribute
    std::vector<Target> tuple;
    bool is_tuple = false;
};

struct Parameter {
    std::string name;
    ExprPtr fallback;  // null = none; in {% with %} the value
};

struct Stmt {
    StmtKind kind;
    int line;
    std::string text;  // kText; the name of a macro
    ExprPtr a, b;
    Target target;
    std::vector<Parameter> parameters;
    Block body, otherwise;
    bool uses_caller = false;  // a macro whose body names `caller` (and kwargs, varargs): it takes them
    bool uses_kwargs = false;
    bool uses_varargs = false;
};

}  // namespace llm::engine::jinja
