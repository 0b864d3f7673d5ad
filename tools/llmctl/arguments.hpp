// The command line of llmctl: words, then options anywhere, each command with options of its own.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llm::ctl {

struct Option {
    std::string_view name;   // "--priority"
    std::string_view value;  // what the help calls its value; empty: a switch
    std::string_view help;
};

class Arguments;

struct Command {
    std::string_view words;     // "token add"
    std::string_view operands;  // "ENGINE", "" = none; "WHO [WHO…]": more than one
    size_t min_operands;
    size_t max_operands;
    std::string_view summary;
    std::vector<Option> options;
    std::function<int(const Arguments&)> run;
};

class Arguments {
  public:
    bool has(std::string_view option) const { return values_.find(option) != values_.end(); }
    // The value of an option that was given.
    std::optional<std::string> value(std::string_view option) const;
    // A whole number from `low` to `high`, or `otherwise` when the option is not there. Throws a usage
    // failure.
    int64_t integer(std::string_view option, int64_t low, int64_t high, int64_t otherwise) const;
    const std::vector<std::string>& operands() const { return operands_; }
    bool json() const { return has("--json"); }

  private:
    friend struct ParsedLine parse_line(const std::vector<std::string>&, const std::vector<Command>&);
    std::map<std::string, std::string, std::less<>> values_;
    std::vector<std::string> operands_;
};

struct ParsedLine {
    const Command* command = nullptr;  // null: help for everything, or the version
    Arguments arguments;
    bool help = false;
    bool version = false;
};

// The options that every command takes.
const std::vector<Option>& common_options();

// Throws a usage failure that names what is wrong and what is allowed.
ParsedLine parse_line(const std::vector<std::string>& line, const std::vector<Command>& commands);

std::string help_of(const std::vector<Command>& commands);
std::string help_of(const Command& command);

// A whole number from `low` to `high`; throws a usage failure that begins with `what`.
int64_t parse_integer(std::string_view what, std::string_view text, int64_t low, int64_t high);

}  // namespace llm::ctl
