// One finished request as a row of the table `metrics` (Aristote Dispatcher's columns), and the statement
// that writes many of them. Pure text.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace llm::nginx::sources {

struct UsageRecord {
    std::string user_name;
    std::string user_organization;  // empty = NULL, here and below
    double request_date = 0;      // seconds since 1970; 0 = NULL, here and below
    double sent_to_llm_date = 0;  // when the last attempt went to its engine
    double response_date = 0;     // when the answer was complete
    std::string model;
    std::string server;  // the engine's URL
    std::string server_organization;
    std::optional<int64_t> prompt_tokens;  // NULL where nothing is known, as after an engine's error
    std::optional<int64_t> completion_tokens;
    std::string strategy;       // the routing policy
    int64_t requeue_count = 0;  // attempts after the first
    int64_t max_parallel_requests = 0;
    int64_t current_parallel_requests = 0;  // of the engine, without this one
    int64_t priority = 0;
    // tokens/s per user of the engine; NaN = NULL
    double performance_score = std::numeric_limits<double>::quiet_NaN();
    std::string routing_mode;
};

// Bytes for another process of the same build, and back: unpack() takes one record from the front of `in`.
// False when there is none that is whole.
void append_packed(std::string& out, const UsageRecord& record);
bool unpack(std::string_view& in, UsageRecord& out);

// Rows of name and type. From the catalogue, which everybody may read: the gateway needs INSERT on metrics, not SELECT.
inline constexpr std::string_view kUsageColumnsQuery =
    "SELECT attname, atttypid FROM pg_catalog.pg_attribute "
    "WHERE attrelid = 'metrics'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum";

// Writes to the columns that the table has; those it lacks are left out.
class UsageQuery {
  public:
    // Takes note of a column of the table; unknown ones are left to their defaults.
    // `type` is its OID: a date or a timestamp without time zone is written in UTC.
    void add_column(std::string_view name, uint32_t type);
    bool empty() const { return columns_.empty(); }

    // INSERT with one array parameter for each column.
    std::string insert() const;
    // The parameters for these records, in the order of insert().
    std::vector<std::string> parameters(std::span<const UsageRecord> records) const;

  private:
    struct Column {
        size_t index;  // in the column list of usage_record.cpp
        bool zoneless;
    };
    std::vector<Column> columns_;
};

}  // namespace llm::nginx::sources
