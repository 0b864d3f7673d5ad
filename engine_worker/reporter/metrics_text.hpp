// Reads Prometheus' text format (prometheus.io/docs/instrumenting/exposition_formats), as engines write it.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace llm::reporter {

struct Sample {
    std::string name;
    std::vector<std::pair<std::string, std::string>> labels;
    double value = 0;  // NaN and infinities too

    // Empty where there is no such label.
    std::string_view label(std::string_view name) const;
};

// Returns an empty string and all samples, or why this is no metrics text: HTML and JSON are told apart from
// a text with a broken line. Timestamps, exemplars and comments are skipped. O(text).
std::string parse_metrics_text(std::string_view text, std::vector<Sample>& out);

}  // namespace llm::reporter
