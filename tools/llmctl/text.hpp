// What llmctl prints: tables for people, JSON for programs.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

namespace llm::ctl {

using Json = nlohmann::ordered_json;

// `text` without what could steer a terminal: control characters (C1 too), what is no UTF-8, and the
// characters that change the direction of text become '?'. Names come from clients and engines.
std::string visible(std::string_view text);

// Columns of a terminal that `text`, already visible(), takes.
size_t columns_of(std::string_view text);

// `text` cut or filled up to exactly `width` columns; a cut text ends in "…".
std::string fit(std::string_view text, size_t width, bool to_the_right = false);

// Rows under a head, columns as wide as their widest cell. Cells are made visible().
class Table {
  public:
    // A heading that begins with '>' stands for a column of numbers.
    explicit Table(std::vector<std::string> head);
    void add(std::vector<std::string> cells);
    bool empty() const { return rows_.empty(); }
    // One line for the head and for each row; none is wider than `width` columns (0 = as it comes).
    std::vector<std::string> lines(size_t width = 0) const;
    std::string text() const;

  private:
    std::vector<std::string> head_;
    std::vector<bool> numbers_;
    std::vector<std::vector<std::string>> rows_;
};

// "350 ms", "12 s", "3 min", "2 h"; empty below 0.
std::string duration_text(double milliseconds);
// "0", "12", "1.5k", "2.3M"
std::string amount_text(double value);

// Writes `value` and a newline to standard output.
void print_json(const Json& value);
void print(const std::string& text);

}  // namespace llm::ctl
