// The functions that a template finds beside its variables.
#include <cmath>
#include <ctime>

#include "engine_worker/tokenizer/chat_template.hpp"
#include "engine_worker/tokenizer/jinja/builtins.hpp"

namespace llm::engine::jinja {
namespace {

Value do_range(Interpreter& in, Arguments& args) {
    constexpr int64_t kMaxRange = 100000;  // jinja2's sandbox
    const Parameters p("range", args, {"start", "stop", "step"});
    const int64_t first = p.has(1) ? p.integer(0, 0) : 0;
    const int64_t last = p.has(1) ? p.integer(1, 0) : (p.need(0), p.integer(0, 0));
    const int64_t step = p.integer(2, 1);
    if (step == 0)
        in.fail("range: step must not be zero");
    const double count =
        std::ceil((static_cast<double>(last) - static_cast<double>(first)) / static_cast<double>(step));
    if (count > static_cast<double>(kMaxRange))
        in.fail("range: more than 100000 items");
    std::vector<Value> items;
    for (int64_t i = 0; i < static_cast<int64_t>(count); ++i)
        items.push_back(Value(first + i * step));
    return in.make_list(std::move(items), List::Kind::kRange);
}

// dict(mapping or pairs, name=value …), also what namespace() takes.
Dict gather(Interpreter& in, Arguments& args, const char* what) {
    Dict dict;
    if (args.positional.size() > 1)
        in.fail(std::string(what) + ": takes one argument and keywords");
    if (!args.positional.empty()) {
        if (const Dict* given = args.positional[0].as_dict()) {
            dict = *given;
        } else {
            for (const Value& pair : in.iterate(args.positional[0])) {
                const std::vector<Value> both = in.iterate(pair);
                if (both.size() != 2 || !hashable(both[0]))
                    in.fail(std::string(what) + ": needs pairs of key and value");
                dict.set(both[0], both[1]);
            }
        }
    }
    for (auto& [name, value] : args.named)
        dict.set(Value(name), std::move(value));
    in.charge_memory(dict.entries().size() * 2 * sizeof(Value));
    return dict;
}

Value do_dict(Interpreter& in, Arguments& args) {
    return Value::dict(gather(in, args, "dict"));
}

Value do_namespace(Interpreter& in, Arguments& args) {
    const Dict given = gather(in, args, "namespace");
    Namespace* space = in.make_namespace();
    for (const auto& [name, value] : given.entries())
        if (name.string())
            space->attributes.emplace_back(*name.string(), value);
    return Value(space);
}

// The template's own refusal: its words, untouched, are the error.
Value do_raise_exception(Interpreter& in, Arguments& args) {
    const Parameters p("raise_exception", args, {"message"});
    throw TemplateError(in.text_of(p.need(0)));
}

Value do_strftime_now(Interpreter& in, Arguments& args) {
    const Parameters p("strftime_now", args, {"format"});
    const std::string& format = p.text(0);
    if (format.size() > 1000)
        in.fail("strftime_now: format too long");
    const auto seconds =
        static_cast<std::time_t>(in.now().value_or(static_cast<int64_t>(std::time(nullptr))));
    std::tm local{};
    if (!localtime_r(&seconds, &local))
        in.fail("strftime_now: no such time");
    char buffer[8192];
    const size_t length = std::strftime(buffer, sizeof buffer, format.c_str(), &local);
    return in.make_text(std::string(buffer, length));
}

struct Entry {
    const char* name;
    Value (*function)(Interpreter&, Arguments&);
};
constexpr Entry kGlobals[] = {
    {"range", do_range},
    {"dict", do_dict},
    {"namespace", do_namespace},
    {"raise_exception", do_raise_exception},
    {"strftime_now", do_strftime_now},
};

}  // namespace

std::optional<Value> find_global(std::string_view name) {
    for (const Entry& entry : kGlobals) {
        if (entry.name == name) {
            auto callable = std::make_shared<Callable>();
            callable->name = entry.name;
            callable->call = entry.function;
            return Value(std::shared_ptr<const Callable>(std::move(callable)));
        }
    }
    return std::nullopt;
}

}  // namespace llm::engine::jinja
