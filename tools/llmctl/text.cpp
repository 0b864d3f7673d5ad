#include "tools/llmctl/text.hpp"

#include <wchar.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>

#include "shared/json.hpp"

namespace llm::ctl {
namespace {

// Takes one character off the front of `text`; U+FFFD for what is no UTF-8.
uint32_t take_character(std::string_view& text) {
    constexpr uint32_t kBad = 0xfffd;
    const auto first = static_cast<unsigned char>(text[0]);
    const size_t length = first < 0x80                    ? 1
                          : first >= 0xf0 && first < 0xf5 ? 4
                          : first >= 0xe0                 ? 3
                          : first >= 0xc2                 ? 2
                                                          : 0;
    if (length == 0 || first >= 0xf5 || text.size() < length) {
        text.remove_prefix(1);
        return kBad;
    }
    uint32_t code = length == 1 ? first : first & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; ++i) {
        const auto byte = static_cast<unsigned char>(text[i]);
        if ((byte & 0xc0) != 0x80) {
            text.remove_prefix(1);
            return kBad;
        }
        code = code << 6 | (byte & 0x3f);
    }
    constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const bool surrogate = code >= 0xd800 && code <= 0xdfff;
    text.remove_prefix(length);
    return surrogate || code < kSmallest[length] || code > 0x10ffff ? kBad : code;
}

bool is_hidden(uint32_t code) {
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0xfffd ||
           code == 0x61c || (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
           (code >= 0x2060 && code <= 0x206f) || code == 0xfeff;
}

size_t width_of(uint32_t code) {
    const int width = wcwidth(static_cast<wchar_t>(code));
    return width < 0 ? 1 : static_cast<size_t>(width);
}

std::string number_text(double value, const char* format) {
    char out[64];
    std::snprintf(out, sizeof out, format, value);
    return out;
}

}  // namespace

std::string visible(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const std::string_view before = text;
        const uint32_t code = take_character(text);
        if (is_hidden(code)) {
            out += '?';
        } else {
            out += before.substr(0, before.size() - text.size());
        }
    }
    return out;
}

size_t columns_of(std::string_view text) {
    size_t columns = 0;
    while (!text.empty()) {
        columns += width_of(take_character(text));
    }
    return columns;
}

std::string fit(std::string_view text, size_t width, bool to_the_right) {
    const size_t columns = columns_of(text);
    if (columns <= width) {
        const std::string blanks(width - columns, ' ');
        return to_the_right ? blanks + std::string(text) : std::string(text) + blanks;
    }
    std::string out;
    size_t used = 0;
    while (width > 0) {
        const std::string_view before = text;
        const size_t more = width_of(take_character(text));
        if (used + more > width - 1) {
            break;
        }
        used += more;
        out += before.substr(0, before.size() - text.size());
    }
    if (width > 0) {
        out += "…" + std::string(width - 1 - used, ' ');
    }
    return out;
}

Table::Table(std::vector<std::string> head) : head_(std::move(head)) {
    for (std::string& name : head_) {
        numbers_.push_back(name.starts_with('>'));
        name.erase(0, numbers_.back() ? 1 : 0);
    }
}

void Table::add(std::vector<std::string> cells) {
    for (std::string& cell : cells) {
        cell = visible(cell);
    }
    cells.resize(head_.size());
    rows_.push_back(std::move(cells));
}

std::vector<std::string> Table::lines(size_t width) const {
    std::vector<size_t> widths;
    for (size_t i = 0; i < head_.size(); ++i) {
        size_t widest = columns_of(head_[i]);
        for (const auto& row : rows_) {
            widest = std::max(widest, columns_of(row[i]));
        }
        widths.push_back(widest);
    }
    // Too wide: the widest column of text gives way first.
    const auto total = [&widths] {
        size_t sum = 0;
        for (const size_t one : widths) {
            sum += one + 2;
        }
        return sum - 2;
    };
    while (width > 0 && total() > width) {
        const auto widest = std::max_element(widths.begin(), widths.end());
        if (*widest <= 4) {
            break;
        }
        --*widest;
    }
    std::vector<std::string> out;
    const auto add_line = [&](const std::vector<std::string>& cells) {
        std::string line;
        for (size_t i = 0; i < cells.size(); ++i) {
            line += (i > 0 ? "  " : "") + fit(cells[i], widths[i], numbers_[i]);
        }
        line.erase(line.find_last_not_of(' ') + 1);
        out.push_back(width > 0 && columns_of(line) > width ? fit(line, width) : line);
    };
    add_line(head_);
    for (const auto& row : rows_) {
        add_line(row);
    }
    return out;
}

std::string Table::text() const {
    std::string out;
    for (const std::string& line : lines()) {
        out += line + "\n";
    }
    return out;
}

std::string duration_text(double milliseconds) {
    if (milliseconds < 0) {
        return "";
    }
    if (milliseconds < 1000) {
        return number_text(milliseconds, "%.0f ms");
    }
    const double seconds = milliseconds / 1000;
    return seconds < 10     ? number_text(seconds, "%.1f s")
           : seconds < 120  ? number_text(seconds, "%.0f s")
           : seconds < 7200 ? number_text(seconds / 60, "%.0f min")
                            : number_text(seconds / 3600, "%.1f h");
}

std::string amount_text(double value) {
    return value < 10 && value != static_cast<double>(static_cast<int64_t>(value))
               ? number_text(value, "%.1f")
           : value < 1e4  ? number_text(value, "%.0f")
           : value < 1e6  ? number_text(value / 1e3, "%.1fk")
           : value < 1e9  ? number_text(value / 1e6, "%.1fM")
           : value < 1e15 ? number_text(value / 1e9, "%.1fG")
                          : number_text(value, "%.2g");
}

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

void print_json(const Json& value) {
    print(value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

}  // namespace llm::ctl
