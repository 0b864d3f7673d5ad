// db init, db upgrade.
#include <algorithm>

#include "ngx_module/sources/client_row.hpp"
#include "shared/json.hpp"
#include "tools/llmctl/commands.hpp"
#include "tools/llmctl/database.hpp"
#include "tools/llmctl/embedded_sql.hpp"
#include "tools/llmctl/failure.hpp"
#include "tools/llmctl/text.hpp"
#include "tools/llmctl/token_store.hpp"

namespace llm::ctl {
namespace {

// Every column that a client can have but `id` and `token`, as conf/schema.sql makes it.
constexpr std::pair<const char*, const char*> kColumns[] = {
    {"name", "text"},
    {"organization", "text"},
    {"email", "text"},
    {"client_type", "text"},
    {"default_routing_mode", "text"},
    {"token_sha256", "text UNIQUE CHECK (token_sha256 ~ '^[0-9a-fA-F]{64}$')"},
    {"weight", "double precision CHECK (weight > 0)"},
    {"band", "integer"},
    {"max_running", "integer CHECK (max_running >= 0)"},
    {"tokens_per_minute", "bigint CHECK (tokens_per_minute >= 0)"},
    {"models", "text[]"},
    {"expires_at", "timestamptz"},
    {"disabled", "boolean NOT NULL DEFAULT false"},
};

bool has_relation(Database& database, const std::string& name) {
    return database.query("SELECT to_regclass($1)", {name}).rows[0][0].has_value();
}

std::vector<std::string> columns_of(Database& database) {
    std::vector<std::string> out;
    for (const ColumnInfo& info : database.query("SELECT * FROM users LIMIT 0").columns) {
        out.push_back(info.name);
    }
    return out;
}

bool has(const std::vector<std::string>& names, std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

// The files of conf/ have their own BEGIN and COMMIT; here everything is one transaction.
std::string without_transaction(std::string_view sql) {
    std::string out(sql);
    for (const std::string_view word : {"\nBEGIN;\n", "\nCOMMIT;\n"}) {
        const size_t at = out.find(word);
        if (at != std::string::npos) {
            out.replace(at, word.size(), "\n");
        }
    }
    return out;
}

int report(const Arguments& arguments, const Database& database, const std::vector<std::string>& done) {
    if (arguments.json()) {
        print_json({{"database", database.place()}, {"done", done}});
        return 0;
    }
    if (done.empty()) {
        print("Nothing to do in " + database.place() + ".\n");
    }
    for (const std::string& one : done) {
        print("  " + one + "\n");
    }
    return 0;
}

void refuse_file(const Arguments& arguments) {
    if (arguments.has("--file")) {
        throw Failure(Exit::usage,
                      "a token file needs no tables; `llmctl token add --file PATH --create` makes one");
    }
}

}  // namespace

int db_init(const Arguments& arguments) {
    refuse_file(arguments);
    Database database(database_url(arguments));
    Transaction transaction(database);
    std::vector<std::string> done;
    // CREATE … IF NOT EXISTS of two at once is an error in one of them: they follow each other.
    database.query("SELECT pg_advisory_xact_lock(hashtext('llmctl db init'))");
    const bool had_users = has_relation(database, "users");
    const bool had_metrics = has_relation(database, "metrics");
    database.run(without_transaction(schema_sql()));
    done.push_back(had_users ? "table users: was there, left as it is" : "table users: made");
    done.push_back(had_metrics ? "table metrics: was there, left as it is" : "table metrics: made");
    database.run(without_transaction(notify_sql()));
    done.push_back("triggers on users: gateways see changes at once");
    database.run(without_transaction(usage_sql()));
    done.push_back("views llm_usage_daily, llm_usage_daily_models");
    transaction.commit();
    return report(arguments, database, done);
}

int db_upgrade(const Arguments& arguments) {
    refuse_file(arguments);
    Database database(database_url(arguments));
    Transaction transaction(database);
    if (!has_relation(database, "users")) {
        throw Failure(Exit::refused,
                      "the database " + database.place() + " has no table users; `llmctl db init` makes it");
    }
    std::vector<std::string> done;
    const std::vector<std::string> before = columns_of(database);
    for (const auto& [name, type] : kColumns) {
        if (!has(before, name)) {
            database.run("ALTER TABLE users ADD COLUMN \"" + std::string(name) + "\" " + type);
            done.push_back("users: added column " + std::string(name));
        }
    }
    const QueryResult required = database.query(
        "SELECT 1 FROM pg_catalog.pg_attribute WHERE attrelid = to_regclass('users') AND attname = 'token' "
        "AND attnotnull "
        "AND NOT attisdropped");
    if (!required.rows.empty()) {
        database.run("ALTER TABLE users ALTER COLUMN token DROP NOT NULL");
        done.push_back("users: token may be NULL, where there is a hash");
    }
    if (arguments.has("--dry-run")) {
        for (std::string& one : done) {
            one = "would change " + one;
        }
        return report(arguments, database, done);
    }
    transaction.commit();
    return report(arguments, database, done);
}

}  // namespace llm::ctl
