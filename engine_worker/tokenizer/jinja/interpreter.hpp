// Runs a parsed template. Untrusted code: steps, memory, depth and output are bounded, and nothing outside of
// the given variables can be reached.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine_worker/tokenizer/jinja/ast.hpp"
#include "engine_worker/tokenizer/jinja/value.hpp"

namespace llm::engine::jinja {

struct Limits {
    size_t steps = 4'000'000;           // nodes evaluated, and the bytes that functions look at, by 64
    size_t output = 4 * 1024 * 1024;    // bytes of any one text, the result included
    size_t memory = 256 * 1024 * 1024;  // bytes of all texts and lists ever made
    int depth = 1000;                   // of evaluation: nested nodes and macro calls
};

// The variable `loop` of a {% for %}: walks its items with one item of look-ahead, as jinja2 does, so that a
// filter sees what the body changed.
struct Loop {
    std::vector<Value> items;  // before the filter
    std::function<bool(const Value&)> filter;
    size_t at = 0;  // next of `items` to look at
    int64_t index0 = -1;
    int depth0 = 0;
    std::optional<Value> ahead, previous, current;
    std::vector<Value> changed;  // what loop.changed() saw last
    bool changed_known = false;

    // The next item that passes the filter; nullopt at the end.
    std::optional<Value> pull();
    bool advance();  // to the next item; false at the end
    const std::optional<Value>& peek();
    int64_t length();  // looks at all that is left
};

class Interpreter {
  public:
    // `now`: seconds since 1970 for strftime_now, nullopt = the clock. `variables` stay as they are.
    Interpreter(const Limits& limits, const Dict& variables, std::optional<int64_t> now);

    // The rendered text. Throws TemplateError.
    std::string run(const Block& block);

    // ---- for the builtins

    [[noreturn]] void fail(const std::string& what) const;
    // Counts `bytes` looked at against the steps; made, against the memory.
    void charge(size_t bytes);
    void charge_memory(size_t bytes);
    const Limits& limits() const { return limits_; }
    std::optional<int64_t> now() const { return now_; }

    Value call(const Value& function, Arguments& args);
    // object.name and object[key]; missing ones are undefined, of undefined it is an error.
    Value attribute(const Value& object, std::string_view name);
    Value item(const Value& object, const Value& key);
    // The items Python's iter() would give. Throws TemplateError when there are none to give.
    std::vector<Value> iterate(const Value& value);
    // str(value), its cost charged. A string comes back as it is, markup included.
    Value to_string(const Value& value);
    std::string text_of(const Value& value);
    Value make_text(std::string text, bool markup = false);
    Value make_list(std::vector<Value> items, List::Kind kind = List::Kind::kList);
    bool contains(const Value& container, const Value& item);
    Value arithmetic(Operator op, const Value& a, const Value& b);
    Namespace* make_namespace();

  private:
    struct Scope {
        Scope* outer = nullptr;
        std::vector<std::pair<std::string_view, Value>> names;
        bool captured = false;  // a macro refers to it: it lives as long as the rendering
    };
    class Entered;
    enum class Flow { kNormal, kBreak, kContinue };

    Scope* open_scope(Scope* outer);
    void close_scope(Scope* scope);
    void assign(Scope& scope, std::string_view name, Value value);
    void assign(Scope& scope, const Target& target, const Value& value);
    Value lookup(const std::string& name) const;

    Flow execute(const Block& block);
    Flow execute(const Stmt& stmt);
    Flow execute_for(const Stmt& stmt);
    std::string capture(const Block& block);
    void emit(std::string_view text);
    Value make_macro(const Stmt& stmt, std::string name);
    Value call_macro(const Stmt& stmt, Scope* closure, const std::string& name, Arguments& args);

    Value evaluate(const Expr& expr);
    Value evaluate_call(const Expr& expr);
    Value evaluate_slice(const Expr& expr);
    bool evaluate_compare(const Expr& expr);
    // Filters `value`, which takes the place of the innermost missing operand of a chain.
    Value apply_filters(const Expr& expr, Value value);
    Arguments evaluate_arguments(const Expr& expr, size_t first);

    Limits limits_;
    const Dict& variables_;
    std::optional<int64_t> now_;
    size_t steps_ = 0;
    size_t memory_ = 0;
    int depth_ = 0;
    int loop_depth_ = 0;
    int line_ = 1;
    std::deque<Scope> scopes_;
    std::vector<Scope*> free_scopes_;
    std::deque<Namespace> namespaces_;
    std::deque<Loop> loops_;  // kept to the end: a template may hold on to `loop`, and have it hold itself
    Scope* scope_ = nullptr;
    std::string* output_ = nullptr;
};

}  // namespace llm::engine::jinja
