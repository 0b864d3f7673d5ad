#include "ngx_module/sources/client_row.hpp"

#include <gtest/gtest.h>

#include <map>

namespace llm::nginx::sources {
namespace {

// A row that is fine, changed by each test.
RawRow good_row() {
    RawRow row;
    row[Column::id] = "7";
    row[Column::token] = "sk-secret";
    row[Column::priority] = "5";
    row[Column::threshold] = "10";
    return row;
}

std::string error_of(const RawRow& row) {
    ClientRecord record;
    return parse_client_row(row, 1, record);
}

ClientRecord parsed(const RawRow& row, uint64_t position = 1) {
    ClientRecord record;
    EXPECT_EQ(parse_client_row(row, position, record), "");
    return record;
}

TEST(ClientRow, TakesAristoteRows) {
    RawRow row = good_row();
    row[Column::name] = "Alice";
    row[Column::organization] = "cs";
    row[Column::email] = "alice@example.org";
    row[Column::client_type] = "chat";
    row[Column::default_routing_mode] = "private-first";
    const ClientRecord record = parsed(row);
    EXPECT_EQ(record.id, "7");
    EXPECT_EQ(record.token, hash_token("sk-secret"));
    EXPECT_EQ(record.name, "Alice");
    EXPECT_EQ(record.organization, "cs");
    EXPECT_EQ(record.routing, core::RoutingMode::private_first);
    EXPECT_EQ(record.priority, 5);
    EXPECT_EQ(record.threshold, 10);
    EXPECT_TRUE(record.chat);
    EXPECT_FALSE(record.disabled);
    EXPECT_EQ(record.expires_at, 0);
    EXPECT_TRUE(record.models.empty());
}

TEST(ClientRow, HandsEveryFieldToTheDispatcher) {
    RawRow row = good_row();
    row[Column::weight] = "2.5";
    row[Column::band] = "-3";
    row[Column::max_running] = "4";
    row[Column::tokens_per_minute] = "60000";
    row[Column::models] = "{a,b}";
    row[Column::expires_at] = "2030-01-01";
    row[Column::disabled] = "t";
    const ClientRecord record = parsed(row);
    const core::ClientRow out = record.row();
    EXPECT_EQ(out.hash, hash_token("sk-secret"));
    EXPECT_EQ(out.row_id, 7);
    EXPECT_EQ(out.name, "client-7");
    EXPECT_EQ(out.models, "a,b");
    EXPECT_EQ(out.priority, 5);
    EXPECT_EQ(out.weight, 2.5);
    EXPECT_EQ(out.band, -3);
    EXPECT_EQ(out.threshold, 10);
    EXPECT_EQ(out.max_running, 4u);
    EXPECT_EQ(out.tokens_per_minute, 60000u);
    EXPECT_EQ(out.expires_at, 1893456000);
    EXPECT_TRUE(out.disabled);
}

TEST(ClientRow, NullThresholdIsZeroAndMissingPriorityIsBad) {
    RawRow row = good_row();
    row[Column::threshold].reset();
    EXPECT_EQ(parsed(row).threshold, 0);
    row[Column::priority].reset();
    EXPECT_EQ(error_of(row), "priority: missing");
}

TEST(ClientRow, NumbersOutOfRangeAreBadOrCut) {
    for (const char* bad : {"", "-1", "five", "5.5", "0x5", "1e3", "99999999999999999999"}) {
        RawRow row = good_row();
        row[Column::priority] = bad;
        EXPECT_TRUE(error_of(row).starts_with("priority:")) << bad;
        row = good_row();
        row[Column::threshold] = bad;
        EXPECT_TRUE(error_of(row).starts_with("threshold:")) << bad;
    }
    RawRow row = good_row();
    row[Column::priority] = "5.00";
    EXPECT_EQ(parsed(row).priority, 5);
    row[Column::priority] = "2000000000";
    row[Column::threshold] = "9999999999";
    row[Column::band] = "-99999";
    EXPECT_EQ(parsed(row).priority, core::kMaxPriority);
    EXPECT_EQ(parsed(row).threshold, core::kUnlimited);
    EXPECT_EQ(parsed(row).band, -core::kMaxBand);
    for (const char* bad : {"0", "-1", "nan", "inf", "1e9", "x"}) {
        row = good_row();
        row[Column::weight] = bad;
        EXPECT_TRUE(error_of(row).starts_with("weight:")) << bad;
    }
}

TEST(ClientRow, TokenComesPlainOrHashedOrBothAlike) {
    const std::string hex = to_hex(hash_token("sk-secret"));
    RawRow row = good_row();
    row[Column::token_sha256] = hex;
    EXPECT_EQ(parsed(row).token, hash_token("sk-secret"));
    row[Column::token].reset();
    EXPECT_EQ(parsed(row).token, hash_token("sk-secret"));
    row[Column::token_sha256].reset();
    EXPECT_EQ(error_of(row), "token: missing");
    row = good_row();
    row[Column::token] = "another";
    row[Column::token_sha256] = hex;
    EXPECT_EQ(error_of(row), "token and token_sha256 disagree");
    row[Column::token_sha256] = "abc";
    EXPECT_EQ(error_of(row), "token_sha256: not 64 hexadecimal digits");
}

TEST(ClientRow, ReasonsNeverHoldTheToken) {
    for (const char* token : {"", "sk secret", "sk-secret\n", "sk-\x01", "sk-sch\xc3\xb6n"}) {
        RawRow row = good_row();
        row[Column::token] = token;
        const std::string reason = error_of(row);
        EXPECT_TRUE(reason.starts_with("token: ")) << reason;
        EXPECT_EQ(reason.find("sk"), std::string::npos);
    }
}

TEST(ClientRow, NameFallsBackAndIsCutBetweenCharacters) {
    RawRow row = good_row();
    EXPECT_EQ(parsed(row).name, "client-7");
    row[Column::id].reset();
    EXPECT_EQ(parsed(row, 42).name, "client-42");
    row[Column::email] = "bob@example.org";
    EXPECT_EQ(parsed(row).name, "bob@example.org");
    std::string longer(core::kMaxNameBytes - 1, 'x');
    longer += "é";
    row[Column::name] = longer;
    EXPECT_EQ(parsed(row).name, std::string(core::kMaxNameBytes - 1, 'x'));
    row[Column::name] = "a\nb";
    EXPECT_EQ(error_of(row), "name: holds a control character");
    for (const char* bad : {"\xff", "a\xc3", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe2\x82x", "\x80"}) {
        row[Column::name] = bad;
        EXPECT_EQ(error_of(row), "name: not UTF-8");
    }
    row[Column::name] = "\xf0\x9f\x98\x80 \xe2\x82\xac";
    EXPECT_EQ(parsed(row).name, "\xf0\x9f\x98\x80 \xe2\x82\xac");
}

// What nothing depends on costs nobody the right to ask: a line's end that came along, an address, a type of any
// length.
TEST(ClientRow, TextsThatDoNotMatterMayBeAnything) {
    RawRow row = good_row();
    const std::string long_type(255, 't');
    row[Column::client_type] = long_type;
    row[Column::email] = "a@x\r\nb@x";
    EXPECT_FALSE(parsed(row).chat);
    EXPECT_EQ(parsed(row).name, "client-7") << "not the address, which cannot be shown";
    row[Column::email] = "\xff";
    EXPECT_EQ(parsed(row).name, "client-7");
    row[Column::email] = "bob@example.org\n";
    EXPECT_EQ(parsed(row).name, "bob@example.org");
    row[Column::name] = "\tBob \n";
    EXPECT_EQ(parsed(row).name, "Bob");
}

TEST(ClientRow, RoutingModes) {
    RawRow row = good_row();
    for (const auto& [text, mode] :
         std::map<std::string, core::RoutingMode>{{"", core::RoutingMode::any},
                                                  {"any", core::RoutingMode::any},
                                                  {"private-first", core::RoutingMode::private_first},
                                                  {"private-only", core::RoutingMode::private_only}}) {
        row[Column::default_routing_mode] = text;
        EXPECT_EQ(parsed(row).routing, mode);
    }
    row[Column::default_routing_mode] = "private";
    EXPECT_TRUE(error_of(row).starts_with("default_routing_mode:"));
}

TEST(ClientRow, ModelLists) {
    std::vector<std::string> list;
    const auto parse = [&list](std::string_view text) { return parse_list(text, list); };
    using Texts = std::vector<std::string>;
    EXPECT_TRUE(parse("") && list.empty());
    EXPECT_TRUE(parse("{}") && list.empty());
    EXPECT_TRUE(parse("a") && list == Texts{"a"});
    EXPECT_TRUE(parse(" a , b,, ") && (list == Texts{"a", "b"}));
    EXPECT_TRUE(parse("{a,b/c:1}") && (list == Texts{"a", "b/c:1"}));
    EXPECT_TRUE(parse(R"({"a b","c\"d","e\\f","NULL"})") && (list == Texts{"a b", "c\"d", "e\\f", "NULL"}));
    EXPECT_TRUE(parse("[]") && list.empty());
    EXPECT_TRUE(parse(R"( ["a", "b c/\u00e9"] )") && (list == Texts{"a", "b c/\u00e9"}));
    for (const char* bad : {"[", "[a]", "[1]", "[null]", R"(["a",])", R"(["a"] b)", R"([["a"]])", "{", "{a",
                            "{a,}", "{,a}", "{NULL}", "{\"a}", "{\"a\\", "{\"a\"b}", "{{a},{b}}"}) {
        EXPECT_FALSE(parse(bad)) << bad;
    }
    RawRow row = good_row();
    row[Column::models] = R"({"a,b"})";
    EXPECT_TRUE(error_of(row).starts_with("models:"));
    const std::string too_long(core::kMaxModelBytes + 1, 'm');
    row[Column::models] = too_long;
    EXPECT_TRUE(error_of(row).starts_with("models:"));
}

