// A connection to PostgreSQL. Everything throws Failure, with the server's own words.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

struct pg_conn;
struct pg_result;

namespace llm::ctl {

using Value = std::optional<std::string>;  // nothing = NULL

struct ColumnInfo {
    std::string name;
    uint32_t type = 0;  // pg_type's number
};

struct QueryResult {
    std::vector<ColumnInfo> columns;
    std::vector<std::vector<Value>> rows;

    // Index of a column, or −1.
    int find(std::string_view name) const;
};

class Database {
  public:
    // Connects: Exit::usage for an URL that is none, Exit::unreachable when it cannot.
    explicit Database(const std::string& url);
    ~Database();
    Database(const Database&) = delete;
    Database& operator=(const Database&) = delete;

    QueryResult query(const std::string& sql, const std::vector<Value>& parameters = {});
    // Several statements without parameters.
    void run(std::string_view sql);

    const std::string& place() const { return place_; }  // "host:5432/db", no password

  private:
    [[noreturn]] void fail(const pg_result* result);

    pg_conn* connection_ = nullptr;
    std::string place_;
};

// BEGIN … COMMIT; rolls back unless commit() was reached.
class Transaction {
  public:
    explicit Transaction(Database& database) : database_(database) { database_.run("BEGIN"); }
    ~Transaction();
    Transaction(const Transaction&) = delete;
    Transaction& operator=(const Transaction&) = delete;
    void commit();

  private:
    Database& database_;
    bool done_ = false;
};

}  // namespace llm::ctl
