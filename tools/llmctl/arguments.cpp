#include "tools/llmctl/arguments.hpp"

#include <algorithm>
#include <charconv>

#include "tools/llmctl/failure.hpp"

namespace llm::ctl {
namespace {

[[noreturn]] void usage(const std::string& message) {
    throw Failure(Exit::usage, message);
}

const Option* find(const std::vector<Option>& options, std::string_view name) {
    const auto found = std::find_if(options.begin(), options.end(),
                                    [name](const Option& option) { return option.name == name; });
    return found == options.end() ? nullptr : &*found;
}

std::string names_of(const std::vector<Option>& options) {
    std::string out;
    for (const Option& option : options) {
        out += (out.empty() ? "" : ", ") + std::string(option.name);
    }
    return out;
}

// An option as it is written: --max_running, -h.
std::string option_name(std::string_view item) {
    std::string name(item.substr(0, item.find('=')));
    std::replace(name.begin(), name.end(), '_', '-');
    return name == "-h" ? "--help" : name;
}

// Whether the word behind `item` is its value: options of one name are the same in all commands.
bool takes_next_word(const std::string& item, const std::vector<Command>& commands) {
    const std::string name = option_name(item);
    const auto wants_value = [&name](const std::vector<Option>& options) {
        const Option* option = find(options, name);
        return option != nullptr && !option->value.empty();
    };
    return item.find('=') == std::string::npos &&
           (wants_value(common_options()) ||
            std::any_of(commands.begin(), commands.end(),
                        [&](const Command& command) { return wants_value(command.options); }));
}

// The longest command whose words the line begins with; the words are taken off `line`.
const Command* take_command(std::vector<std::string>& line, const std::vector<Command>& commands) {
    const Command* best = nullptr;
    size_t best_words = 0;
    for (const Command& command : commands) {
        const size_t blank = command.words.find(' ');
        const std::string first(command.words.substr(0, blank));
        const size_t words = blank == std::string_view::npos ? 1 : 2;
        if (words > best_words && line.size() >= words && line[0] == first &&
            (words == 1 || line[1] == command.words.substr(blank + 1))) {
            best = &command;
            best_words = words;
        }
    }
    line.erase(line.begin(), line.begin() + static_cast<std::ptrdiff_t>(best_words));
    return best;
}

[[noreturn]] void unknown_command(const std::vector<std::string>& words,
                                  const std::vector<Command>& commands) {
    std::string known;
    for (const Command& command : commands) {
        const bool same_group = command.words.substr(0, command.words.find(' ')) == words[0];
        known += same_group ? (known.empty() ? "" : ", ") + std::string(command.words) : "";
    }
    if (!known.empty()) {
        usage("\"" + words[0] + "\" needs another word: " + known);
    }
    for (const Command& command : commands) {
        known += (known.empty() ? "" : ", ") + std::string(command.words);
    }
    usage("unknown command \"" + words[0] + "\"; there are " + known);
}

std::string option_lines(const std::vector<Option>& options) {
    std::string out;
    for (const Option& option : options) {
        std::string line = "  " + std::string(option.name);
        line += option.value.empty() ? "" : " " + std::string(option.value);
        line.resize(std::max<size_t>(line.size() + 2, 34), ' ');
        out += line + std::string(option.help) + "\n";
    }
    return out;
}

}  // namespace

int64_t parse_integer(std::string_view what, std::string_view text, int64_t low, int64_t high) {
    int64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high) {
        usage(std::string(what) + ": expected a whole number from " + std::to_string(low) + " to " +
              std::to_string(high));
    }
    return value;
}

std::optional<std::string> Arguments::value(std::string_view option) const {
    const auto found = values_.find(option);
    return found == values_.end() ? std::nullopt : std::optional(found->second);
}

int64_t Arguments::integer(std::string_view option, int64_t low, int64_t high, int64_t otherwise) const {
    const auto given = value(option);
    return given ? parse_integer(option, *given, low, high) : otherwise;
}

const std::vector<Option>& common_options() {
    static const std::vector<Option> all = {
        {"--db", "URL", "clients: postgresql://… [$LLM_DB, else postgresql:///llm]"},
        {"--file", "PATH", "clients: a token file instead of a database"},
        {"--url", "URL",
         "gateway: the place of llm_status [$LLM_STATUS_URL, else http://127.0.0.1:8080/llm/]"},
        {"--ca-file", "FILE", "gateway: trust these certificates (PEM) for https"},
        {"--json", "", "answer in JSON"},
        {"--help", "", "say what a command does"},
    };
    return all;
}

