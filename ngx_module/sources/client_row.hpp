// One client (API token) as a source describes it: a row of the table `users` or an object of the client
// file. Turns text into values and says plainly what is wrong with a row. Pure: no nginx, no clock, no I/O.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/core/clients.hpp"
#include "shared/token_hash.hpp"

namespace llm::nginx::sources {

// The columns we read. The first nine are Aristote Dispatcher's; the others are used where a table has them.
enum class Column : uint8_t {
    id,
    token,
    name,
    organization,
    email,
    priority,
    threshold,
    client_type,
    default_routing_mode,
    token_sha256,
    weight,
    band,
    max_running,
    tokens_per_minute,
    models,
    expires_at,
    disabled,
};
inline constexpr size_t kColumnCount = 17;

std::string_view to_string(Column column);
std::optional<Column> column_by_name(std::string_view name);

inline constexpr size_t kMaxRowIdBytes = 255;  // a table synchronised from a directory has names like uid=…,ou=…,dc=…

// A valid row that owns its texts.
struct ClientRecord {
    std::string id;  // the row's id as text; empty when the source has none
    TokenHash token{};
    std::string name;  // never empty: name, else email, else "client-<id>"; cut at core::kMaxNameBytes
    std::string organization;  // empty = none
    core::RoutingMode routing = core::RoutingMode::any;
    int32_t priority = 0;
    int32_t threshold = 0;
    double weight = 0;  // 0 = none given
    int32_t band = 0;
    uint32_t max_running = 0;
    uint32_t tokens_per_minute = 0;
    std::string models;      // comma separated; empty = all
    int64_t expires_at = 0;  // seconds since 1970, 0 = never
    bool disabled = false;
    bool chat = false;

    // The form the dispatcher takes; it points into this record.
    core::ClientRow row() const;

    bool operator==(const ClientRecord&) const = default;
};

// A row id as the dispatcher's number: the id itself when it is an integer, else 63 bits of its SHA-256
// (UUIDs, and the id 0). 0 for an empty id.
int64_t row_number(std::string_view id);

// A row as it was read: the text of each column, nothing for NULL and for columns that do not exist. The
// views must outlive the call only.
struct RawRow {
    std::array<std::optional<std::string_view>, kColumnCount> text;
    const std::vector<std::string>* models = nullptr;  // instead of text, when the source has a real list

    std::optional<std::string_view>& operator[](Column column) { return text[static_cast<size_t>(column)]; }
    const std::optional<std::string_view>& operator[](Column column) const {
        return text[static_cast<size_t>(column)];
    }
};

// Validates a row. Returns an empty string and fills `out`, or the reason, "priority: not an integer from 0
// to 1000000", which never repeats the token; `out` is then unspecified. `position` (1, 2, …) names a row
// without an id. O(bytes of the row).
std::string parse_client_row(const RawRow& row, uint64_t position, ClientRecord& out);

// A point in time as seconds since 1970, rounded down: ISO 8601 ("2026-12-31", "2026-12-31T23:59:59.5Z",
// "2026-12-31 23:59:59+02", UTC when it names no zone), seconds since 1970 ("1798761599.5"), or "infinity" (=
// 0). Never 0 for an actual time. False when it is none of these.
bool parse_time(std::string_view text, int64_t& out_s);

// A boolean in text: t, true, 1, f, false or 0, blanks around it left out. Nothing when it is none of these.
std::optional<bool> parse_flag(std::string_view text);

// PostgreSQL's text form of text[] ('{a,"b c"}'), a JSON array of strings ('["a", "b c"]'), or a comma list
// ("a, b"). False on broken quoting, a NULL element, or what begins like a JSON array and is none of strings.
bool parse_list(std::string_view text, std::vector<std::string>& out);

}  // namespace llm::nginx::sources
