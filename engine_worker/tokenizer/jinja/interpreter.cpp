// Statements, scopes and limits; expressions are in expressions.cpp.
#include "engine_worker/tokenizer/jinja/interpreter.hpp"

#include "engine_worker/tokenizer/chat_template.hpp"
#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/nesting.hpp"
#include "engine_worker/tokenizer/jinja/python_format.hpp"

namespace llm::engine::jinja {

// ---- Loop

std::optional<Value> Loop::pull() {
    while (at < items.size()) {
        Value item = items[at++];
        if (!filter || filter(item))
            return item;
    }
    return std::nullopt;
}

const std::optional<Value>& Loop::peek() {
    if (!ahead)
        ahead = pull();
    return ahead;
}

bool Loop::advance() {
    std::optional<Value> next = std::move(ahead);
    ahead.reset();
    if (!next)
        next = pull();
    if (!next)
        return false;
    previous = std::move(current);
    current = std::move(next);
    ++index0;
    return true;
}

int64_t Loop::length() {
    if (filter) {  // what is left is decided now, once
        std::vector<Value> rest;
        for (std::optional<Value> item = peek(); item; item = pull())
            rest.push_back(std::move(*item));
        ahead.reset();
        items = std::move(rest);
        at = 0;
        filter = nullptr;
    }
    return index0 + 1 + static_cast<int64_t>(items.size() - at) + (ahead ? 1 : 0);
}

// ---- Interpreter

// Makes `scope` the current one and closes it at the end.
class Interpreter::Entered {
  public:
    Entered(Interpreter& interpreter, Scope* outer)
        : interpreter_(interpreter), before_(interpreter.scope_), scope_(interpreter.open_scope(outer)) {
        interpreter_.scope_ = scope_;
    }
    ~Entered() {
        interpreter_.scope_ = before_;
        interpreter_.close_scope(scope_);
    }
    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