ParsedLine parse_line(const std::vector<std::string>& line, const std::vector<Command>& commands) {
    ParsedLine out;
    std::vector<std::string> words;
    for (const std::string& item : line) {
        if (item == "--version") {
            out.version = true;
            return out;
        }
    }
    for (size_t i = 0; i < line.size() && line[i] != "--" && words.size() < 2; ++i) {
        if (!line[i].starts_with("-")) {
            words.push_back(line[i]);
        } else if (takes_next_word(line[i], commands)) {
            ++i;
        }
    }
    std::vector<std::string> behind = words;
    out.command = take_command(behind, commands);
    size_t skip = words.size() - behind.size();
    std::vector<Option> options = common_options();
    if (out.command != nullptr) {
        options.insert(options.begin(), out.command->options.begin(), out.command->options.end());
    }
    bool only_operands = false;
    for (size_t i = 0; i < line.size(); ++i) {
        const std::string& item = line[i];
        if (only_operands || !item.starts_with("-") || item == "-") {
            if (skip > 0 && !only_operands) {
                --skip;
            } else {
                out.arguments.operands_.push_back(item);
            }
            continue;
        }
        if (item == "--") {
            only_operands = true;
            continue;
        }
        const size_t equals = item.find('=');
        const std::string name = option_name(item);
        const Option* option = find(options, name);
        if (option == nullptr) {
            usage("unknown option " + name +
                  (out.command == nullptr
                       ? "; `llmctl --help` lists the commands"
                       : " of `" + std::string(out.command->words) + "`; it takes " + names_of(options)));
        }
        if (out.arguments.has(name)) {
            usage(name + " is given twice");
        }
        std::string value;
        if (equals != std::string::npos) {
            value = item.substr(equals + 1);
            if (option->value.empty()) {
                usage(name + " takes no value");
            }
        } else if (!option->value.empty()) {
            if (++i >= line.size()) {
                usage(name + " needs a value: " + std::string(option->value));
            }
            value = line[i];
        }
        out.arguments.values_.emplace(name, value);
    }
    out.help = out.arguments.has("--help") || (words.size() == 1 && words[0] == "help");
    if (out.help && out.command == nullptr) {
        return out;
    }
    if (out.command == nullptr) {
        if (words.empty()) {
            usage("which command? `llmctl --help` lists them");
        }
        unknown_command(words, commands);
    }
    const size_t count = out.arguments.operands_.size();
    if (!out.help && (count < out.command->min_operands || count > out.command->max_operands)) {
        usage("`" + std::string(out.command->words) + "` takes " +
              (out.command->operands.empty() ? "no operand" : std::string(out.command->operands)) + ", not " +
              std::to_string(count) + " operands; `llmctl " + std::string(out.command->words) +
              " --help` says more");
    }
    return out;
}

std::string help_of(const std::vector<Command>& commands) {
    std::string out = "llmctl " LLM_VERSION
                      ": clients, queue and engines of a gateway\n\n"
                      "Usage: llmctl COMMAND [OPTION…]; `llmctl COMMAND --help` says more\n\nCommands:\n";
    for (const Command& command : commands) {
        std::string line = "  " + std::string(command.words);
        line += command.operands.empty() ? "" : " " + std::string(command.operands);
        line.resize(std::max<size_t>(line.size() + 2, 34), ' ');
        out += line + std::string(command.summary.substr(0, command.summary.find('\n'))) + "\n";
    }
    return out + "\nOptions of every command:\n" + option_lines(common_options()) +
           "  --version\n\n"
           "Exit status: 0 done, 1 failed or refused, 2 wrong command line, 3 not found, 4 not reachable\n";
}

std::string help_of(const Command& command) {
    std::string out = "Usage: llmctl " + std::string(command.words);
    out += command.operands.empty() ? "" : " " + std::string(command.operands);
    out += " [OPTION…]\n\n" + std::string(command.summary) + "\n\n";
    if (!command.options.empty()) {
        out += "Options:\n" + option_lines(command.options) + "\n";
    }
    return out + "Options of every command:\n" + option_lines(common_options());
}

}  // namespace llm::ctl
