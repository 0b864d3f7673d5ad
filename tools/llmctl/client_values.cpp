#include "tools/llmctl/client_values.hpp"

#include <ctime>

#include <chrono>

#include "shared/token_hash.hpp"
#include "tools/llmctl/failure.hpp"

namespace llm::ctl {
namespace {

using nginx::sources::to_string;

struct Field {
    Column column;
    Option option;
};

const std::vector<Field>& fields() {
    static const std::vector<Field> all = {
        {Column::name, {"--name", "TEXT", "what it is called in metrics and logs"}},
        {Column::organization, {"--organization", "TEXT", "whose it is, for the routing modes"}},
        {Column::email, {"--email", "TEXT", "of whom to ask"}},
        {Column::priority, {"--priority", "N", "0 to 1000: weight, or class with llm_scheduler strict"}},
        {Column::threshold, {"--threshold", "N", "requests it may have waiting; 0 = may run, never wait"}},
        {Column::client_type, {"--client-type", "TEXT", "\"chat\": see llm_compat aristote"}},
        {Column::default_routing_mode,
         {"--default-routing-mode", "MODE", "any, private-first or private-only"}},
        {Column::weight, {"--weight", "X", "share while others wait, instead of the priority"}},
        {Column::band, {"--band", "N", "-1000 to 1000; a higher band goes first, always"}},
        {Column::max_running, {"--max-running", "N", "requests at once; 0 = no limit"}},
        {Column::tokens_per_minute,
         {"--tokens-per-minute", "N", "prompt and completion together; 0 = no limit"}},
        {Column::models, {"--models", "A[,B]", "the models it may use; empty = all"}},
        {Column::expires_at,
         {"--expires-at", "TIME", "2026-12-31, 2026-12-31T18:00:00Z, +30d, +12h, or never"}},
        {Column::disabled, {"--disabled", "true|false", "refused until false again"}},
    };
    return all;
}

std::string utc_text(int64_t seconds) {
    const auto at = static_cast<time_t>(seconds);
    tm parts{};
    gmtime_r(&at, &parts);
    char out[64];
    std::strftime(out, sizeof out, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return out;
}

// A row that is good but for `column`, so that its reason is about that one.
std::string why_bad_value(Column column, const std::string& text) {
    ClientValues values;
    values[Column::token] = "x";
    values[Column::priority] = "1";
    values[column] = text;
    return why_bad(values, 1);
}

}  // namespace

Value time_of(const std::string& option, const std::string& text) {
    if (text == "never" || text == "infinity") {
        return {};
    }
    if (text.size() > 2 && text[0] == '+') {
        const std::string_view units = "smhd";
        constexpr int64_t kSeconds[] = {1, 60, 3600, 86400};
        const size_t unit = units.find(text.back());
        if (unit == std::string_view::npos) {
            throw Failure(Exit::usage, option + ": expected + and a number with s, m, h or d");
        }
        const int64_t amount =
            parse_integer(option, std::string_view(text).substr(1, text.size() - 2), 0, 1'000'000);
        const auto now = std::chrono::system_clock::now().time_since_epoch();
        return utc_text(std::chrono::duration_cast<std::chrono::seconds>(now).count() +
                        amount * kSeconds[unit]);
    }
    int64_t seconds = 0;
    // "2027" is a year to people, and a time in 1970 to a table
    if (text.find('-') == std::string::npos || !nginx::sources::parse_time(text, seconds)) {
        throw Failure(Exit::usage,
                      option + ": expected 2026-12-31, 2026-12-31T18:00:00Z, +30d, +12h or never");
    }
    return utc_text(seconds);
}

namespace {

Value checked(Column column, const std::string& option, const std::string& text) {
    switch (column) {
        case Column::priority:
            return std::to_string(parse_integer(option, text, 0, core::kMaxPriority));
        case Column::threshold:
        case Column::max_running:
            return std::to_string(parse_integer(option, text, 0, INT32_MAX));
        case Column::tokens_per_minute:
            return std::to_string(parse_integer(option, text, 0, UINT32_MAX));
        case Column::band:
            return std::to_string(parse_integer(option, text, -core::kMaxBand, core::kMaxBand));
        case Column::expires_at:
            return time_of(option, text);
        case Column::disabled:
            if (text != "true" && text != "false") {
                throw Failure(Exit::usage, option + ": expected true or false");
            }
            return text;
        default:
            return text;
    }
}

}  // namespace

const std::vector<Option>& client_options() {
    static const std::vector<Option> options = [] {
        std::vector<Option> out;
        for (const Field& field : fields()) {
            out.push_back(field.option);
        }
        return out;
    }();
    return options;
}

Changes changes_from(const Arguments& arguments) {
    Changes out;
    for (const Field& field : fields()) {
        const auto given = arguments.value(field.option.name);
        if (!given) {
            continue;
        }
        const std::string option(field.option.name);
        if (given->empty()) {
            if (field.column == Column::priority || field.column == Column::name ||
                field.column == Column::disabled) {
                throw Failure(Exit::usage, option + ": must not be empty");
            }
            out.emplace_back(field.column, Value());
            continue;
        }
        const Value value = checked(field.column, option, *given);
        if (value) {
            std::string why = why_bad_value(field.column, *value);
            if (!why.empty()) {
                const size_t colon = why.find(": ");
                throw Failure(Exit::usage,
                              option + ": " + (colon == std::string::npos ? why : why.substr(colon + 2)));
            }
        }
        out.emplace_back(field.column, value);
    }
    return out;
}

std::string why_bad(const ClientValues& values, size_t position) {
    nginx::sources::RawRow row;
    for (size_t i = 0; i < kColumnCount; ++i) {
        if (values.text[i]) {
            row.text[i] = *values.text[i];
        }
    }
    nginx::sources::ClientRecord record;
    return nginx::sources::parse_client_row(row, position, record);
}

}  // namespace llm::ctl