  private:
    Interpreter& interpreter_;
    Scope* before_;
    Scope* scope_;
};

Interpreter::Interpreter(const Limits& limits, const Dict& variables, std::optional<int64_t> now)
    : limits_(limits), variables_(variables), now_(now) {}

std::string Interpreter::run(const Block& block) {
    std::string out;
    output_ = &out;
    Entered entered(*this, nullptr);
    try {
        execute(block);
    } catch (const ValueError& error) {
        fail(error.what());
    }
    return out;
}

void Interpreter::fail(const std::string& what) const {
    throw TemplateError("chat template, line " + std::to_string(line_) + ": " + what);
}

void Interpreter::charge(size_t bytes) {
    steps_ += 1 + bytes / 64;
    if (steps_ > limits_.steps)
        fail("takes too many steps");
}

void Interpreter::charge_memory(size_t bytes) {
    memory_ += bytes;
    if (memory_ > limits_.memory)
        fail("takes too much memory");
}

Interpreter::Scope* Interpreter::open_scope(Scope* outer) {
    Scope* scope;
    if (free_scopes_.empty()) {
        charge_memory(sizeof(Scope));
        scope = &scopes_.emplace_back();
    } else {
        scope = free_scopes_.back();
        free_scopes_.pop_back();
    }
    scope->outer = outer;
    return scope;
}

void Interpreter::close_scope(Scope* scope) {
    if (scope->captured)
        return;
    scope->names.clear();
    free_scopes_.push_back(scope);
}

void Interpreter::assign(Scope& scope, std::string_view name, Value value) {
    for (auto& [known, old] : scope.names) {
        if (known == name) {
            old = std::move(value);
            return;
        }
    }
    scope.names.emplace_back(name, std::move(value));
}

void Interpreter::assign(Scope& scope, const Target& target, const Value& value) {
    if (target.is_tuple) {
        const std::vector<Value> items = iterate(value);
        if (items.size() != target.tuple.size())
            fail("cannot unpack " + std::to_string(items.size()) + " values into " +
                 std::to_string(target.tuple.size()) + " names");
        for (size_t i = 0; i < items.size(); ++i)
            assign(scope, target.tuple[i], items[i]);
        return;
    }
    if (target.attribute.empty())
        return assign(scope, std::string_view(target.name), value);
    Namespace* space = lookup(target.name).as_namespace();
    if (!space)
        fail("cannot assign attribute on non-namespace object");
    for (auto& [name, old] : space->attributes) {
        if (name == target.attribute) {
            old = value;
            return;
        }
    }
    charge_memory(sizeof(Value));
    space->attributes.emplace_back(target.attribute, value);
}

Value Interpreter::lookup(const std::string& name) const {
    for (const Scope* scope = scope_; scope; scope = scope->outer)
        for (const auto& [known, value] : scope->names)
            if (known == name)
                return value;
    if (const Value* value = variables_.find(std::string_view(name)))
        return *value;
    if (std::optional<Value> global = find_global(name))
        return *global;
    return Value::undefined("'" + name + "' is undefined");
}

Namespace* Interpreter::make_namespace() {
    charge_memory(sizeof(Namespace));
    return &namespaces_.emplace_back();
}

void Interpreter::emit(std::string_view text) {
    if (output_->size() + text.size() > limits_.output)
        fail("the template produces too much text");
    output_->append(text);
}

std::string Interpreter::capture(const Block& block) {
    std::string text;
    std::string* before = std::exchange(output_, &text);
    try {
        execute(block);
    } catch (...) {
        output_ = before;
        throw;
    }
    output_ = before;
    charge_memory(text.size());
    return text;
}

Interpreter::Flow Interpreter::execute(const Block& block) {
    for (const auto& stmt : block)
        if (const Flow flow = execute(*stmt); flow != Flow::kNormal)
            return flow;
    return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute(const Stmt& stmt) {
    Nesting nesting(depth_, limits_.depth);
    line_ = stmt.line;
    charge(0);
    switch (stmt.kind) {
        case StmtKind::kText:
            emit(stmt.text);
            break;
        case StmtKind::kOutput: {
            const Value value = evaluate(*stmt.a);
            if (const std::string* text = value.string())
                emit(*text);
            else
                emit(text_of(value));
            break;
        }
        case StmtKind::kIf:
            return execute(evaluate(*stmt.a).truthy() ? stmt.body : stmt.otherwise);
        case StmtKind::kFor:
            return execute_for(stmt);
        case StmtKind::kSet:
            assign(*scope_, stmt.target, evaluate(*stmt.a));
            break;
        case StmtKind::kSetBlock: {
            Value value;
            {
                Entered entered(*this, scope_);
                value = Value(capture(stmt.body));
            }
            if (stmt.a)
                value = apply_filters(*stmt.a, std::move(value));
            assign(*scope_, stmt.target, value);
            break;
        }
        case StmtKind::kMacro:
            assign(*scope_, stmt.text, make_macro(stmt, stmt.text));
            break;
        case StmtKind::kCallBlock: {
            Arguments args = evaluate_arguments(*stmt.a, 1);
            args.named.emplace_back("caller", make_macro(stmt, "caller"));
            const Value function = evaluate(*stmt.a->parts[0]);
            emit(text_of(call(function, args)));
            break;
        }
        case StmtKind::kFilterBlock: {
            Value value;
            {
                Entered entered(*this, scope_);
                value = Value(capture(stmt.body));
            }
            emit(text_of(apply_filters(*stmt.a, std::move(value))));
            break;
        }
        case StmtKind::kWith: {
            std::vector<Value> values;  // all are evaluated outside of the new scope
            for (const Parameter& parameter : stmt.parameters)
                values.push_back(evaluate(*parameter.fallback));
            Entered entered(*this, scope_);
            for (size_t i = 0; i < values.size(); ++i)
                assign(*scope_, stmt.parameters[i].name, std::move(values[i]));
            return execute(stmt.body);
        }
        case StmtKind::kScope: {
            Entered entered(*this, scope_);
            return execute(stmt.body);
        }
        case StmtKind::kBreak:
            return Flow::kBreak;
        case StmtKind::kContinue:
            return Flow::kContinue;
    }
    return Flow::kNormal;
}

Interpreter::Flow Interpreter::execute_for(const Stmt& stmt) {
    charge_memory(sizeof(Loop));
    Loop* const loop = &loops_.emplace_back();
    loop->items = iterate(evaluate(*stmt.a));
    loop->depth0 = loop_depth_;
    charge_memory(loop->items.size() * sizeof(Value));
    Scope* const around = scope_;
    if (stmt.b) {
        loop->filter = [this, &stmt, around](const Value& item) {
            Scope* const before = std::exchange(scope_, around);
            bool pass = false;
            try {
                Entered entered(*this, around);
                assign(*scope_, stmt.target, item);
                pass = evaluate(*stmt.b).truthy();
            } catch (...) {
                scope_ = before;
                throw;
            }
            scope_ = before;
            return pass;
        };
    }
    // The loop outlives this call, what its filter refers to does not.
    struct Finish {
        Interpreter& interpreter;
        Loop& loop;
        ~Finish() {
            --interpreter.loop_depth_;
            loop.filter = nullptr;
            loop.items.clear();
            loop.at = 0;
        }
    };
    ++loop_depth_;
    Finish finish{*this, *loop};
    bool any = false;  // as jinja2 sees it: a turn that break or continue cuts short is none
    while (loop->advance()) {
        charge(0);
        Entered entered(*this, around);
        assign(*scope_, stmt.target, *loop->current);
        assign(*scope_, "loop", Value(loop));
        const Flow flow = execute(stmt.body);
        if (flow == Flow::kBreak)
            break;
        any = any || flow == Flow::kNormal;
    }
    if (any)
        return Flow::kNormal;
    Entered entered(*this, around);
    return execute(stmt.otherwise);
}

Value Interpreter::make_macro(const Stmt& stmt, std::string name) {
    for (Scope* scope = scope_; scope && !scope->captured; scope = scope->outer)
        scope->captured = true;
    auto macro = std::make_shared<Callable>();
    macro->name = std::move(name);
    macro->call = [&stmt, closure = scope_, own = macro->name](Interpreter& interpreter, Arguments& args) {
        return interpreter.call_macro(stmt, closure, own, args);
    };
    return Value(std::shared_ptr<const Callable>(std::move(macro)));
}

Value Interpreter::call_macro(const Stmt& stmt, Scope* closure, const std::string& name, Arguments& args) {
    Nesting nesting(depth_, limits_.depth);
    const auto& parameters = stmt.parameters;
    const size_t given = std::min(args.positional.size(), parameters.size());
    std::vector<std::optional<Value>> values(parameters.size());
    for (size_t i = 0; i < given; ++i)
        values[i] = std::move(args.positional[i]);
    std::optional<Value> caller;
    Dict others;
    for (auto& [key, value] : args.named) {
        size_t i = 0;
        while (i < parameters.size() && parameters[i].name != key)
            ++i;
        if (i < parameters.size() && values[i])
            fail("macro '" + name + "' got two values for '" + key + "'");
        if (i < parameters.size())
            values[i] = std::move(value);
        else if (key == "caller" && stmt.uses_caller)
            caller = std::move(value);
        else if (stmt.uses_kwargs)
            others.set(Value(key), std::move(value));
        else
            fail("macro '" + name + "' takes no keyword argument '" + key + "'");
    }
    if (args.positional.size() > parameters.size() && !stmt.uses_varargs)
        fail("macro '" + name + "' takes not more than " + std::to_string(parameters.size()) +
             " argument(s)");

    Scope* const before = std::exchange(scope_, closure);
    const int line = line_;
    struct Restore {
        Interpreter& interpreter;
        Scope* scope;
        int line;
        ~Restore() {
            interpreter.scope_ = scope;
            interpreter.line_ = line;
        }
    } restore{*this, before, line};
    Entered entered(*this, closure);
    if (stmt.uses_caller)
        assign(*scope_, "caller", caller ? *caller : Value::undefined("No caller defined"));
    if (stmt.uses_kwargs)
        assign(*scope_, "kwargs", Value::dict(std::move(others)));
    if (stmt.uses_varargs)
        assign(
            *scope_, "varargs",
            make_list({args.positional.begin() + static_cast<std::ptrdiff_t>(given), args.positional.end()},
                      List::Kind::kTuple));
    for (size_t i = 0; i < parameters.size(); ++i) {  // a default may use the parameters before it
        if (!values[i])
            values[i] = parameters[i].fallback
                            ? evaluate(*parameters[i].fallback)
                            : Value::undefined("parameter '" + parameters[i].name + "' was not provided");
        assign(*scope_, parameters[i].name, std::move(*values[i]));
    }
    return Value(capture(stmt.body));
}

}  // namespace llm::engine::jinja
