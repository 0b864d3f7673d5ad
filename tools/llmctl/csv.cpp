#include "tools/llmctl/csv.hpp"

namespace llm::ctl {

std::string parse_csv(std::string_view text, std::vector<CsvRow>& out) {
    out.clear();
    if (text.starts_with("\xef\xbb\xbf")) {
        text.remove_prefix(3);  // spreadsheets mark UTF-8
    }
    CsvRow row;
    std::string field;
    bool quoted = false;  // the field began with a quote
    bool inside = false;  // and has not ended yet
    size_t line = 1;
    const auto end_field = [&] {
        row.push_back(quoted || !field.empty() ? std::optional(field) : std::nullopt);
        field.clear();
        quoted = false;
    };
    const auto end_row = [&] {
        if (!row.empty() || quoted || !field.empty()) {
            end_field();
            out.push_back(std::move(row));
            row.clear();
        }
    };
    for (size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (inside) {
            if (c == '"' && i + 1 < text.size() && text[i + 1] == '"') {
                field += '"';
                ++i;
            } else if (c == '"') {
                inside = false;
            } else {
                line += c == '\n' ? 1 : 0;
                field += c;
            }
        } else if (c == ',') {
            end_field();
        } else if (c == '\n') {
            end_row();
            ++line;
        } else if (c == '\r' && (i + 1 == text.size() || text[i + 1] == '\n')) {
            continue;
        } else if (c == '"' && field.empty() && !quoted) {
            quoted = inside = true;
        } else if (c == '"' || quoted) {
            return "line " + std::to_string(line) + ": a quote in the middle of a field";
        } else {
            field += c;
        }
    }
    if (inside) {
        return "line " + std::to_string(line) + ": a quoted field does not end";
    }
    end_row();
    return "";
}

}  // namespace llm::ctl
