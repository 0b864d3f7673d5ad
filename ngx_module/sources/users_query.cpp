#include "ngx_module/sources/users_query.hpp"

#include <algorithm>

namespace llm::nginx::sources {
namespace {

// pg_type.dat
constexpr uint32_t kBlankPadded = 1042;  // char(n)
constexpr uint32_t kDate = 1082;
constexpr uint32_t kTimestamp = 1114;
constexpr uint32_t kTimestampTz = 1184;

// The text form of a date depends on the session's DateStyle, a number of seconds does not.
std::string expression(const UsersColumn& item) {
    const std::string name = '"' + std::string(to_string(item.column)) + '"';
    const bool is_time = item.type == kDate || item.type == kTimestamp || item.type == kTimestampTz;
    if (item.type == kBlankPadded) {
        return name + "::text";  // without the blanks that fill it up
    }
    return is_time ? "extract(epoch from " + name + ")" : name;
}

}  // namespace

void UsersQuery::add_column(std::string_view name, uint32_t type) {
    if (const auto column = column_by_name(name)) {
        columns_.push_back({.column = *column, .type = type});
    }
}

std::string UsersQuery::missing() const {
    const auto has = [this](Column column) {
        return std::any_of(columns_.begin(), columns_.end(),
                           [column](const UsersColumn& item) { return item.column == column; });
    };
    if (!has(Column::token) && !has(Column::token_sha256)) {
        return "token";
    }
    for (const Column column : {Column::priority, Column::threshold}) {
        if (!has(column)) {
            return std::string(to_string(column));
        }
    }
    return {};
}

bool UsersQuery::has_id() const {
    return std::any_of(columns_.begin(), columns_.end(),
                       [](const UsersColumn& item) { return item.column == Column::id; });
}

std::string UsersQuery::select_all() const {
    std::string list;
    for (const UsersColumn& item : columns_) {
        list += (list.empty() ? "" : ", ") + expression(item);
    }
    return "SELECT " + list + " FROM users";
}

std::string UsersQuery::select_some() const {
    return select_all() + " WHERE \"id\" = ANY ($1)";
}

std::string array_literal(std::span<const std::string> ids) {
    std::string out = "{";
    for (const std::string& id : ids) {
        out += out.size() > 1 ? ",\"" : "\"";
        for (const char c : id) {
            if (c == '"' || c == '\\') {
                out += '\\';
            }
            out += c;
        }
        out += '"';
    }
    return out + "}";
}

bool is_row_id(std::string_view payload) {
    return !payload.empty() && payload.size() <= kMaxRowIdBytes &&
           std::all_of(payload.begin(), payload.end(), [](char c) {
               return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                      c == '-' || c == '_';
           });
}

}  // namespace llm::nginx::sources
