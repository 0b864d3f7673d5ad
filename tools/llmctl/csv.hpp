// Comma-separated values as RFC 4180 has them, and as psql, MySQL and spreadsheets write them.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace llm::ctl {

// A field without quotes and without content is nothing (NULL), "" is an empty text.
using CsvRow = std::vector<std::optional<std::string>>;

// Splits `text` into rows; empty lines are left out. Returns an empty string, or the line and what is wrong.
std::string parse_csv(std::string_view text, std::vector<CsvRow>& out);

}  // namespace llm::ctl
