// What may stand behind `is`.
#include "engine_worker/tokenizer/jinja/builtins.hpp"
#include "engine_worker/tokenizer/jinja/python_text.hpp"

namespace llm::engine::jinja {
namespace {

bool is_integer(const Value& value) {
    return value.as<int64_t>() || value.as_large();
}

int64_t integer_of(Interpreter& in, const Value& value) {
    if (const auto* undefined = value.as<Undefined>())
        in.fail(*undefined->message);
    int64_t integer;
    if (!value.to_integer(integer))
        in.fail(std::string("needs an integer, not ") + value.type_name());
    return integer;
}

bool same(const Value& a, const Value& b) {
    if (a.as_list() || b.as_list())
        return a.as_list() == b.as_list();
    if (a.as_dict() || b.as_dict())
        return a.as_dict() == b.as_dict();
    return std::string_view(a.type_name()) == b.type_name() && equal(a, b);
}

enum class Relation { kEq, kNe, kLt, kLe, kGt, kGe };

template <Relation relation>
bool relate(Interpreter&, const Value& value, Arguments& args) {
    const Parameters p("test", args, {"other"});
    const Value& other = p.need(0);
    switch (relation) {
        case Relation::kEq:
            return equal(value, other);
        case Relation::kNe:
            return !equal(value, other);
        case Relation::kLt:
            return compare(value, other) < 0;
        case Relation::kLe:
            return compare(value, other) <= 0;
        case Relation::kGt:
            return compare(value, other) > 0;
        default:
            return compare(value, other) >= 0;
    }
}

// The tests that look at the value alone.
template <bool (*function)(const Value&)>
bool plain(Interpreter&, const Value& value, Arguments& args) {
    Parameters("test", args, {});
    return function(value);
}

bool test_defined(const Value& v) {
    return !v.is_undefined();
}
bool test_undefined(const Value& v) {
    return v.is_undefined();
}
bool test_none(const Value& v) {
    return v.is_none();
}
bool test_boolean(const Value& v) {
    return v.is_bool();
}
bool test_true(const Value& v) {
    return v.is_bool() && v.truthy();
}
bool test_false(const Value& v) {
    return v.is_bool() && !v.truthy();
}
bool test_float(const Value& v) {
    return v.is_float();
}
bool test_string(const Value& v) {
    return v.is_string();
}
bool test_mapping(const Value& v) {
    return v.as_dict() != nullptr;
}
bool test_number(const Value& v) {
    return v.is_number();
}
bool test_callable(const Value& v) {
    return v.as_callable() != nullptr;
}
bool test_escaped(const Value& v) {
    return v.is_markup();
}
bool test_iterable(const Value& v) {
    return v.as_list() || v.as_dict() || v.is_string() || v.is_undefined() || v.as_loop();
}
bool test_sequence(const Value& v) {
    const List* list = v.as_list();
    const bool indexed = list && (list->kind == List::Kind::kList || list->kind == List::Kind::kTuple ||
                                  list->kind == List::Kind::kRange);
    return indexed || v.as_dict() || v.is_string() || v.is_undefined();
}

bool test_odd(Interpreter& in, const Value& v, Arguments&) {
    return integer_of(in, v) % 2 != 0;
}
bool test_even(Interpreter& in, const Value& v, Arguments&) {
    return integer_of(in, v) % 2 == 0;
}
bool test_divisibleby(Interpreter& in, const Value& v, Arguments& args) {
    const int64_t divisor = integer_of(in, Parameters("divisibleby", args, {"num"}).need(0));
    if (divisor == 0)
        in.fail("division by zero");
    return divisor == -1 || integer_of(in, v) % divisor == 0;
}
bool test_lower(Interpreter& in, const Value& v, Arguments&) {
    return is_class(in.text_of(v), TextClass::kLower);
}
bool test_upper(Interpreter& in, const Value& v, Arguments&) {
    return is_class(in.text_of(v), TextClass::kUpper);
}
bool test_sameas(Interpreter&, const Value& v, Arguments& args) {
    return same(v, Parameters("sameas", args, {"other"}).need(0));
}
bool test_in(Interpreter& in, const Value& v, Arguments& args) {
    return in.contains(Parameters("in", args, {"seq"}).need(0), v);
}
bool test_filter(Interpreter&, const Value& v, Arguments&) {
    return v.string() && find_filter(*v.string());
}
bool test_test(Interpreter&, const Value& v, Arguments&) {
    return v.string() && find_test(*v.string());
}

struct Entry {
    std::string_view name;
    Test test;
};
constexpr Entry kTests[] = {
    {"defined", plain<test_defined>},
    {"undefined", plain<test_undefined>},
    {"none", plain<test_none>},
    {"boolean", plain<test_boolean>},
    {"true", plain<test_true>},
    {"false", plain<test_false>},
    {"integer", plain<is_integer>},
    {"float", plain<test_float>},
    {"string", plain<test_string>},
    {"mapping", plain<test_mapping>},
    {"number", plain<test_number>},
    {"sequence", plain<test_sequence>},
    {"iterable", plain<test_iterable>},
    {"callable", plain<test_callable>},
    {"escaped", plain<test_escaped>},
    {"odd", test_odd},
    {"even", test_even},
    {"divisibleby", test_divisibleby},
    {"lower", test_lower},
    {"upper", test_upper},
    {"sameas", test_sameas},
    {"in", test_in},
    {"filter", test_filter},
    {"test", test_test},
    {"eq", relate<Relation::kEq>},
    {"equalto", relate<Relation::kEq>},
    {"==", relate<Relation::kEq>},
    {"ne", relate<Relation::kNe>},
    {"!=", relate<Relation::kNe>},
    {"gt", relate<Relation::kGt>},
    {"greaterthan", relate<Relation::kGt>},
    {">", relate<Relation::kGt>},
    {"ge", relate<Relation::kGe>},
    {">=", relate<Relation::kGe>},
    {"lt", relate<Relation::kLt>},
    {"lessthan", relate<Relation::kLt>},
    {"<", relate<Relation::kLt>},
    {"le", relate<Relation::kLe>},
    {"<=", relate<Relation::kLe>},
};

}  // namespace

Test find_test(std::string_view name) {
    for (const Entry& entry : kTests)
        if (entry.name == name)
            return entry.test;
    return nullptr;
}

}  // namespace llm::engine::jinja
