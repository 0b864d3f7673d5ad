// The texts around the database: URLs, statements, ids of rows.
#include <gtest/gtest.h>

#include <map>

#include "ngx_module/sources/pg_url.hpp"
#include "ngx_module/sources/row_index.hpp"
#include "ngx_module/sources/users_query.hpp"

namespace llm::nginx::sources {
namespace {

PgUrl parsed(std::string_view text) {
    PgUrl url;
    EXPECT_EQ(parse_pg_url(text, url), "") << text;
    return url;
}

std::string setting(const PgUrl& url, std::string_view name) {
    for (const auto& [key, value] : url.settings) {
        if (key == name) {
            return value;
        }
    }
    return "(none)";
}

TEST(PgUrl, TakesWhatPsqlTakes) {
    const PgUrl url = parsed("postgresql://llm:p%40ss@db.example.org:6432/gateway?sslmode=verify-full");
    ASSERT_EQ(url.hosts.size(), 1u);
    EXPECT_EQ(url.hosts[0].host, "db.example.org");
    EXPECT_EQ(url.hosts[0].port, 6432);
    EXPECT_EQ(url.place, "db.example.org:6432/gateway");
    EXPECT_EQ(setting(url, "password"), "p@ss");
    EXPECT_EQ(setting(url, "sslmode"), "verify-full");
    EXPECT_EQ(parsed("postgres://10.0.0.1/x").hosts[0].port, 5432);
    EXPECT_EQ(parsed("postgresql://[::1]:5433/x").hosts[0].host, "::1");
}

TEST(PgUrl, TakesSocketsAndSeveralHosts) {
    const PgUrl socket = parsed("postgresql:///db?host=/run/postgresql");
    ASSERT_EQ(socket.hosts.size(), 1u);
    EXPECT_TRUE(is_pg_directory(socket.hosts[0].host));
    EXPECT_EQ(socket.place, "/run/postgresql/db");
    EXPECT_TRUE(is_pg_directory(parsed("postgresql:///db").hosts[0].host));

    const PgUrl several = parsed("postgresql://a:1,b:2/db?target_session_attrs=read-write");
    ASSERT_EQ(several.hosts.size(), 2u);
    EXPECT_EQ(several.hosts[1].host, "b");
    EXPECT_EQ(several.hosts[1].port, 2);
    EXPECT_EQ(several.place, "a:1,b:2/db");

    EXPECT_TRUE(parsed("postgresql://a/db?hostaddr=10.0.0.1").hosts.empty());
}

TEST(PgUrl, RefusesWithoutRepeatingSecrets) {
    PgUrl url;
    for (const char* bad : {"", "mysql://x", "postgresql://u:se%zzcret@h/d", "postgresql://u:secret@h:0/d",
                            "postgresql://u:secret@h:99999/d", "postgresql://u:secret@[::1/d",
                            "postgresql://u:secret@h/d?service=x", "postgresql://u:p@secret@h/d",
                            "postgresql://u:12/secret@h/d", "postgresql://u:12/secret@h:5432/d?sslmode=require"}) {
        const std::string reason = parse_pg_url(bad, url);
        EXPECT_FALSE(reason.empty()) << bad;
        EXPECT_EQ(reason.find("cret"), std::string::npos) << reason;
    }
    EXPECT_EQ(parse_pg_url("postgresql://u:%40%2F@h/a%40b?host=@abstract&options=-c%20a%3Db@c", url), "");
    EXPECT_EQ(setting(url, "password"), "@/");
    EXPECT_EQ(parse_pg_url("postgresql://h/d?user=u@realm", url), "");
    EXPECT_EQ(parse_pg_url("postgresql://u@h/d?colour=red", url), "invalid URI query parameter: \"colour\"");
    EXPECT_EQ(parse_pg_url("postgresql://u@h/d?target_session_attrs=master", url),
              "invalid target_session_attrs value: \"master\"");
    EXPECT_EQ(parse_pg_url("postgresql://u@h/d?channel_binding=on", url), "invalid channel_binding value: \"on\"");
    EXPECT_EQ(parse_pg_url("postgresql://u@h/d?sslmode=verify_full", url),
              "invalid sslmode, allowed: disable, allow, prefer, require, verify-ca, verify-full");
}

TEST(UsersQuery, ReadsTheColumnsThatAreThere) {
    UsersQuery query;
    EXPECT_EQ(query.missing(), "token");
    query.add_column("token", 25);
    EXPECT_EQ(query.missing(), "priority");
    query.add_column("priority", 23);
    EXPECT_EQ(query.missing(), "threshold");
    query.add_column("threshold", 23);
    query.add_column("favourite_colour", 25);
    EXPECT_EQ(query.missing(), "");
    EXPECT_FALSE(query.has_id());
    EXPECT_EQ(query.select_all(), R"(SELECT "token", "priority", "threshold" FROM users)");
    query.add_column("id", 20);
    EXPECT_TRUE(query.has_id());
    EXPECT_EQ(query.columns().size(), 4u);
    EXPECT_EQ(query.select_some(),
              R"(SELECT "token", "priority", "threshold", "id" FROM users WHERE "id" = ANY ($1))");
}

TEST(UsersQuery, AsksForTimesAsNumbers) {
    for (const uint32_t type : {1082u, 1114u, 1184u}) {
        UsersQuery query;
        query.add_column("expires_at", type);
        EXPECT_EQ(query.select_all(), R"(SELECT extract(epoch from "expires_at") FROM users)");
    }
    UsersQuery text;
    text.add_column("expires_at", 25);
    EXPECT_EQ(text.select_all(), R"(SELECT "expires_at" FROM users)");
}

TEST(UsersQuery, TakesTheBlanksOffPaddedText) {
    UsersQuery query;
    query.add_column("token", 1042);
    EXPECT_EQ(query.select_all(), R"(SELECT "token"::text FROM users)");
}

TEST(UsersQuery, TokenMayBeHashed) {
    UsersQuery query;
    query.add_column("token_sha256", 25);
    query.add_column("priority", 23);
    query.add_column("threshold", 23);
    EXPECT_EQ(query.missing(), "");
}

TEST(UsersQuery, ArraysOfIds) {
    EXPECT_EQ(array_literal({}), "{}");
    const std::vector<std::string> ids = {"1", "a\"b\\c"};
    EXPECT_EQ(array_literal(ids), R"({"1","a\"b\\c"})");
    std::vector<std::string> back;
    EXPECT_TRUE(parse_list(array_literal(ids), back));
    EXPECT_EQ(back, ids);
}

TEST(UsersQuery, RowIds) {
    for (const char* good : {"1", "42", "2f4e6a9c-0000-4000-8000-000000000001", "user_7"}) {
        EXPECT_TRUE(is_row_id(good)) << good;
    }
    for (const char* bad : {"", "1 2", "1;", "{1}", "é", "\n"}) {
        EXPECT_FALSE(is_row_id(bad)) << bad;
    }
    EXPECT_TRUE(is_row_id(std::string(kMaxRowIdBytes, '1')));
    EXPECT_FALSE(is_row_id(std::string(kMaxRowIdBytes + 1, '1')));
}

TEST(RowIndex, FindsWhatWasSet) {
    RowIndex index;
    for (int64_t row = -5'000; row < 5'000; ++row) {
        index.set(row, hash_token(std::to_string(row)));
    }
    for (int64_t row = -5'000; row < 5'000; ++row) {
        const TokenHash* token = index.find(row);
        ASSERT_EQ(token != nullptr, row != 0) << row;  // 0 is "no id"
        if (token != nullptr) {
            ASSERT_EQ(*token, hash_token(std::to_string(row)));
        }
    }
    index.set(7, hash_token("new"));
    EXPECT_EQ(*index.find(7), hash_token("new"));
    index.erase(7);
    EXPECT_EQ(index.find(7), nullptr);

    RowIndex other;
    other.swap(index);
    EXPECT_EQ(index.find(8), nullptr);
    ASSERT_NE(other.find(8), nullptr);
    size_t at = 0;
    for (int rounds = 0; at < RowIndex::kShards; ++rounds) {
        ASSERT_LT(rounds, 100);
        at = other.clear_some(at, 32);
    }
    for (int64_t row = -5'000; row < 5'000; ++row) {
        ASSERT_EQ(other.find(row), nullptr);
    }
}

// Against a plain map, with keys that share shards and probe sequences.
TEST(RowIndex, AgreesWithAMap) {
    RowIndex index;
    std::map<int64_t, TokenHash> model;
    uint64_t state = 42;
    const auto random = [&state] {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return state >> 33;
    };
    for (int step = 0; step < 100'000; ++step) {
        const auto row = static_cast<int64_t>(random() % 3'000) * 1'024;
        if (random() % 3 != 0) {
            TokenHash token{};
            token[0] = static_cast<uint8_t>(random());
            index.set(row, token);
            if (row != 0) {
                model[row] = token;
            }
        } else {
            index.erase(row);
            model.erase(row);
        }
        if (step % 1'000 == 0) {
            for (int64_t key = 0; key < 3'000; ++key) {
                const auto found = model.find(key * 1'024);
                const TokenHash* token = index.find(key * 1'024);
                ASSERT_EQ(token != nullptr, found != model.end()) << key;
                ASSERT_TRUE(token == nullptr || *token == found->second) << key;
            }
        }
    }
}

}  // namespace
}  // namespace llm::nginx::sources
