// Matching of arguments with parameters, and the table of tables.
#include <algorithm>

#include "engine_worker/tokenizer/jinja/builtins.hpp"

namespace llm::engine::jinja {

Parameters::Parameters(const char* what, Arguments& args, std::initializer_list<std::string_view> names)
    : what_(what), names_(names), values_(names.size()) {
    if (args.positional.size() > names_.size())
        throw ValueError(std::string(what) + ": takes at most " + std::to_string(names_.size()) +
                         " argument(s)");
    for (size_t i = 0; i < args.positional.size(); ++i)
        values_[i] = &args.positional[i];
    for (const auto& [name, value] : args.named) {
        const auto at = std::find(names_.begin(), names_.end(), name);
        if (at == names_.end())
            throw ValueError(std::string(what) + ": unexpected argument '" + name + "'");
        const Value*& slot = values_[static_cast<size_t>(at - names_.begin())];
        if (slot)
            throw ValueError(std::string(what) + ": got two values for '" + name + "'");
        slot = &value;
    }
}

const Value& Parameters::need(size_t index) const {
    if (!values_[index])
        throw ValueError(std::string(what_) + ": missing argument '" + std::string(names_[index]) + "'");
    return *values_[index];
}

const std::string& Parameters::text(size_t index) const {
    const std::string* text = need(index).string();
    if (!text)
        throw ValueError(std::string(what_) + ": '" + std::string(names_[index]) +
                         "' must be a string, not " + need(index).type_name());
    return *text;
}

std::string Parameters::text(size_t index, std::string_view absent) const {
    return has(index) ? text(index) : std::string(absent);
}

int64_t Parameters::integer(size_t index, int64_t absent) const {
    if (!has(index))
        return absent;
    int64_t value;
    if (!get(index)->to_integer(value))
        throw ValueError(std::string(what_) + ": '" + std::string(names_[index]) +
                         "' must be an integer, not " + get(index)->type_name());
    return value;
}

bool Parameters::boolean(size_t index, bool absent) const {
    return has(index) ? get(index)->truthy() : absent;
}

Filter find_filter(std::string_view name) {
    const Filter filter = find_text_filter(name);
    return filter ? filter : find_sequence_filter(name);
}

}  // namespace llm::engine::jinja
