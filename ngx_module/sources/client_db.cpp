#include "ngx_module/sources/client_db.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <utility>

#include "ngx_module/sources/log_text.hpp"

namespace llm::nginx::sources {
namespace {

constexpr const char* kChannel = "llm_users";

// With `refresh` alone a server that has vanished without a word would go unnoticed for that long, and
// unknown tokens would be called wrong.
constexpr ngx_msec_t kHeartbeatMs = 2'000;

// What kept the table from being read (a lock, a column renamed for a moment) may be over long before `refresh`.
constexpr ngx_msec_t kReadAgainMs = 5'000;

// More new rows at once than this are cheaper to get by reading the table.
constexpr size_t kMaxChanged = 2'000;
// A load may be refused, because the zone does not hold all rows of the table; the known ones are still followed.
constexpr size_t kMaxKnownChanged = 50'000;
constexpr size_t kChangedPerQuery = 2'000;
constexpr size_t kChangesPerRun = 64;
// So long may further changes hold up the end of a row that is gone.
constexpr ngx_msec_t kSettleMs = 500;

// What the answer to kUsersColumnsQuery says.
UsersQuery shape_of(const PGresult* columns) {
    UsersQuery users;
    for (int i = 0; columns != nullptr && i < PQnfields(columns); ++i) {
        users.add_column(PQfname(columns, i), PQftype(columns, i));
    }
    return users;
}

constexpr std::array<const char*, 6> kSession = {
    "SET statement_timeout = '120s'",
    kGiveUpWhenClosed,
    // before PgClient takes the server for lost: what waits there for a lock would go on waiting, beside each of its repetitions
    "SET lock_timeout = '10s'",
    // one row that is not UTF-8 would be the end of the whole answer: parse_client_row() sees to it
    "SELECT set_config('client_encoding', 'SQL_ASCII', false) WHERE getdatabaseencoding() = 'SQL_ASCII'",
    "SET timezone = 'UTC'",  // a timestamp without time zone is taken for UTC
    "SET extra_float_digits = 1",
};

constexpr const char* kListen = "LISTEN llm_users";

}  // namespace

ClientDb::ClientDb(const PgEndpoint& endpoint, uint64_t refresh_ms, const Hooks& hooks)
    : client_(endpoint, *this),
      reader_(*this),
      table_(endpoint, reader_),
      sink_(hooks, "database " + endpoint.url.place),
      refresh_ms_(static_cast<ngx_msec_t>(refresh_ms)),
      refresh_(
          [](void* self) {
              auto* db = static_cast<ClientDb*>(self);
              db->load_wanted_ = true;
              db->proceed();
          },
          this),
      heartbeat_([](void* self) { static_cast<ClientDb*>(self)->ask(); }, this),
      settle_([](void* self) { static_cast<ClientDb*>(self)->work_off_changes(); }, this),
      apply_([](void* self) { static_cast<ClientDb*>(self)->work_off_changes(); }, this) {}

void ClientDb::stop() {
    refresh_.stop();
    heartbeat_.stop();
    settle_.stop();
    apply_.cancel();
    client_.stop();
    table_.stop();
    sink_.abandon();
}

void ClientDb::on_ready() {
    prepare(client_, 0, &ClientDb::listen);
}

void ClientDb::on_reader_ready() {
    prepare(table_, 0, &ClientDb::on_reader_prepared);
}

void ClientDb::on_reader_lost() {
    table_ready_ = false;
    loaded_ = false;
    load_wanted_ = true;
    loading_ = false;
    meanwhile_.clear();
    sink_.abandon();
    sink_.source_state(false);
}

void ClientDb::on_lost() {
    refresh_.stop();
    heartbeat_.stop();
    session_ready_ = false;
    changed_.clear();  // a whole load follows the next connect
    sink_.source_state(false);
}

void ClientDb::prepare(PgClient& client, size_t step, void (ClientDb::*then)()) {
    if (step == kSession.size()) {
        (this->*then)();
        return;
    }
    client.query(
        kSession[step], {}, [](const PGresult&) {},
        [this, &client, step, then](const PGresult*, const std::string& error) {
            if (!error.empty()) {
                complain(kSession[step], error);  // a pooler may refuse
            }
            prepare(client, step + 1, then);
        });
}

// Listening comes before the first load: what changes after it is told, what changed before it is read.
void ClientDb::listen() {
    client_.query(
        kListen, {}, [](const PGresult&) {},
        [this](const PGresult*, const std::string& error) {
            listening_ = error.empty();
            if (!listening_) {
                complain(kListen, error);  // a standby refuses: changes are seen with the next refresh
            }
            on_session();
        });
}

void ClientDb::on_session() {
    session_ready_ = true;
    load_wanted_ = true;
    heartbeat_.start(kHeartbeatMs);
    if (!std::exchange(table_started_, true)) {
        table_.start();
    }
    proceed();
}

void ClientDb::on_reader_prepared() {
    table_ready_ = true;
    proceed();
}

// Starts what is due, one thing at a time on each connection.
void ClientDb::proceed() {
    if (!session_ready_ || leaving()) {
        return;
    }
    if (load_wanted_ && !loading_ && table_ready_ && table_.ready()) {
        load_wanted_ = false;
        loading_ = true;
        refresh_.stop();
        discover();
    }
    // before the first load nothing is known of the table, and all of it is about to be read
    if (loaded_ && client_.ready() && !changed_.empty() && to_change_.empty()) {
        read_changed();
    }
}

// Asks whether anybody is there, unless an answer is being waited for anyway. Of a standby, whether it has become the primary.
void ClientDb::ask() {
    heartbeat_.start(kHeartbeatMs);
    if (!client_.ready() || leaving()) {
        return;
    }
    client_.query(
        listening_ ? "SELECT 1" : kListen, {}, [](const PGresult&) {},
        [this](const PGresult*, const std::string& error) {
            if (loaded_ && (error.empty() || !listening_)) {
                sink_.source_state(true);
            }
            if (error.empty() && !std::exchange(listening_, true)) {
                load_wanted_ = true;  // nobody has told of what has changed so far
            }
            work_off_changes();
        });
}

// The table may have changed its shape since the last time.
void ClientDb::discover() {
    load_began_ = ngx_current_msec;
    table_.query(
        std::string(kUsersColumnsQuery), {}, [](const PGresult&) {},
        [this](const PGresult* last, const std::string& error) {
            if (!error.empty()) {
                on_loaded(error);
                return;
            }
            users_ = shape_of(last);
            const std::string missing = users_.missing();
            if (!missing.empty()) {
                on_loaded("the table users has no column " + missing);
                return;
            }
            load();
        });
}

void ClientDb::load() {
    meanwhile_.clear();
    position_ = 0;
    sink_.begin();
    table_.query(
        users_.select_all(), {}, [this](const PGresult& row) { on_row(row); },
        [this](const PGresult*, const std::string& error) { on_loaded(error); });
}

void ClientDb::on_row(const PGresult& row) {
    ++position_;
    ClientRecord record;
    std::string id;
    std::string reason;
    if (parse(users_, row, position_, record, id, reason)) {
        sink_.add(record);
    } else {
        sink_.skip(id.empty() ? "row " + std::to_string(position_) : "id " + id, reason);
    }
}

void ClientDb::on_loaded(const std::string& error) {
    loading_ = false;
    many_changed_ = many_changed_ && load_wanted_;  // that load began before the changes
    if (error.empty()) {
        loaded_ = true;
        complaint_.reset();
        if (sink_.commit()) {
            take_meanwhile();
        }
        load_wanted_ = load_wanted_ || sink_.reads_again();
        sink_.source_state(true);
    } else {
        loaded_ = false;
        complain("reading users", error);
        sink_.abandon();
        sink_.source_state(false);
    }
    meanwhile_.clear();
    loaded_at_ = ngx_current_msec;
    load_took_ = loaded_at_ - load_began_;
    refresh_.start(loaded_ ? refresh_ms_ : std::min(refresh_ms_, std::max(kReadAgainMs, load_took_)));
    work_off_changes();
}

// The table has been read: what was told before that is in it. Rows that it lacks are still to be removed where it
// did not replace the former one.
void ClientDb::take_meanwhile() {
    to_change_.clear();
    if (!sink_.refuses()) {
        to_remove_.clear();
    }
    remove_since_ = ngx_current_msec;
    for (auto& [id, record] : meanwhile_) {
        if (record) {
            to_remove_.erase(id);
            to_change_.push_back(std::move(*record));
        } else {
            to_remove_.insert(id);
        }
    }
}

void ClientDb::on_notify(std::string_view channel, std::string_view payload) {
    if (channel != kChannel) {
        return;
    }
    const bool followed = changed_.size() < kMaxChanged ||
                          (changed_.size() < kMaxKnownChanged && sink_.knows(payload));
    if (users_.has_id() && is_row_id(payload) && followed) {
        changed_.emplace(payload);
        apply_.post();  // when all that came with it is known: a row may be gone that another one replaces
    } else {
        many_changed_ = true;
        load_soon();
    }
}

// Somebody changes more than can be followed row by row: reading the table takes at most half of our time.
void ClientDb::load_soon() {
    const ngx_msec_t rested = ngx_current_msec - loaded_at_;
    if (loading_ || rested >= load_took_ || load_wanted_) {
        load_wanted_ = true;
        proceed();
    } else if (table_ready_) {
        refresh_.start(std::min(refresh_ms_, load_took_ - rested));
    }
}

// The columns are asked for before each time: a change may need those that were added before it.
void ClientDb::read_changed() {
    // what the answer does not name has been deleted
    auto missing = std::make_shared<std::set<std::string>>();
    while (!changed_.empty() && missing->size() < kChangedPerQuery) {
        missing->insert(changed_.extract(changed_.begin()));
    }
    client_.query(
        std::string(kUsersColumnsQuery), {}, [](const PGresult&) {},
        [this, missing](const PGresult* last, const std::string& error) {
            auto users = std::make_shared<const UsersQuery>(shape_of(last));
            if (!error.empty()) {
                on_change_unread(error);
                return;
            }
            if (*users != users_) {
                load_soon();  // the other rows may look different too
            }
            if (users->has_id() && users->missing().empty()) {
                read_changed(std::move(users), missing);
            }  // else the load says what is wrong with the table
        });
}

void ClientDb::read_changed(std::shared_ptr<const UsersQuery> users,
                            std::shared_ptr<std::set<std::string>> missing) {
    const std::vector<std::string> ids(missing->begin(), missing->end());
    client_.query(
        users->select_some(), {array_literal(ids)},
        [this, users, missing](const PGresult& row) { on_changed_row(*users, row, *missing); },
        [this, missing](const PGresult*, const std::string& error) {
            if (!error.empty()) {
                on_change_unread(error);
                return;
            }
            for (const std::string& id : *missing) {
                remove(id);
            }
            apply_.post();
        });
}

void ClientDb::on_change_unread(const std::string& error) {
    complain("reading changed users", error);
    to_change_.clear();
    to_remove_.clear();
    load_soon();  // ids of another type, a column gone: find out
    apply_.post();
}

void ClientDb::on_changed_row(const UsersQuery& users, const PGresult& row, std::set<std::string>& missing) {
    ClientRecord record;
    std::string id;
    std::string reason;
    const bool valid = parse(users, row, 0, record, id, reason);
    missing.erase(id);
    if (valid) {
        change(std::move(record));
    } else {
        sink_.skip("id " + id, reason);
        remove(std::move(id));
    }
}

void ClientDb::change(ClientRecord record) {
    if (loading_) {
        meanwhile_[record.id] = record;
    }
    if (many_changed_ && !sink_.knows(record.id)) {
        return;  // the zone may not hold all that are new: taken as a whole or not at all
    }
    to_remove_.erase(record.id);
    to_change_.push_back(std::move(record));
}

void ClientDb::remove(std::string id) {
    if (loading_) {
        meanwhile_[id] = std::nullopt;
    }
    if (to_remove_.empty()) {
        remove_since_ = ngx_current_msec;
    }
    to_remove_.insert(std::move(id));
}

void ClientDb::work_off_changes() {
    for (size_t i = 0; i < kChangesPerRun && !to_change_.empty(); ++i) {
        sink_.change(to_change_.back());
        to_change_.pop_back();
    }
    // Who comes instead of those that are gone may be among the rows that are left to the reading of the table.
    const bool table_decides = many_changed_ && !sink_.refuses();
    const bool more_to_come = !to_change_.empty() || !changed_.empty() || client_.busy() || many_changed_;
    const ngx_msec_t waited = ngx_current_msec - remove_since_;
    const bool settled = !more_to_come || (waited >= kSettleMs && !table_decides);
    for (size_t i = 0; settled && i < kChangesPerRun && !to_remove_.empty(); ++i) {
        sink_.remove(*to_remove_.begin());
        to_remove_.erase(to_remove_.begin());
    }
    if (!to_change_.empty() || (settled && !to_remove_.empty())) {
        apply_.post();
        return;
    }
    if (!to_remove_.empty() && !table_decides) {
        settle_.start(kSettleMs - waited);
    }
    proceed();
}

// `id` is set whenever the row has one.
bool ClientDb::parse(const UsersQuery& users, const PGresult& row, uint64_t position, ClientRecord& out,
                     std::string& id, std::string& reason) const {
    RawRow raw;
    const auto columns = users.columns();
    if (PQnfields(&row) != static_cast<int>(columns.size())) {
        reason = "an unexpected number of columns";
        return false;
    }
    for (size_t i = 0; i < columns.size(); ++i) {
        const int field = static_cast<int>(i);
        if (PQgetisnull(&row, 0, field) == 0) {
            raw[columns[i].column] = std::string_view(PQgetvalue(&row, 0, field),
                                                      static_cast<size_t>(PQgetlength(&row, 0, field)));
        }
    }
    if (raw[Column::id]) {
        id = *raw[Column::id];
    }
    reason = parse_client_row(raw, position, out);
    return reason.empty();
}

void ClientDb::complain(const char* what, const std::string& error) {
    if (complaint_.pass()) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: database %s: %s: %s", client_.place().c_str(),
                      what, printable(error, 300).c_str());
    }
}

}  // namespace llm::nginx::sources
