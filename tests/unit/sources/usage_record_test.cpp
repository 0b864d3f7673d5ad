#include "ngx_module/sources/usage_record.hpp"

#include <gtest/gtest.h>

namespace llm::nginx::sources {
namespace {

TEST(UsageQuery, WritesTheColumnsThatAreThere) {
    UsageQuery query;
    EXPECT_TRUE(query.empty());
    for (const char* name :
         {"id", "user_name", "request_date", "prompt_tokens", "performance_score", "colour"}) {
        query.add_column(name, 0);
    }
    EXPECT_EQ(
        query.insert(),
        "INSERT INTO metrics (\"user_name\", \"request_date\", \"prompt_tokens\", \"performance_score\") "
        "SELECT c1, to_timestamp(c2::float8), c3::bigint, c4::float8 "
        "FROM unnest($1::text[], $2::text[], $3::text[], $4::text[]) AS t (c1, c2, c3, c4)");
}

TEST(UsageQuery, WritesDatesWithoutZoneInUtc) {
    UsageQuery query;
    query.add_column("request_date", 1114);
    query.add_column("response_date", 1184);
    EXPECT_EQ(query.insert(),
              "INSERT INTO metrics (\"request_date\", \"response_date\") "
              "SELECT to_timestamp(c1::float8) AT TIME ZONE 'UTC', to_timestamp(c2::float8) "
              "FROM unnest($1::text[], $2::text[]) AS t (c1, c2)");
}

TEST(UsageQuery, MakesOneArrayForEachColumn) {
    UsageQuery query;
    for (const char* name :
         {"user_name", "user_organization", "request_date", "prompt_tokens", "performance_score"}) {
        query.add_column(name, 0);
    }
    EXPECT_EQ(query.parameters({}), (std::vector<std::string>{"{}", "{}", "{}", "{}", "{}"}));
    std::vector<UsageRecord> records(2);
    records[0].user_name = "a\"b\\c,{}";
    records[0].user_organization = "cs";
    records[0].request_date = 1700000000.25;
    records[0].prompt_tokens = 12;
    records[1].user_name = std::string("n\0ul", 4);
    records[1].performance_score = 27.5;
    EXPECT_EQ(query.parameters(records),
              (std::vector<std::string>{R"({"a\"b\\c,{}","nul"})", R"({"cs",NULL})",
                                        "{1700000000.250000,NULL}", "{12,NULL}", "{NULL,27.500000}"}));
}

// Who has no name (open access) has an empty one: the column is NOT NULL in their table.
TEST(UsageQuery, WritesAnEmptyName) {
    UsageQuery query;
    query.add_column("user_name", 0);
    EXPECT_EQ(query.parameters(std::vector<UsageRecord>(1)), (std::vector<std::string>{R"({""})"}));
}

TEST(UsageQuery, KnowsAristotesColumns) {
    UsageQuery query;
    for (const char* name : {"user_name", "user_organization", "request_date", "sent_to_llm_date",
                             "response_date", "model", "server", "server_organization", "prompt_tokens",
                             "completion_tokens", "strategy", "requeue_count", "max_parallel_requests",
                             "current_parallel_requests", "priority", "performance_score", "routing_mode"}) {
        query.add_column(name, 0);
    }
    EXPECT_EQ(query.parameters({}).size(), 17u);
}

}  // namespace
}  // namespace llm::nginx::sources
