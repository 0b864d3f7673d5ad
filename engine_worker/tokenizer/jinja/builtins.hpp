// Filters, tests, methods and global functions of templates.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/tokenizer/jinja/interpreter.hpp"
#include "engine_worker/tokenizer/jinja/value.hpp"

namespace llm::engine::jinja {

// `args` without the filtered (tested) value.
using Filter = Value (*)(Interpreter&, const Value& value, Arguments& args);
using Test = bool (*)(Interpreter&, const Value& value, Arguments& args);

// Null when there is none of the name.
Filter find_filter(std::string_view name);
Test find_test(std::string_view name);

// The method `name` of a value, bound to it; nullopt when its type has none (or none that a sandbox allows).
std::optional<Value> find_method(const Value& object, std::string_view name);

// range, dict, namespace, raise_exception, strftime_now; nullopt for any other name.
std::optional<Value> find_global(std::string_view name);

// Arguments matched with the names of a function's parameters, as Python does.
class Parameters {
  public:
    // Throws ValueError "WHAT: …" for too many, unknown or doubled arguments.
    Parameters(const char* what, Arguments& args, std::initializer_list<std::string_view> names);

    const Value* get(size_t index) const { return values_[index]; }
    bool has(size_t index) const { return values_[index] != nullptr; }
    // Throws ValueError when it is missing.
    const Value& need(size_t index) const;
    // The argument, or the default when it is missing; throws ValueError when the type is wrong.
    const std::string& text(size_t index) const;
    std::string text(size_t index, std::string_view absent) const;
    int64_t integer(size_t index, int64_t absent) const;
    bool boolean(size_t index, bool absent) const;

  private:
    const char* what_;
    std::vector<std::string_view> names_;
    std::vector<const Value*> values_;
};

// Shared by the tables: filters that look at text, at sequences; one file each.
Filter find_text_filter(std::string_view name);
Filter find_sequence_filter(std::string_view name);

}  // namespace llm::engine::jinja
