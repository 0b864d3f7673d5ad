#include "ngx_module/sources/client_sink.hpp"

#include <functional>
#include <utility>

#include "ngx_module/core/start_up.hpp"
#include "ngx_module/sources/log_text.hpp"

namespace llm::nginx::sources {
namespace {

constexpr size_t kComplaintsPerLoad = 20;
constexpr uint32_t kAccountsPerRun = 1024;
constexpr size_t kShardsPerRun = 32;  // of a million rows: about 30,000 entries to free, below 2 ms

std::string describe(const ClientRecord& record) {
    return (record.id.empty() ? "" : "id " + record.id + " ") + "(\"" + record.name + "\")";
}

}  // namespace

ClientSink::ClientSink(const Hooks& hooks, std::string source)
    : hooks_(hooks),
      source_(std::move(source)),
      after_commit_([](void* self) { static_cast<ClientSink*>(self)->finish_commit(); }, this) {}

void ClientSink::begin() {
    known_only_ = std::exchange(known_next_, false);
    load_ = core::ClientLoad::begin(*hooks_.zone);
    fresh_index_.clear();  // empty already, unless the last load ended a moment ago
    loading_ = true;
    refused_ = false;
    rows_ = 0;
    skipped_ = 0;
    complaints_.clear();
    complaints_hash_ = 0;
}

bool ClientSink::add(const ClientRecord& record) {
    if (!loading_ || refused_) {
        return false;
    }
    const core::ClientRow row = record.row();
    if (known_only_ && !is_known(row)) {
        return true;
    }
    switch (load_.add(row)) {
        case core::RowResult::added:
            if (known_only_) {
                follow(record, row);
                return true;
            }
            ++rows_;
            fresh_index_.set(row.row_id, row.hash);
            return true;
        case core::RowResult::duplicate:
            skip(describe(record), "its token is that of an earlier row");
            return true;
        case core::RowResult::bad:
            skip(describe(record), "not accepted");
            return true;
        case core::RowResult::full:
            refused_ = true;
            too_many_ = true;
            known_next_ = !known_only_ && core::client_table(*hooks_.zone).ever_loaded;
            if (refusal_.pass()) {
                ngx_log_error(
                    NGX_LOG_ERR, ngx_cycle->log, 0,
                    "llm: %s has more clients than the zone holds (%uD): no new ones are taken, those known so far "
                    "stay and are followed; make llm_zone larger",
                    source_.c_str(), hooks_.zone->plan().clients);
            }
            return false;
        case core::RowResult::lost:
            refused_ = true;  // a newer process loads: its table counts
            return false;
    }
    return false;
}

// By its id, which this process may not have seen yet, or by its token.
bool ClientSink::is_known(const core::ClientRow& row) const {
    if (index_.find(row.row_id) != nullptr) {
        return true;
    }
    const core::ZoneLock lock(*hooks_.zone);
    return core::has_client(lock, row.hash);
}

void ClientSink::skip(std::string_view row, std::string_view reason) {
    core::count_bad_row(*hooks_.zone);
    ++skipped_;
    complain(printable(std::string(row) + ": " + std::string(reason), 300));
}

void ClientSink::complain(const std::string& line) {
    complaints_hash_ = complaints_hash_ * 1099511628211u + std::hash<std::string>()(line);
    if (complaints_.size() < kComplaintsPerLoad) {
        complaints_.push_back(line);
    }
}

bool ClientSink::commit() {
    if (!std::exchange(loading_, false)) {
        return false;
    }
    if (known_next_) {
        drop_load();
        return false;  // the load that follows says what is wrong with the rows
    }
    core::set_skipped_rows(*hooks_.zone, skipped_);
    // the same complaints every 30 s would bury the log
    if (complaints_hash_ != std::exchange(last_complaints_hash_, complaints_hash_)) {
        for (const std::string& line : complaints_) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "llm: client skipped in %s: %s", source_.c_str(),
                          line.c_str());
        }
        if (skipped_ > complaints_.size()) {
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "llm: %uz more clients skipped in %s",
                          skipped_ - complaints_.size(), source_.c_str());
        }
    }
    if (refused_ || known_only_) {
        drop_load();
        return !refused_;
    }
    bool committed;
    const int64_t now = hooks_.now_us();
    {
        const core::ZoneLock lock(*hooks_.zone);
        committed = load_.commit(lock, now);
    }
    if (!committed) {
        drop_load();
        return false;
    }
    if (!loaded_once_ || rows_ != last_rows_) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "llm: %uD clients loaded from %s", rows_,
                      source_.c_str());
    }
    loaded_once_ = true;
    last_rows_ = rows_;
    refusal_.reset();
    too_many_ = false;
    index_.swap(fresh_index_);
    cleared_ = 0;
    accounts_done_ = false;
    after_commit_.post();
    return true;
}

