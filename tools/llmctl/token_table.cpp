// Clients in the table `users`, whatever columns it has.
#include <cstdlib>

#include "ngx_module/sources/users_query.hpp"
#include "shared/token_hash.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/token_store.hpp"

namespace llm::ctl {
namespace {

using nginx::sources::array_literal;
using nginx::sources::column_by_name;
using nginx::sources::parse_list;
using nginx::sources::to_string;

// pg_type.dat
constexpr uint32_t kText = 25;
constexpr uint32_t kTextArray = 1009;
constexpr uint32_t kVarcharArray = 1015;
constexpr uint32_t kDate = 1082;
constexpr uint32_t kTimestamp = 1114;
constexpr uint32_t kTimestampTz = 1184;

class TokenTable : public TokenStore {
  public:
    TokenTable(const std::string& url, bool for_change) : database_(url) {
        if (for_change) {
            transaction_.emplace(database_);
        }
        const QueryResult table =
            database_.query("SELECT count(*) FROM pg_catalog.pg_class WHERE oid = to_regclass('users')");
        if (table.rows.empty() || table.rows[0][0] == "0") {
            throw Failure(Exit::refused, "the database " + database_.place() +
                                             " has no table users; `llmctl db init` makes it");
        }
        for (const ColumnInfo& info :
             database_.query(std::string(nginx::sources::kUsersColumnsQuery)).columns) {
            if (const auto column = column_by_name(info.name)) {
                types_[static_cast<size_t>(*column)] = info.type;
            }
        }
        token_required_ =
            !database_
                 .query(
                     "SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('users') "
                     "AND attname = 'token' AND attnotnull AND NOT attisdropped")
                 .rows.empty();
    }

    std::string place() const override { return "the table users of " + database_.place(); }
    bool has(Column column) const override { return type(column) != 0; }

    bool stores_hashes() const override { return has(Column::token_sha256) && !token_required_; }

    // A token that came while the others are replaced would stay plain: writers wait until we are done.
    void make_room_for_hashes() override {
        lock();
        if (!has(Column::token_sha256)) {
            database_.run("ALTER TABLE users ADD COLUMN token_sha256 text UNIQUE");
            types_[static_cast<size_t>(Column::token_sha256)] = kText;
        }
        if (token_required_) {
            database_.run("ALTER TABLE users ALTER COLUMN token DROP NOT NULL");
            token_required_ = false;
        }
    }

    void lock() override { database_.run("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"); }

    std::vector<StoredClient> all() override {
        std::string list = has(Column::id) ? "id::text" : "ctid::text";
        std::vector<Column> columns;
        for (size_t i = 0; i < kColumnCount; ++i) {
            const auto column = static_cast<Column>(i);
            if (has(column)) {
                columns.push_back(column);
                list += ", " + expression(column);
            }
        }
        const QueryResult result =
            database_.query("SELECT " + list + " FROM users ORDER BY " + (has(Column::id) ? "id" : "ctid") +
                            (transaction_ && !has(Column::id) ? " FOR UPDATE" : ""));
        std::vector<StoredClient> out;
        for (const auto& row : result.rows) {
            StoredClient client;
            client.key = row[0].value_or("");
            for (size_t i = 0; i < columns.size(); ++i) {
                client.values[columns[i]] =
                    columns[i] == Column::models ? comma_list(row[i + 1]) : row[i + 1];
            }
            out.push_back(std::move(client));
        }
        return out;
    }

    std::string insert(const ClientValues& values) override {
        std::string names;
        std::string marks;
        std::vector<Value> parameters;
        for (size_t i = 0; i < kColumnCount; ++i) {
            const auto column = static_cast<Column>(i);
            if (values[column] && has(column)) {
                parameters.push_back(stored(column, values[column]));
                names += (names.empty() ? "\"" : ", \"") + std::string(to_string(column)) + '"';
                marks += (marks.empty() ? "$" : ", $") + std::to_string(parameters.size());
            }
        }
        const QueryResult result = database_.query("INSERT INTO users (" + names + ") VALUES (" + marks +
                                                       ")" + (has(Column::id) ? " RETURNING id::text" : ""),
                                                   parameters);
        return result.rows.empty() ? "" : result.rows[0][0].value_or("");
    }

