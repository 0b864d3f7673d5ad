// The values of a template: Python's, as far as templates see them. All are immutable except namespaces, so
// copies share.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace llm::engine::jinja {

class Value;
class Interpreter;
struct Loop;

// How deep lists and dicts may nest, whether they come from a request or are built by a template: everything
// that walks a value recurses, its destructor too.
constexpr int kMaxValueDepth = 200;

// What a value cannot do. The interpreter adds where in the template it was asked to.
class ValueError : public std::runtime_error {
  public:
    using std::runtime_error::runtime_error;
};

struct None {};

// What a missing variable or attribute gives: renders as nothing, fails in most other uses with `message`.
struct Undefined {
    std::shared_ptr<const std::string> message;
};

struct Str {
    std::shared_ptr<const std::string> text;  // valid UTF-8
    bool markup = false;  // went through `safe`: `+` then escapes the other side, as Markup does
};

struct List {
    enum class Kind { kList, kTuple, kRange, kKeys, kValues, kItems, kGenerator };
    Kind kind = Kind::kList;
    std::vector<Value> items;
    int depth = 1;
    mutable bool consumed = false;  // a generator gives its items once
};

// Insertion-ordered, as Python's.
class Dict {
  public:
    using Entry = std::pair<Value, Value>;
    const std::vector<Entry>& entries() const { return entries_; }
    const Value* find(const Value& key) const;
    const Value* find(std::string_view key) const;
    // Replaces the value of an equal key in place.
    void set(Value key, Value value);
    int depth() const { return depth_; }

  private:
    std::vector<Entry> entries_;
    std::vector<uint32_t> index_;  // open addressing over string keys, built past a handful of entries
    int depth_ = 1;

    size_t locate(std::string_view key) const;
    void reindex();
};

// {% set ns.x = … %} changes it in place. Owned by the interpreter, so that one may hold itself.
struct Namespace {
    std::vector<std::pair<std::string, Value>> attributes;
};

struct Arguments {
    std::vector<Value> positional;
    std::vector<std::pair<std::string, Value>> named;
};

struct Callable {
    std::string name;
    std::function<Value(Interpreter&, Arguments&)> call;
};

class Value {
  public:
    Value() : data_(None{}) {}
    Value(None) : data_(None{}) {}
    Value(bool value) : data_(value) {}
    Value(int value) : data_(static_cast<int64_t>(value)) {}
    Value(int64_t value) : data_(value) {}
    Value(uint64_t value);  // an integer like any other where it fits int64
    Value(double value) : data_(value) {}
    Value(std::string text) : data_(Str{std::make_shared<const std::string>(std::move(text)), false}) {}
    Value(std::string_view text) : Value(std::string(text)) {}
    Value(const char* text) : Value(std::string(text)) {}
    Value(Str text) : data_(std::move(text)) {}
    Value(Undefined undefined) : data_(std::move(undefined)) {}
    Value(std::shared_ptr<const List> list) : data_(std::move(list)) {}
    Value(std::shared_ptr<const Dict> dict) : data_(std::move(dict)) {}
    Value(Namespace* space) : data_(space) {}
    Value(Loop* loop) : data_(loop) {}
    Value(std::shared_ptr<const Callable> callable) : data_(std::move(callable)) {}

    // Throws ValueError past kMaxValueDepth.
    static Value list(std::vector<Value> items, List::Kind kind = List::Kind::kList);
    static Value dict(Dict dict);
    static Value undefined(std::string message);
    static Value markup(std::string text);
    // The values of a request. Integers that fit no 64 bits become floats. Throws ValueError past
    // kMaxValueDepth.
    static Value from_json(const nlohmann::ordered_json& json, int depth = 0);

    template <class T>
    const T* as() const {
        return std::get_if<T>(&data_);
    }
    bool is_undefined() const { return as<Undefined>() != nullptr; }
    bool is_none() const { return as<None>() != nullptr; }
    bool is_bool() const { return as<bool>() != nullptr; }
    bool is_string() const { return as<Str>() != nullptr; }
    const std::string* string() const {
        const Str* s = as<Str>();
        return s ? s->text.get() : nullptr;
    }
    bool is_markup() const {
        const Str* s = as<Str>();
        return s && s->markup;
    }
    const List* as_list() const {
        auto p = as<std::shared_ptr<const List>>();
        return p ? p->get() : nullptr;
    }
    const Dict* as_dict() const {
        auto p = as<std::shared_ptr<const Dict>>();
        return p ? p->get() : nullptr;
    }
    Namespace* as_namespace() const {
        auto p = as<Namespace*>();
        return p ? *p : nullptr;
    }
    Loop* as_loop() const {
        auto p = as<Loop*>();
        return p ? *p : nullptr;
    }
    const Callable* as_callable() const {
        auto p = as<std::shared_ptr<const Callable>>();
        return p ? p->get() : nullptr;
    }
    // A bool is an integer too, as in Python. False when it is neither, and for integers beyond int64: these pass
    // through a template, which cannot reckon with them.
    bool to_integer(int64_t& out) const;
    const uint64_t* as_large() const { return as<uint64_t>(); }
    // Integers, bools and floats.
    bool to_number(double& out) const;
    bool is_number() const {
        double ignored;
        return to_number(ignored);
    }
    bool is_float() const { return as<double>() != nullptr; }

    bool truthy() const;
    // Python's type name ("dict", "str", …).
    const char* type_name() const;
    int depth() const;

  private:
    std::variant<None, bool, int64_t, uint64_t, double, Str, Undefined, std::shared_ptr<const List>,
                 std::shared_ptr<const Dict>, Namespace*, Loop*, std::shared_ptr<const Callable>>
        data_;
};

// Python's ==. O(size).
bool equal(const Value& a, const Value& b);
// Negative, zero or positive; throws ValueError where Python has no order between the two.
int compare(const Value& a, const Value& b);
// Whether Python would take it as a dict key.
bool hashable(const Value& value);

}  // namespace llm::engine::jinja
