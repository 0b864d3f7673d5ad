#include "tools/llmctl/database.hpp"

#include <libpq-fe.h>

#include "ngx_module/sources/pg_url.hpp"
#include "tools/llmctl/failure.hpp"

namespace llm::ctl {
namespace {

struct Clear {
    void operator()(PGresult* result) const { PQclear(result); }
};
using Result = std::unique_ptr<PGresult, Clear>;

std::string one_line(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) {
        text.pop_back();
    }
    for (char& c : text) {
        c = c == '\n' || c == '\t' ? ' ' : c;
    }
    return text;
}

}  // namespace

int QueryResult::find(std::string_view name) const {
    for (size_t i = 0; i < columns.size(); ++i) {
        if (columns[i].name == name) {
            return static_cast<int>(i);
        }
    }
    return -1;
}

Database::Database(const std::string& url) {
    nginx::sources::PgUrl parsed;
    if (const std::string why = nginx::sources::parse_pg_url(url, parsed); !why.empty()) {
        throw Failure(Exit::usage, "--db: " + why);
    }
    place_ = parsed.place;
    // Later ones win over earlier ones, those of the URL ("dbname") included.
    const char* const keywords[] = {"connect_timeout", "fallback_application_name", "dbname",
                                    "client_encoding", nullptr};
    const char* const values[] = {"10", "llmctl", url.c_str(), "UTF8", nullptr};
    connection_ = PQconnectdbParams(keywords, values, 1);
    if (PQstatus(connection_) != CONNECTION_OK) {
        const std::string why = one_line(PQerrorMessage(connection_));
        PQfinish(connection_);
        throw Failure(Exit::unreachable, "the database " + place_ + " cannot be reached: " + why);
    }
    PQsetNoticeProcessor(
        connection_, [](void*, const char*) {}, nullptr);
}

Database::~Database() {
    PQfinish(connection_);
}

void Database::fail(const pg_result* result) {
    if (PQstatus(connection_) != CONNECTION_OK) {
        throw Failure(Exit::unreachable,
                      "the connection to " + place_ + " was lost: " + one_line(PQerrorMessage(connection_)));
    }
    // The primary message only: its detail may quote a row, and a row may hold a token.
    const char* text = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);
    throw Failure(Exit::refused,
                  "the database refused: " + one_line(text != nullptr ? text : PQerrorMessage(connection_)));
}

QueryResult Database::query(const std::string& sql, const std::vector<Value>& parameters) {
    std::vector<const char*> texts;
    for (const Value& value : parameters) {
        texts.push_back(value ? value->c_str() : nullptr);
    }
    const Result result(PQexecParams(connection_, sql.c_str(), static_cast<int>(texts.size()), nullptr,
                                     texts.data(), nullptr, nullptr, 0));
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
        fail(result.get());
    }
    QueryResult out;
    for (int i = 0; i < PQnfields(result.get()); ++i) {
        out.columns.push_back({PQfname(result.get(), i), PQftype(result.get(), i)});
    }
    for (int row = 0; row < PQntuples(result.get()); ++row) {
        std::vector<Value> values;
        for (int i = 0; i < PQnfields(result.get()); ++i) {
            values.push_back(
                PQgetisnull(result.get(), row, i) != 0
                    ? Value()
                    : Value(std::string(PQgetvalue(result.get(), row, i),
                                        static_cast<size_t>(PQgetlength(result.get(), row, i)))));
        }
        out.rows.push_back(std::move(values));
    }
    return out;
}

void Database::run(std::string_view sql) {
    const Result result(PQexec(connection_, std::string(sql).c_str()));
    const ExecStatusType status = PQresultStatus(result.get());
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK && status != PGRES_EMPTY_QUERY) {
        fail(result.get());
    }
}

Transaction::~Transaction() {
    if (!done_) {
        try {
            database_.run("ROLLBACK");
        } catch (const Failure&) {
            // the connection is gone: the server rolls back by itself
        }
    }
}

void Transaction::commit() {
    database_.run("COMMIT");
    done_ = true;
}

}  // namespace llm::ctl
