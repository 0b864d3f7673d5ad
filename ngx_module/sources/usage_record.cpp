#include "ngx_module/sources/usage_record.hpp"

#include <array>
#include <charconv>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <variant>

namespace llm::nginx::sources {
namespace {

enum class Kind : uint8_t { text, time, integer, number };

struct UsageColumn {
    std::string_view name;
    Kind kind;
    std::variant<std::string UsageRecord::*, double UsageRecord::*, int64_t UsageRecord::*,
                 std::optional<int64_t> UsageRecord::*>
        member;
};

// pg_type.dat
constexpr uint32_t kDate = 1082;
constexpr uint32_t kTimestamp = 1114;

constexpr std::array<UsageColumn, 17> kColumns = {{
    {"user_name", Kind::text, &UsageRecord::user_name},
    {"user_organization", Kind::text, &UsageRecord::user_organization},
    {"request_date", Kind::time, &UsageRecord::request_date},
    {"sent_to_llm_date", Kind::time, &UsageRecord::sent_to_llm_date},
    {"response_date", Kind::time, &UsageRecord::response_date},
    {"model", Kind::text, &UsageRecord::model},
    {"server", Kind::text, &UsageRecord::server},
    {"server_organization", Kind::text, &UsageRecord::server_organization},
    {"prompt_tokens", Kind::integer, &UsageRecord::prompt_tokens},
    {"completion_tokens", Kind::integer, &UsageRecord::completion_tokens},
    {"strategy", Kind::text, &UsageRecord::strategy},
    {"requeue_count", Kind::integer, &UsageRecord::requeue_count},
    {"max_parallel_requests", Kind::integer, &UsageRecord::max_parallel_requests},
    {"current_parallel_requests", Kind::integer, &UsageRecord::current_parallel_requests},
    {"priority", Kind::integer, &UsageRecord::priority},
    {"performance_score", Kind::number, &UsageRecord::performance_score},
    {"routing_mode", Kind::text, &UsageRecord::routing_mode},
}};

// An element of an array literal. PostgreSQL refuses NUL bytes and, in UTF-8 databases, text that is not
// UTF-8; names come from validated rows and reports, but one bad byte must not cost a whole batch.
void append_text(std::string& out, std::string_view text) {
    out += '"';
    for (const char c : text) {
        if (c == '\0') {
            continue;
        }
        if (c == '"' || c == '\\') {
            out += '\\';
        }
        out += c;
    }
    out += '"';
}

void append_number(std::string& out, double value) {
    if (!std::isfinite(value)) {
        out += "NULL";
        return;
    }
    std::array<char, 64> text{};
    const auto [end, error] =
        std::to_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed, 6);
    out +=
        error == std::errc() ? std::string_view(text.data(), static_cast<size_t>(end - text.data())) : "NULL";
}

void append_value(std::string& out, const UsageColumn& column, const UsageRecord& record) {
    if (const auto* text = std::get_if<std::string UsageRecord::*>(&column.member)) {
        // a table of Aristote Dispatcher's own takes no NULL for the name
        if ((record.*(*text)).empty() && *text != &UsageRecord::user_name) {
            out += "NULL";
        } else {
            append_text(out, record.*(*text));
        }
    } else if (const auto* count = std::get_if<std::optional<int64_t> UsageRecord::*>(&column.member)) {
        out += record.*(*count) ? std::to_string(*(record.*(*count))) : "NULL";
    } else if (const auto* integer = std::get_if<int64_t UsageRecord::*>(&column.member)) {
        out += std::to_string(record.*(*integer));
    } else {
        const double value = record.*(*std::get_if<double UsageRecord::*>(&column.member));
        if (column.kind == Kind::time && value <= 0) {
            out += "NULL";
        } else {
            append_number(out, value);
        }
    }
}

template <typename Number>
requires std::is_arithmetic_v<Number>
void pack(std::string& out, Number number) {
    out.append(reinterpret_cast<const char*>(&number), sizeof number);
}
void pack(std::string& out, const std::string& text) {
    pack(out, text.size());
    out += text;
}
void pack(std::string& out, const std::optional<int64_t>& number) {
    pack(out, number.has_value());
    pack(out, number.value_or(0));
}

template <typename Number>
requires std::is_arithmetic_v<Number>
bool take(std::string_view& in, Number& out) {
    if (in.size() < sizeof out) {
        return false;
    }
    std::memcpy(&out, in.data(), sizeof out);
    in.remove_prefix(sizeof out);
    return true;
}
bool take(std::string_view& in, std::string& out) {
    size_t size = 0;
    if (!take(in, size) || in.size() < size) {
        return false;
    }
    out = in.substr(0, size);
    in.remove_prefix(size);
    return true;
}
bool take(std::string_view& in, std::optional<int64_t>& out) {
    bool given = false;
    int64_t number = 0;
    if (!take(in, given) || !take(in, number)) {
        return false;
    }
    out = given ? std::optional(number) : std::nullopt;
    return true;
}

}  // namespace

void append_packed(std::string& out, const UsageRecord& record) {
    for (const UsageColumn& column : kColumns) {
        std::visit([&](auto member) { pack(out, record.*member); }, column.member);
    }
}

bool unpack(std::string_view& in, UsageRecord& out) {
    for (const UsageColumn& column : kColumns) {
        if (!std::visit([&](auto member) { return take(in, out.*member); }, column.member)) {
            return false;
        }
    }
    return true;
}

void UsageQuery::add_column(std::string_view name, uint32_t type) {
    for (size_t i = 0; i < kColumns.size(); ++i) {
        if (kColumns[i].name == name) {
            columns_.push_back({.index = i, .zoneless = type == kDate || type == kTimestamp});
        }
    }
}

std::string UsageQuery::insert() const {
    std::string names;
    std::string values;
    std::string arrays;
    std::string aliases;
    for (size_t i = 0; i < columns_.size(); ++i) {
        const UsageColumn& column = kColumns[columns_[i].index];
        const std::string comma = i > 0 ? ", " : "";
        const std::string alias = "c" + std::to_string(i + 1);
        names += comma + '"' + std::string(column.name) + '"';
        switch (column.kind) {
            case Kind::text:
                values += comma + alias;
                break;
            case Kind::time:
                values += comma + "to_timestamp(" + alias + "::float8)" +
                          (columns_[i].zoneless ? " AT TIME ZONE 'UTC'" : "");
                break;
            case Kind::integer:
                values += comma + alias + "::bigint";
                break;
            case Kind::number:
                values += comma + alias + "::float8";
                break;
        }
        arrays += comma + '$' + std::to_string(i + 1) + "::text[]";
        aliases += comma + alias;
    }
    return "INSERT INTO metrics (" + names + ") SELECT " + values + " FROM unnest(" + arrays + ") AS t (" +
           aliases + ")";
}

std::vector<std::string> UsageQuery::parameters(std::span<const UsageRecord> records) const {
    std::vector<std::string> out(columns_.size(), "{");
    for (size_t i = 0; i < columns_.size(); ++i) {
        for (const UsageRecord& record : records) {
            if (out[i].size() > 1) {
                out[i] += ',';
            }
            append_value(out[i], kColumns[columns_[i].index], record);
        }
        out[i] += '}';
    }
    return out;
}

}  // namespace llm::nginx::sources
