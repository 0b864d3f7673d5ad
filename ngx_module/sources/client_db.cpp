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

// More changed rows at once than this are cheaper to get by reading the table.
constexpr size_t kMaxChanged = 2'000;
constexpr size_t kChangesPerRun = 64;

// Listening comes before the first load: what changes after it is told, what changed before it is read.
constexpr std::array<const char*, 4> kSession = {
    "SET statement_timeout = '120s'",
    "SET timezone = 'UTC'",  // a timestamp without time zone is taken for UTC
    "SET extra_float_digits = 1",
    "LISTEN llm_users",
};

}  // namespace

ClientDb::ClientDb(const PgEndpoint& endpoint, uint64_t refresh_ms, const Hooks& hooks)
    : client_(endpoint, *this),
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
      apply_([](void* self) { static_cast<ClientDb*>(self)->work_off_changes(); }, this) {}

void ClientDb::stop() {
    refresh_.stop();
    heartbeat_.stop();
    apply_.cancel();
    client_.stop();
    sink_.abandon();
}

void ClientDb::on_ready() {
    prepare_session(0);
}

void ClientDb::on_lost() {
    refresh_.stop();
    heartbeat_.stop();
    session_ready_ = false;
    changed_.clear();  // a whole load follows the next connect
    sink_.abandon();
    sink_.source_state(false);
}

void ClientDb::prepare_session(size_t step) {
    if (step == kSession.size()) {
        session_ready_ = true;
        load_wanted_ = true;
        heartbeat_.start(kHeartbeatMs);
        proceed();
        return;
    }
    client_.query(
        kSession[step], {}, [](const PGresult&) {},
        [this, step](const PGresult*, const std::string& error) {
            if (!error.empty()) {
                // a pooler may refuse; then changes are seen with the next refresh
                complain(kSession[step], error);
            }
            prepare_session(step + 1);
        });
}

// Starts what is due, one thing at a time.
void ClientDb::proceed() {
    if (!session_ready_ || !client_.ready() || leaving()) {
        return;
    }
    if (load_wanted_) {
        load_wanted_ = false;
        refresh_.stop();
        discover();
    } else if (!changed_.empty() && to_change_.empty() && to_remove_.empty()) {
        read_changed();
    }
}

// Asks whether anybody is there, unless an answer is being waited for anyway.
void ClientDb::ask() {
    heartbeat_.start(kHeartbeatMs);
    if (!client_.ready() || leaving()) {
        return;
    }
    client_.query(
        "SELECT 1", {}, [](const PGresult&) {},
        [this](const PGresult*, const std::string& error) {
            if (error.empty() && loaded_) {
                sink_.source_state(true);
            }
            proceed();
        });
}

// The table may have changed its shape since the last time.
void ClientDb::discover() {
    load_began_ = ngx_current_msec;
    client_.query(
        std::string(kUsersColumnsQuery), {}, [](const PGresult&) {},
        [this](const PGresult* last, const std::string& error) {
            if (!error.empty()) {
                on_loaded(error);
                return;
            }
            users_ = UsersQuery();
            for (int i = 0; last != nullptr && i < PQnfields(last); ++i) {
                users_.add_column(PQfname(last, i), PQftype(last, i));
            }
            const std::string missing = users_.missing();
            if (!missing.empty()) {
                on_loaded("the table users has no column " + missing);
                return;
            }
            load();
        });
}

void ClientDb::load() {
    changed_.clear();
    position_ = 0;
    sink_.begin();
    client_.query(
        users_.select_all(), {}, [this](const PGresult& row) { on_row(row); },
        [this](const PGresult*, const std::string& error) { on_loaded(error); });
}

void ClientDb::on_row(const PGresult& row) {
    ++position_;
    ClientRecord record;
    std::string id;
    std::string reason;
    if (parse(row, record, id, reason)) {
        sink_.add(record);
    } else {
        sink_.skip(id.empty() ? "row " + std::to_string(position_) : "id " + id, reason);
    }
}

void ClientDb::on_loaded(const std::string& error) {
    if (error.empty()) {
        loaded_ = true;
        complaint_.reset();
        sink_.commit();
        to_change_.clear();  // older than what has just been read
        to_remove_.clear();
        sink_.source_state(true);
    } else {
        loaded_ = false;
        complain("reading users", error);
        sink_.abandon();
        sink_.source_state(false);
    }
    loaded_at_ = ngx_current_msec;
    load_took_ = loaded_at_ - load_began_;
    refresh_.start(refresh_ms_);
    proceed();
}

void ClientDb::on_notify(std::string_view channel, std::string_view payload) {
    if (channel != kChannel) {
        return;
    }
    if (users_.has_id() && is_row_id(payload) && changed_.size() < kMaxChanged) {
        changed_.emplace(payload);
        proceed();
    } else {
        load_soon();
    }
}

// Somebody changes more than can be followed row by row: reading the table takes at most half of our time.
void ClientDb::load_soon() {
    const ngx_msec_t rested = ngx_current_msec - loaded_at_;
    if (rested >= load_took_ || load_wanted_) {
        load_wanted_ = true;
        proceed();
    } else if (client_.ready()) {
        refresh_.start(std::min(refresh_ms_, load_took_ - rested));
    }
}

void ClientDb::read_changed() {
    const std::vector<std::string> ids(changed_.begin(), changed_.end());
    position_ = 0;
    // what the answer does not name has been deleted
    auto missing = std::make_shared<std::set<std::string>>(std::exchange(changed_, {}));
    client_.query(
        users_.select_some(), {array_literal(ids)},
        [this, missing](const PGresult& row) { on_changed_row(row, *missing); },
        [this, missing](const PGresult*, const std::string& error) {
            if (error.empty()) {
                to_remove_.insert(to_remove_.end(), missing->begin(), missing->end());
            } else {
                complain("reading changed users", error);
                to_change_.clear();
                to_remove_.clear();
                load_soon();  // ids of another type, a column gone: find out
            }
            apply_.post();
        });
}

void ClientDb::on_changed_row(const PGresult& row, std::set<std::string>& missing) {
    ClientRecord record;
    std::string id;
    std::string reason;
    const bool valid = parse(row, record, id, reason);
    missing.erase(id);
    if (valid) {
        to_change_.push_back(std::move(record));
    } else {
        sink_.skip("id " + id, reason);
        to_remove_.push_back(std::move(id));
    }
}

void ClientDb::work_off_changes() {
    for (size_t i = 0; i < kChangesPerRun && !to_change_.empty(); ++i) {
        sink_.change(to_change_.back());
        to_change_.pop_back();
    }
    for (size_t i = 0; i < kChangesPerRun && !to_remove_.empty(); ++i) {
        sink_.remove(to_remove_.back());
        to_remove_.pop_back();
    }
    if (to_change_.empty() && to_remove_.empty()) {
        proceed();
    } else {
        apply_.post();
    }
}

// `id` is set whenever the row has one.
bool ClientDb::parse(const PGresult& row, ClientRecord& out, std::string& id, std::string& reason) const {
    RawRow raw;
    const auto columns = users_.columns();
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
    reason = parse_client_row(raw, position_, out);
    return reason.empty();
}

void ClientDb::complain(const char* what, const std::string& error) {
    if (complaint_.pass()) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: database %s: %s: %s", client_.place().c_str(),
                      what, printable(error, 300).c_str());
    }
}

}  // namespace llm::nginx::sources
