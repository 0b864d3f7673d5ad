// Evaluation of expressions.
#include <algorithm>
#include <cmath>

#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/interpreter.hpp"
#include "engine_worker/tokenizer/jinja/nesting.hpp"
#include "engine_worker/tokenizer/jinja/python_format.hpp"
#include "engine_worker/tokenizer/jinja/python_text.hpp"

namespace llm::engine::jinja {
namespace {

// How jinja2 names the owner of a missing attribute.
std::string owner(const Value& value) {
    return value.is_none() ? "None" : std::string(value.type_name()) + " object";
}

}  // namespace

Value Interpreter::evaluate(const Expr& expr) {
    Nesting nesting(depth_, limits_.depth);
    charge(0);
    line_ = expr.line;
    auto part = [&](size_t i) { return evaluate(*expr.parts[i]); };
    switch (expr.kind) {
        case ExprKind::kConstant:
            return expr.value;
        case ExprKind::kName:
            return lookup(expr.name);
        case ExprKind::kList:
        case ExprKind::kTuple: {
            std::vector<Value> items;
            for (const auto& item : expr.parts)
                items.push_back(evaluate(*item));
            return make_list(std::move(items),
                             expr.kind == ExprKind::kList ? List::Kind::kList : List::Kind::kTuple);
        }
        case ExprKind::kDict: {
            Dict dict;
            for (size_t i = 0; i + 1 < expr.parts.size(); i += 2) {
                Value key = part(i);
                if (!hashable(key))
                    fail(std::string("unhashable type: '") + key.type_name() + "'");
                dict.set(std::move(key), part(i + 1));
            }
            charge_memory(expr.parts.size() * sizeof(Value));
            return Value::dict(std::move(dict));
        }
        case ExprKind::kAttribute:
            return attribute(part(0), expr.name);
        case ExprKind::kItem: {
            const Value object = part(0);
            return item(object, part(1));
        }
        case ExprKind::kSlice:
            return evaluate_slice(expr);
        case ExprKind::kCall:
            return evaluate_call(expr);
        case ExprKind::kFilter:
            return apply_filters(expr, Value());
        case ExprKind::kTest: {
            const Value value = part(0);
            Arguments args = evaluate_arguments(expr, 1);
            const Test test = find_test(expr.name);
            if (!test)
                fail("test '" + expr.name + "' is not supported");
            return Value(test(*this, value, args));
        }
        case ExprKind::kNot:
            return Value(!part(0).truthy());
        case ExprKind::kNegative:
        case ExprKind::kPositive: {
            const Value value = part(0);
            int64_t integer;
            double real;
            if (value.as_large())
                fail("integer too large");
            if (value.to_integer(integer)) {
                if (expr.kind == ExprKind::kNegative && integer == INT64_MIN)
                    fail("integer too large");
                return Value(expr.kind == ExprKind::kNegative ? -integer : integer);
            }
            if (value.to_number(real))
                return Value(expr.kind == ExprKind::kNegative ? -real : real);
            if (const auto* undefined = value.as<Undefined>())
                fail(*undefined->message);
            fail(std::string("bad operand type for unary operator: '") + value.type_name() + "'");
        }
        case ExprKind::kAnd: {
            Value left = part(0);
            return left.truthy() ? part(1) : left;
        }
        case ExprKind::kOr: {
            Value left = part(0);
            return left.truthy() ? left : part(1);
        }
        case ExprKind::kConditional:
            if (part(1).truthy())
                return part(0);
            if (expr.parts[2])
                return part(2);
            return Value::undefined(
                "the inline if-expression evaluated to false and no else section was defined");
        case ExprKind::kConcat: {
            std::string text;
            for (const auto& operand : expr.parts)
                append_str(text, evaluate(*operand), limits_.output);
            return make_text(std::move(text));
        }
        case ExprKind::kCompare:
            return Value(evaluate_compare(expr));
        case ExprKind::kArithmetic: {
            const Value left = part(0);
            return arithmetic(expr.operators[0], left, part(1));
        }
    }
    return {};
}

bool Interpreter::evaluate_compare(const Expr& expr) {
    Value left = evaluate(*expr.parts[0]);
    for (size_t i = 0; i < expr.operators.size(); ++i) {
        Value right = evaluate(*expr.parts[i + 1]);
        if (left.string() && right.string())
            charge(std::min(left.string()->size(), right.string()->size()));
        bool holds = false;
        switch (expr.operators[i]) {
            case Operator::kEq:
                holds = equal(left, right);
                break;
            case Operator::kNe:
                holds = !equal(left, right);
                break;
            case Operator::kLt:
                holds = compare(left, right) < 0;
                break;
            case Operator::kLe:
                holds = compare(left, right) <= 0;
                break;
            case Operator::kGt:
                holds = compare(left, right) > 0;
                break;
            case Operator::kGe:
                holds = compare(left, right) >= 0;
                break;
            case Operator::kNotIn:
                holds = !contains(right, left);
                break;
            default:
                holds = contains(right, left);
        }
        if (!holds)
            return false;
        left = std::move(right);
    }
    return true;
}

Value Interpreter::evaluate_slice(const Expr& expr) {
    const Value object = evaluate(*expr.parts[0]);
    std::optional<int64_t> bounds[3];
    for (size_t i = 0; i < 3; ++i) {
        if (!expr.parts[i + 1])
            continue;
        const Value value = evaluate(*expr.parts[i + 1]);
        int64_t integer;
        if (value.to_integer(integer))
            bounds[i] = integer;
        else if (!value.is_none())
            fail("slice indices must be integers");
    }
    if (const auto* undefined = object.as<Undefined>())
        fail(*undefined->message);
    const List* list = object.as_list();
    const bool indexable = list && (list->kind == List::Kind::kList || list->kind == List::Kind::kTuple ||
                                    list->kind == List::Kind::kRange);
    if (!object.is_string() && !indexable)
        fail(owner(object) + " cannot be sliced");
    const int64_t step = bounds[2].value_or(1);
    if (step == 0)
        fail("slice step cannot be zero");

    std::vector<std::string_view> letters;
    if (object.is_string()) {
        charge(object.string()->size());
        letters = characters(*object.string());
    }
    const auto size = static_cast<int64_t>(object.is_string() ? letters.size() : list->items.size());
    // Python's slice.indices().
    auto clamp = [&](std::optional<int64_t> bound, int64_t absent) {
        if (!bound)
            return absent;
        int64_t at = *bound < 0 ? *bound + size : *bound;
        return std::clamp<int64_t>(at, step < 0 ? -1 : 0, step < 0 ? size - 1 : size);
    };
    const int64_t first = clamp(bounds[0], step < 0 ? size - 1 : 0),
                  last = clamp(bounds[1], step < 0 ? -1 : size);
    std::string text;
    std::vector<Value> items;
    for (int64_t i = first; step < 0 ? i > last : i < last;) {
        if (object.is_string())
            text += letters[static_cast<size_t>(i)];
        else
            items.push_back(list->items[static_cast<size_t>(i)]);
        if (__builtin_add_overflow(i, step, &i))
            break;
    }
    return object.is_string() ? make_text(std::move(text), object.is_markup())
                              : make_list(std::move(items), list->kind);
}

Arguments Interpreter::evaluate_arguments(const Expr& expr, size_t first) {
    Arguments args;
    for (size_t i = first; i < expr.parts.size(); ++i)
        args.positional.push_back(evaluate(*expr.parts[i]));
    for (const auto& [name, value] : expr.named)
        args.named.emplace_back(name, evaluate(*value));
    if (expr.spread)
        for (Value& value : iterate(evaluate(*expr.spread)))
            args.positional.push_back(std::move(value));
    if (expr.named_spread) {
        const Value value = evaluate(*expr.named_spread);
        const Dict* dict = value.as_dict();
        if (!dict)
            fail("argument after ** must be a mapping");
        for (const auto& [key, item] : dict->entries()) {
            if (!key.string())
                fail("keywords must be strings");
            args.named.emplace_back(*key.string(), item);
        }
    }
    return args;
}

Value Interpreter::evaluate_call(const Expr& expr) {
    const Value function = evaluate(*expr.parts[0]);
    Arguments args = evaluate_arguments(expr, 1);
    line_ = expr.line;
    return call(function, args);
}

Value Interpreter::call(const Value& function, Arguments& args) {
    const Callable* callable = function.as_callable();
    if (callable)
        return callable->call(*this, args);
    if (const auto* undefined = function.as<Undefined>())
        fail(*undefined->message);
    fail(std::string("'") + function.type_name() + "' object is not callable");
}

Value Interpreter::apply_filters(const Expr& expr, Value value) {
    Nesting nesting(depth_, limits_.depth);
    if (const Expr* inner = expr.parts[0].get())
        value = inner->kind == ExprKind::kFilter ? apply_filters(*inner, std::move(value)) : evaluate(*inner);
    Arguments args = evaluate_arguments(expr, 1);
    charge(0);
    line_ = expr.line;
    const Filter filter = find_filter(expr.name);
    if (!filter)
        fail("filter '" + expr.name + "' is not supported");
    return filter(*this, value, args);
}

// ---- Attributes and items

Value Interpreter::attribute(const Value& object, std::string_view name) {
    if (const auto* undefined = object.as<Undefined>())
        fail(*undefined->message);
    if (std::optional<Value> method = find_method(object, name))
        return *method;
    if (const Dict* dict = object.as_dict()) {
        if (const Value* value = dict->find(name))
            return *value;
    } else if (const Namespace* space = object.as_namespace()) {
        for (const auto& [known, value] : space->attributes)
            if (known == name)
                return value;
    }
    return Value::undefined("'" + owner(object) + "' has no attribute " + string_repr(name));
}

Value Interpreter::item(const Value& object, const Value& key) {
    if (const auto* undefined = object.as<Undefined>())
        fail(*undefined->message);
    if (const Dict* dict = object.as_dict()) {
        if (const Value* value = dict->find(key))
            return *value;
    }
    int64_t index;
    const List* list = object.as_list();
    const bool indexable = list && (list->kind == List::Kind::kList || list->kind == List::Kind::kTuple ||
                                    list->kind == List::Kind::kRange);
    if (key.to_integer(index)) {
        if (indexable) {
            const auto size = static_cast<int64_t>(list->items.size());
            if (index >= -size && index < size)
                return list->items[static_cast<size_t>(index < 0 ? index + size : index)];
        } else if (const std::string* text = object.string()) {
            charge(text->size());
            const auto size = static_cast<int64_t>(length(*text));
            if (index >= -size && index < size) {
                const size_t at = byte_offset(*text, static_cast<size_t>(index < 0 ? index + size : index));
                return make_text(text->substr(at, byte_offset(std::string_view(*text).substr(at), 1)),
                                 object.is_markup());
            }
        }
    }
    if (const std::string* name = key.string()) {
        if (!object.as_dict())
            return attribute(object, *name);
        if (std::optional<Value> method = find_method(object, *name))
            return *method;
        return Value::undefined("'" + owner(object) + "' has no attribute " + string_repr(*name));
    }
    return Value::undefined(owner(object) + " has no element " + text_of(key));
}

std::vector<Value> Interpreter::iterate(const Value& value) {
    std::vector<Value> out;
    if (const List* list = value.as_list()) {
        charge(list->items.size());
        if (list->kind == List::Kind::kGenerator && std::exchange(list->consumed, true))
            return {};
        return list->items;
    }
    if (const Dict* dict = value.as_dict()) {
        charge(dict->entries().size());
        for (const auto& entry : dict->entries())
            out.push_back(entry.first);
        return out;
    }
    if (const std::string* text = value.string()) {
        charge(text->size());
        charge_memory(text->size() * (sizeof(Value) + sizeof(std::string)));
        for (std::string_view character : characters(*text))
            out.push_back(value.is_markup() ? Value::markup(std::string(character)) : Value(character));
        return out;
    }
    if (value.is_undefined())
        return {};
    fail(std::string("'") + value.type_name() + "' object is not iterable");
}

bool Interpreter::contains(const Value& container, const Value& item) {
    if (const std::string* text = container.string()) {
        const std::string* part = item.string();
        if (!part)
            fail(std::string("'in <string>' requires string as left operand, not ") + item.type_name());
        charge(text->size());
        return text->find(*part) != std::string::npos;
    }
    if (const Dict* dict = container.as_dict()) {
        if (!hashable(item))
            fail(std::string("unhashable type: '") + item.type_name() + "'");
        return dict->find(item) != nullptr;
    }
    if (const List* list = container.as_list(); list && list->kind != List::Kind::kGenerator) {
        charge(list->items.size());
        for (const Value& candidate : list->items)
            if (equal(candidate, item))
                return true;
        return false;
    }
    for (const Value& candidate : iterate(container))
        if (equal(candidate, item))
            return true;
    return false;
}

// ---- Text, lists, numbers

std::string Interpreter::text_of(const Value& value) {
    std::string text;
    append_str(text, value, limits_.output);
    charge(text.size());
    return text;
}

Value Interpreter::to_string(const Value& value) {
    return value.is_string() ? value : make_text(text_of(value));
}

Value Interpreter::make_text(std::string text, bool markup) {
    if (text.size() > limits_.output)
        fail("the template produces too much text");
    charge(text.size());
    charge_memory(text.size() + sizeof(Value));
    return markup ? Value::markup(std::move(text)) : Value(std::move(text));
}

Value Interpreter::make_list(std::vector<Value> items, List::Kind kind) {
    charge(items.size());
    charge_memory(sizeof(List) + items.size() * sizeof(Value));
    return Value::list(std::move(items), kind);
}

Value Interpreter::arithmetic(Operator op, const Value& a, const Value& b) {
    for (const Value* value : {&a, &b})
        if (const auto* undefined = value->as<Undefined>())
            fail(*undefined->message);
    if (op == Operator::kAdd && a.string() && b.string()) {
        if (a.is_markup() || b.is_markup())
            return make_text((a.is_markup() ? *a.string() : escape_html(*a.string())) +
                                 (b.is_markup() ? *b.string() : escape_html(*b.string())),
                             true);
        return make_text(*a.string() + *b.string());
    }
    if (op == Operator::kMod && a.string())
        return make_text(percent_format(*a.string(), b, limits_.output), a.is_markup());
    const List *left = a.as_list(), *right = b.as_list();
    auto plain = [](const List* list) {
        return list && (list->kind == List::Kind::kList || list->kind == List::Kind::kTuple);
    };
    if (op == Operator::kAdd && plain(left) && plain(right) && left->kind == right->kind) {
        std::vector<Value> items = left->items;
        items.insert(items.end(), right->items.begin(), right->items.end());
        return make_list(std::move(items), left->kind);
    }
    int64_t x = 0, y = 0;
    const bool x_integer = a.to_integer(x), y_integer = b.to_integer(y);
    if (op == Operator::kMul &&
        ((y_integer && (a.string() || plain(left))) || (x_integer && (b.string() || plain(right))))) {
        const Value& repeated = y_integer ? a : b;
        const auto times = static_cast<size_t>(std::clamp<int64_t>(y_integer ? y : x, 0, INT32_MAX));
        if (const std::string* text = repeated.string()) {
            if (text->size() * times > limits_.output)
                fail("the template produces too much text");
            std::string out;
            for (size_t i = 0; i < times && !text->empty(); ++i)
                out += *text;
            return make_text(std::move(out), repeated.is_markup());
        }
        const List& list = *repeated.as_list();
        charge_memory(list.items.size() * times * sizeof(Value));
        std::vector<Value> items;
        for (size_t i = 0; i < times && !list.items.empty(); ++i)
            items.insert(items.end(), list.items.begin(), list.items.end());
        return make_list(std::move(items), list.kind);
    }
    if ((a.as_large() && b.is_number()) || (b.as_large() && a.is_number()))
        fail("integer too large");
    double p, q;
    if (!a.to_number(p) || !b.to_number(q))
        fail(std::string("unsupported operand types: '") + a.type_name() + "' and '" + b.type_name() + "'");
    if (q == 0 && (op == Operator::kDiv || op == Operator::kFloorDiv || op == Operator::kMod))
        fail("division by zero");
    if (x_integer && y_integer && op != Operator::kDiv && !(op == Operator::kPow && y < 0)) {
        int64_t result = 0;
        bool overflow = false;
        switch (op) {
            case Operator::kAdd:
                overflow = __builtin_add_overflow(x, y, &result);
                break;
            case Operator::kSub:
                overflow = __builtin_sub_overflow(x, y, &result);
                break;
            case Operator::kMul:
                overflow = __builtin_mul_overflow(x, y, &result);
                break;
            case Operator::kPow:
                result = 1;
                for (int64_t i = 0; i < y && !overflow && x != 1 && result != 0; ++i) {
                    if (x == -1 && i > 1) {
                        result = y % 2 ? -1 : 1;
                        break;
                    }
                    overflow = __builtin_mul_overflow(result, x, &result);
                }
                break;
            default:  // towards minus infinity, the remainder has the divisor's sign
                if (y == -1) {
                    overflow = op == Operator::kFloorDiv && __builtin_sub_overflow(int64_t{0}, x, &result);
                } else {
                    const bool adjust = x % y != 0 && (x < 0) != (y < 0);
                    result = op == Operator::kMod ? x % y + (adjust ? y : 0) : x / y - (adjust ? 1 : 0);
                }
        }
        if (overflow)
            fail("integer too large");
        return Value(result);
    }
    switch (op) {
        case Operator::kAdd:
            return Value(p + q);
        case Operator::kSub:
            return Value(p - q);
        case Operator::kMul:
            return Value(p * q);
        case Operator::kDiv:
            return Value(p / q);
        case Operator::kPow:
            return Value(std::pow(p, q));
        default: {
            double rest = std::fmod(p, q);
            if (rest != 0 && (rest < 0) != (q < 0))
                rest += q;
            if (op == Operator::kMod)
                return Value(rest == 0 ? std::copysign(0.0, q) : rest);
            return Value(std::floor((p - rest) / q + 0.5));
        }
    }
}

}  // namespace llm::engine::jinja