    void update(const std::string& key, const Changes& changes) override {
        std::string list;
        std::vector<Value> parameters{key};
        for (const auto& [column, value] : changes) {
            parameters.push_back(stored(column, value));
            list += (list.empty() ? "\"" : ", \"") + std::string(to_string(column)) + "\" = $" +
                    std::to_string(parameters.size());
        }
        if (!list.empty()) {
            change_one("UPDATE users SET " + list, parameters);
        }
    }

    void remove(const std::string& key) override { change_one("DELETE FROM users", {key}); }

    void commit() override {
        if (transaction_) {
            transaction_->commit();
            transaction_.reset();
        }
    }

  private:
    uint32_t type(Column column) const { return types_[static_cast<size_t>(column)]; }
    bool is_array() const {
        return type(Column::models) == kTextArray || type(Column::models) == kVarcharArray;
    }

    // Compared as what the column is, not as text: an index serves.
    std::string where() const { return has(Column::id) ? " WHERE id = $1" : " WHERE ctid = $1::tid"; }

    // The first parameter is the key.
    void change_one(const std::string& statement, const std::vector<Value>& parameters) {
        if (database_.query(statement + where() + " RETURNING 1", parameters).rows.empty()) {
            throw Failure(Exit::refused,
                          "nothing was changed: a row of " + place() + " was deleted meanwhile");
        }
    }

    // What a date looks like depends on the session; in UTC and ISO form it is the same everywhere.
    std::string expression(Column column) const {
        const std::string name = '"' + std::string(to_string(column)) + '"';
        const uint32_t of = type(column);
        if (of == kTimestampTz) {
            return "CASE WHEN isfinite(" + name + ") THEN to_char(" + name +
                   " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') ELSE " + name + "::text END";
        }
        if (of == kTimestamp || of == kDate) {
            return "CASE WHEN isfinite(" + name + ") THEN to_char(" + name +
                   ", 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') ELSE " + name + "::text END";
        }
        return name + "::text";
    }

    static Value comma_list(const Value& text) {
        std::vector<std::string> models;
        if (!text || !parse_list(*text, models)) {
            return text;
        }
        std::string out;
        for (const std::string& model : models) {
            out += (out.empty() ? "" : ",") + model;
        }
        return out.empty() ? Value() : Value(out);
    }

    Value stored(Column column, const Value& value) const {
        if (column != Column::models || !value || !is_array()) {
            return value;
        }
        std::vector<std::string> models;
        parse_list(*value, models);
        return array_literal(models);
    }

    Database database_;
    std::optional<Transaction> transaction_;
    std::array<uint32_t, kColumnCount> types_{};
    bool token_required_ = false;  // `token` is NOT NULL
};

}  // namespace

std::unique_ptr<TokenStore> open_table(const std::string& url, bool for_change) {
    return std::make_unique<TokenTable>(url, for_change);
}

std::string database_url(const Arguments& arguments) {
    if (const auto given = arguments.value("--db")) {
        return *given;
    }
    const char* environment = std::getenv("LLM_DB");
    return environment != nullptr && *environment != 0 ? environment : "postgresql:///llm";
}

std::unique_ptr<TokenStore> open_store(const Arguments& arguments, bool for_change) {
    const auto file = arguments.value("--file");
    if (!file) {
        return open_table(database_url(arguments), for_change);
    }
    if (arguments.has("--db")) {
        throw Failure(Exit::usage, "--db and --file exclude each other");
    }
    return open_file(*file, for_change, arguments.has("--create"));
}

std::string missing_column_hint(const TokenStore& store, Column column) {
    return store.place() + " has no column \"" + std::string(to_string(column)) +
           "\"; `llmctl db upgrade` adds the optional columns";
}

std::string StoredClient::hash() const {
    if (const Value& hashed = values[Column::token_sha256]) {
        TokenHash hash;
        return from_hex(*hashed, hash) ? to_hex(hash) : "";
    }
    const Value& plain = values[Column::token];
    return plain && !plain->empty() ? to_hex(hash_token(*plain)) : "";
}

}  // namespace llm::ctl
