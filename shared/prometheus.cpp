#include "shared/prometheus.hpp"

#include <array>
#include <charconv>
#include <cmath>

namespace llm {
namespace {

template <class Number>
void append_number(std::string& out, Number value) {
    std::array<char, 32> text;
    const auto end = std::to_chars(text.data(), text.data() + text.size(), value).ptr;
    out.append(text.data(), end);
}

void append_value(std::string& out, double value) {
    if (std::isnan(value)) {
        out += "NaN";
    } else if (std::isinf(value)) {
        out += value > 0 ? "+Inf" : "-Inf";
    } else {
        append_number(out, value);
    }
}

}  // namespace

void PrometheusText::family(std::string_view name, std::string_view type, std::string_view help) {
    ((((((text_ += "# HELP ") += name) += ' ') += help) += "\n# TYPE ") += name) += ' ';
    (text_ += type) += '\n';
}

void PrometheusText::sample(std::string_view name, Labels labels, double value) {
    open(name, {}, labels, {});
    append_value(text_, value);
    text_ += '\n';
}

void PrometheusText::sample(std::string_view name, Labels labels, uint64_t value) {
    open(name, {}, labels, {});
    append_number(text_, value);
    text_ += '\n';
}

void PrometheusText::histogram(std::string_view name, Labels labels, const double* bound, size_t bounds,
                               const uint64_t* counts, double sum) {
    uint64_t below = 0;
    for (size_t i = 0; i <= bounds; ++i) {
        below += counts[i];
        std::string le = "+Inf";
        if (i < bounds) {
            le.clear();
            append_number(le, bound[i]);
        }
        open(name, "_bucket", labels, le);
        append_number(text_, below);
        text_ += '\n';
    }
    open(name, "_sum", labels, {});
    append_value(text_, sum);
    text_ += '\n';
    open(name, "_count", labels, {});
    append_number(text_, below);
    text_ += '\n';
}

void PrometheusText::open(std::string_view name, std::string_view suffix, Labels labels,
                          std::string_view le) {
    (text_ += name) += suffix;
    char separator = '{';
    for (const PrometheusLabel& label : labels) {
        text_ += separator;
        (text_ += label.name) += "=\"";
        append_escaped(label.value);
        text_ += '"';
        separator = ',';
    }
    if (!le.empty()) {
        text_ += separator;
        ((text_ += "le=\"") += le) += '"';
        separator = ',';
    }
    if (separator == ',') {
        text_ += '}';
    }
    text_ += ' ';
}

void PrometheusText::append_escaped(std::string_view value) {
    for (const char c : value) {
        if (c == '\\' || c == '"') {
            text_ += '\\';
            text_ += c;
        } else if (c == '\n') {
            text_ += "\\n";
        } else {
            text_ += c;
        }
    }
}

}  // namespace llm
