// The statements that read the table `users`, made from the columns that it has. Pure text.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/client_row.hpp"

namespace llm::nginx::sources {

// A column of the table that we read, with PostgreSQL's number for its type.
struct UsersColumn {
    Column column{};
    uint32_t type = 0;

    bool operator==(const UsersColumn&) const = default;
};

// Says which columns to read and learns what the table has; its answer has no rows.
inline constexpr std::string_view kUsersColumnsQuery = "SELECT * FROM users LIMIT 0";

class UsersQuery {
  public:
    // Takes note of a column of the table; unknown ones are left alone.
    void add_column(std::string_view name, uint32_t type);

    // Empty, or which required column is missing: token or token_sha256; priority; threshold.
    std::string missing() const;

    bool has_id() const;
    // The columns of an answer, in its order.
    std::span<const UsersColumn> columns() const { return columns_; }

    // All rows.
    std::string select_all() const;
    // The rows whose ids are in the array parameter $1 (array_literal()). Only when has_id().
    std::string select_some() const;

    bool operator==(const UsersQuery&) const = default;

  private:
    std::vector<UsersColumn> columns_;
};

// '{"1","2"}': the text form of an array of ids.
std::string array_literal(std::span<const std::string> ids);

// Whether the payload of a notification names one row: 1..kMaxRowIdBytes letters, digits, '-' or '_'. Anything
// else means that something has changed somewhere.
bool is_row_id(std::string_view payload);

}  // namespace llm::nginx::sources
