// Values of command-line options that llm-engine and llm-reporter share. Each function returns an empty
// string, or what was expected, and leaves `out` alone then.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "shared/engine_report.hpp"

namespace llm {

// 1 to `max` characters.
inline std::string set_text(const std::string& text, size_t max, std::string& out) {
    if (text.empty() || text.size() > max) {
        return "expected 1 to " + std::to_string(max) + " characters";
    }
    out = text;
    return "";
}

// What a report can hold as an id or an org.
inline std::string set_report_name(const std::string& text, std::string& out) {
    if (!is_report_name(text)) {
        return "expected 1 to " + std::to_string(kMaxReportNameBytes) + " bytes without control characters";
    }
    out = text;
    return "";
}

// Appends names separated by commas, as many and as long as an engine's report can hold.
inline std::string set_names(const std::string& text, std::vector<std::string>& out) {
    std::vector<std::string> names = out;
    for (size_t at = 0; at <= text.size();) {
        const size_t comma = std::min(text.find(',', at), text.size());
        names.push_back(text.substr(at, comma - at));
        if (!is_model_name(names.back())) {
            return "expected names of 1 to " + std::to_string(kMaxModelBytes) +
                   " bytes without control characters, separated by commas";
        }
        at = comma + 1;
    }
    if (names.size() > kMaxModels) {
        return "at most " + std::to_string(kMaxModels) + " names";
    }
    out = std::move(names);
    return "";
}

}  // namespace llm