void ClientSink::abandon() {
    if (std::exchange(loading_, false)) {
        drop_load();
    }
}

void ClientSink::drop_load() {
    load_.abort();
    cleared_ = 0;  // up to a million entries, a little at a time
    after_commit_.post();
}

void ClientSink::finish_commit() {
    cleared_ = loading_ ? RowIndex::kShards : fresh_index_.clear_some(cleared_, kShardsPerRun);
    if (!accounts_done_) {
        core::WakeSet wakes;
        const int64_t now = hooks_.now_us();
        {
            const core::ZoneLock lock(*hooks_.zone);
            accounts_done_ =
                core::refresh_accounts(lock, kAccountsPerRun, now, hooks_.wall_s(), wakes);
        }
        hooks_.wake(wakes);
    }
    if (!accounts_done_ || cleared_ < RowIndex::kShards) {
        after_commit_.post();
    }
}

void ClientSink::change(const ClientRecord& record) {
    const core::ClientRow row = record.row();
    if (!too_many_ || is_known(row)) {
        follow(record, row);
    }  // else the table has been refused as a whole: it says so with every load
}

void ClientSink::follow(const ClientRecord& record, const core::ClientRow& row) {
    const TokenHash* old = index_.find(row.row_id);
    core::WakeSet wakes;
    core::RowResult result;
    const int64_t now = hooks_.now_us();
    {
        const core::ZoneLock lock(*hooks_.zone);
        if (old != nullptr && *old != record.token) {  // a new secret for the same client: the old one ends
            core::remove_client(lock, *old, row.row_id, now, hooks_.wall_s(), wakes);
        }
        result = core::upsert_client(lock, row, now, hooks_.wall_s(), wakes);
    }
    hooks_.wake(wakes);
    if (result == core::RowResult::added) {
        index_.set(row.row_id, row.hash);
        return;
    }
    index_.erase(row.row_id);
    core::count_bad_row(*hooks_.zone);
    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0, "llm: changed client %s of %s not taken: %s",
                  printable(describe(record)).c_str(), source_.c_str(),
                  result == core::RowResult::full        ? "the zone is full"
                  : result == core::RowResult::duplicate ? "its token is another client's"
                                                         : "not accepted");
}

void ClientSink::remove(std::string_view row_id) {
    const int64_t row = row_number(row_id);
    const TokenHash* token = index_.find(row);
    if (token == nullptr) {
        return;
    }
    core::WakeSet wakes;
    const int64_t now = hooks_.now_us();
    {
        const core::ZoneLock lock(*hooks_.zone);
        core::remove_client(lock, *token, row, now, hooks_.wall_s(), wakes);
    }
    hooks_.wake(wakes);
    index_.erase(row);
}

void ClientSink::source_state(bool up) {
    core::set_source_state(*hooks_.zone, up, hooks_.now_us());
    spoke();
}

// Nobody need wait for the first clients any more.
void ClientSink::spoke() {
    core::WakeSet wakes;
    core::source_spoke(*hooks_.zone, core::kClientSource, wakes);
    hooks_.wake(wakes);
}

}  // namespace llm::nginx::sources
