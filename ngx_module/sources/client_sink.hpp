// Puts clients into the zone, whatever source they come from, and says in the log what could not be taken.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "ngx_module/core/clients.hpp"
#include "ngx_module/sources/client_row.hpp"
#include "ngx_module/sources/hooks.hpp"
#include "ngx_module/sources/loop.hpp"
#include "ngx_module/sources/row_index.hpp"

namespace llm::nginx::sources {

class ClientSink {
  public:
    // `source` names the source in the log: a path, or host and database.
    ClientSink(const Hooks& hooks, std::string source);

    // A whole table: begin(), then add() or skip() for each row, then commit(). begin() again drops what was
    // not committed.
    void begin();
    // False when the rest of the table is not wanted any more: it does not fit, or a newer process loads too.
    bool add(const ClientRecord& record);
    // A row that is not valid: counted and, unless the last load had the very same complaints, logged.
    void skip(std::string_view row, std::string_view reason);
    // Makes the new table the current one, or logs why not; whether what was read is in force. O(1) here; clients
    // that have gone are dealt with on later rounds of the loop, some thousand at a time.
    bool commit();
    // After a commit: the table has more clients than the zone holds, and the old one stays. The table should be read
    // once more, at once: that load changes each client of the old one as its row says (some are disabled now). Who
    // has no row any more stays.
    bool reads_again() const { return known_next_; }
    void abandon();

    // Whether the last load of all had more clients than the zone holds.
    bool refuses() const { return too_many_; }
    // Whether this row is in the table in force.
    bool knows(std::string_view row_id) const { return index_.find(row_number(row_id)) != nullptr; }
    // One row that has changed since the load. A new client is not taken while the table has more than the zone
    // holds.
    void change(const ClientRecord& record);
    // One row that is there no more, or is not valid any more. O(1), as change() is.
    void remove(std::string_view row_id);

    // Whether the source can be read. A commit says yes by itself.
    void source_state(bool up);

  private:
    bool is_known(const core::ClientRow& row) const;
    // Puts a row into the table in force. `row` is that of `record`.
    void follow(const ClientRecord& record, const core::ClientRow& row);
    void spoke();
    void complain(const std::string& line);
    void drop_load();
    void finish_commit();

    const Hooks& hooks_;
    std::string source_;

    core::ClientLoad load_;
    bool loading_ = false;
    bool refused_ = false;     // this load came to nothing
    bool too_many_ = false;    // the last load of all had more clients than the zone holds
    bool known_only_ = false;  // this load takes known clients only
    bool known_next_ = false;  // the next one will
    uint32_t rows_ = 0;
    uint32_t skipped_ = 0;
    std::vector<std::string> complaints_;  // of this load, so many as may be logged
    uint64_t complaints_hash_ = 0;
    uint64_t last_complaints_hash_ = 0;
    uint32_t last_rows_ = 0;
    bool loaded_once_ = false;

    RowIndex index_;        // of the table in force
    RowIndex fresh_index_;  // of the table being loaded; the former one after a commit, until it is emptied
    size_t cleared_ = 0;    // shards of fresh_index_ that are empty
    bool accounts_done_ = true;
    Continuation after_commit_;
    OncePerMinute refusal_;
};

}  // namespace llm::nginx::sources
