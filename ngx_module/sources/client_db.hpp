// Clients from PostgreSQL: the whole table at the start and every `refresh`, single rows as soon as a
// notification on channel llm_users names them.
//
// Two connections, because a server tells a session nothing while it answers it: one listens and reads changed
// rows, the other reads the table, which takes many seconds for a million rows.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/sources/client_sink.hpp"
#include "ngx_module/sources/pg_client.hpp"
#include "ngx_module/sources/users_query.hpp"

namespace llm::nginx::sources {

class ClientDb : private PgClient::Listener {
  public:
    // `endpoint` and `hooks` must outlive it. `refresh_ms` ≥ 1.
    ClientDb(const PgEndpoint& endpoint, uint64_t refresh_ms, const Hooks& hooks);

    void start() { client_.start(); }
    void stop();

  private:
    void on_ready() override;
    void on_lost() override;
    void on_late() override { sink_.source_state(false); }
    void on_notify(std::string_view channel, std::string_view payload) override;

    // The connection that reads the table.
    class Reader : public PgClient::Listener {
      public:
        explicit Reader(ClientDb& db) : db_(db) {}
        void on_ready() override { db_.on_reader_ready(); }
        void on_lost() override { db_.on_reader_lost(); }
        void on_late() override {}  // the heartbeat of the other connection tells whether the server is there
        void on_notify(std::string_view, std::string_view) override {}

      private:
        ClientDb& db_;
    };
    void on_reader_ready();
    void on_reader_lost();

    // Runs the statements from `step` on, then calls then().
    void prepare(PgClient& client, size_t step, void (ClientDb::*then)());
    void listen();
    void on_session();
    void on_reader_prepared();
    void ask();
    void discover();
    void load();
    void on_row(const PGresult& row);
    void on_loaded(const std::string& error);
    void take_meanwhile();
    void proceed();
    void load_soon();
    void read_changed();
    void read_changed(std::shared_ptr<const UsersQuery> users,
                      std::shared_ptr<std::set<std::string>> missing);
    void on_change_unread(const std::string& error);
    void on_changed_row(const UsersQuery& users, const PGresult& row, std::set<std::string>& missing);
    void change(ClientRecord record);
    void remove(std::string id);
    void work_off_changes();
    bool parse(const UsersQuery& users, const PGresult& row, uint64_t position, ClientRecord& out,
               std::string& id, std::string& reason) const;
    void complain(const char* what, const std::string& error);

    PgClient client_;  // listens
    Reader reader_;
    PgClient table_;  // reads the table
    ClientSink sink_;
    ngx_msec_t refresh_ms_;
    Timer refresh_;
    Timer heartbeat_;
    UsersQuery users_;
    uint64_t position_ = 0;  // of the row within the table

    bool session_ready_ = false;
    bool listening_ = false;  // else the server has refused
    bool table_started_ = false;
    bool table_ready_ = false;
    bool load_wanted_ = false;
    bool loading_ = false;
    bool many_changed_ = false;  // more than can be followed; until the table was read
    bool loaded_ = false;  // the last attempt to read the table succeeded
    ngx_msec_t load_began_ = 0;
    ngx_msec_t loaded_at_ = 0;
    ngx_msec_t load_took_ = 0;
    std::set<std::string> changed_;  // ids of rows to read again

    // What the last answer said about changed rows, waiting to be applied a little at a time.
    std::vector<ClientRecord> to_change_;
    // Rows that are gone wait a moment for others that may have got their tokens: of a table that is written anew all ends
    // are told before the first beginning.
    std::set<std::string> to_remove_;
    ngx_msec_t remove_since_ = 0;  // when the first of them was found gone
    Timer settle_;
    Continuation apply_;
    // What was changed (nothing: removed) while the table was being read: the read may not have seen it.
    std::map<std::string, std::optional<ClientRecord>> meanwhile_;
    OncePerMinute complaint_;
};

}  // namespace llm::nginx::sources