TEST(ClientRow, Times) {
    const std::map<std::string, int64_t> good = {
        {"infinity", 0},
        {"-infinity", 1},
        {"1700000000", 1700000000},
        {"1700000000.9", 1700000000},
        {"1970-01-02", 86400},
        {"2024-02-29", 1709164800},
        {"2023-11-14T22:13:20Z", 1700000000},
        {"2023-11-14T22:13:20.999Z", 1700000000},
        {"2023-11-14 22:13:20+00", 1700000000},
        {"2023-11-15 00:13:20+02", 1700000000},
        {"2023-11-15T03:43:20+05:30", 1700000000},
        {"2023-11-14T14:13:20-0800", 1700000000},
        {"2023-11-14 22:13", 1699999980},
        {"1901-01-01", 1},
    };
    for (const auto& [text, expected] : good) {
        int64_t seconds = -1;
        EXPECT_TRUE(parse_time(text, seconds)) << text;
        EXPECT_EQ(seconds, expected) << text;
    }
    for (const char* bad :
         {"", "tomorrow", "2023-13-01", "2023-02-29", "2023-1-1", "2023-11-14T", "2023-11-14T25:00",
          "2023-11-14T22:13:20+", "2023-11-14T22:13:20+99", "2023-11-14T22:13:20 CET", "1e300"}) {
        int64_t seconds = 0;
        EXPECT_FALSE(parse_time(bad, seconds)) << bad;
    }
}

TEST(ClientRow, RowNumbersAreTheIdOrStableForOtherKeys) {
    EXPECT_EQ(row_number(""), 0);
    EXPECT_EQ(row_number("12"), 12);
    EXPECT_NE(row_number("0"), 0) << "which is that of rows without an id";
    const int64_t uuid = row_number("2f4e6a9c-0000-4000-8000-000000000001");
    EXPECT_GT(uuid, 0);
    EXPECT_EQ(uuid, row_number("2f4e6a9c-0000-4000-8000-000000000001"));
    EXPECT_NE(uuid, row_number("2f4e6a9c-0000-4000-8000-000000000002"));
}

TEST(ClientRow, ColumnNamesRoundTrip) {
    for (size_t i = 0; i < kColumnCount; ++i) {
        const auto column = static_cast<Column>(i);
        EXPECT_EQ(column_by_name(to_string(column)), column);
    }
    EXPECT_FALSE(column_by_name("password"));
}

}  // namespace
}  // namespace llm::nginx::sources
