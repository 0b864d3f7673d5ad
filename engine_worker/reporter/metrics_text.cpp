#include "engine_worker/reporter/metrics_text.hpp"

#include <charconv>
#include <limits>

namespace llm::reporter {
namespace {

bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == ':';
}

void skip_blanks(std::string_view& text) {
    while (!text.empty() && (text[0] == ' ' || text[0] == '\t')) {
        text.remove_prefix(1);
    }
}

std::string_view take_name(std::string_view& text) {
    size_t size = 0;
    while (size < text.size() && is_name_character(text[size])) {
        ++size;
    }
    const std::string_view name = text.substr(0, size);
    text.remove_prefix(size);
    return name;
}

// name="value", …}
bool take_labels(std::string_view& text, Sample& out) {
    for (;;) {
        skip_blanks(text);
        if (text.starts_with('}')) {
            text.remove_prefix(1);
            return true;
        }
        const std::string_view name = take_name(text);
        skip_blanks(text);
        if (name.empty() || !text.starts_with('=')) {
            return false;
        }
        text.remove_prefix(1);
        skip_blanks(text);
        if (!text.starts_with('"')) {
            return false;
        }
        text.remove_prefix(1);
        std::string value;
        while (!text.empty() && text[0] != '"') {
            if (text[0] == '\\' && text.size() > 1) {
                text.remove_prefix(1);
                value += text[0] == 'n' ? '\n' : text[0];
            } else {
                value += text[0];
            }
            text.remove_prefix(1);
        }
        if (text.empty()) {
            return false;
        }
        text.remove_prefix(1);
        out.labels.emplace_back(name, std::move(value));
        skip_blanks(text);
        if (text.starts_with(',')) {
            text.remove_prefix(1);
        }
    }
}

bool take_value(std::string_view& text, double& out) {
    skip_blanks(text);
    const std::string_view word = text.substr(0, text.find_first_of(" \t"));
    text.remove_prefix(word.size());
    if (word == "+Inf" || word == "Inf" || word == "-Inf") {
        out = std::numeric_limits<double>::infinity() * (word[0] == '-' ? -1 : 1);
        return true;
    }
    if (word == "NaN" || word == "nan") {
        out = std::numeric_limits<double>::quiet_NaN();
        return true;
    }
    const std::string_view digits = word.starts_with('+') ? word.substr(1) : word;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out);
    return error == std::errc() && end == digits.data() + digits.size();
}

}  // namespace

std::string_view Sample::label(std::string_view wanted) const {
    for (const auto& [key, text] : labels) {
        if (key == wanted) {
            return text;
        }
    }
    return {};
}

std::string parse_metrics_text(std::string_view text, std::vector<Sample>& out) {
    out.clear();
    const size_t begin = text.find_first_not_of(" \t\r\n");
    if (begin == std::string_view::npos) {
        return "the answer is empty";
    }
    if (text[begin] == '<') {
        return "the answer is HTML, not Prometheus text";
    }
    if (text[begin] == '{' || text[begin] == '[') {
        return "the answer is JSON, not Prometheus text";
    }
    size_t number = 0;
    while (!text.empty()) {
        ++number;
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(line.size() + 1, text.size()));
        if (line.ends_with('\r')) {
            line.remove_suffix(1);
        }
        skip_blanks(line);
        if (line.empty() || line[0] == '#') {
            continue;
        }
        Sample sample;
        sample.name = take_name(line);
        skip_blanks(line);
        bool good = !sample.name.empty();
        if (good && line.starts_with('{')) {
            line.remove_prefix(1);
            good = take_labels(line, sample);
        }
        if (!good || !take_value(line, sample.value)) {
            return "line " + std::to_string(number) + " is not Prometheus text";
        }
        out.push_back(std::move(sample));
    }
    return "";
}

}  // namespace llm::reporter
