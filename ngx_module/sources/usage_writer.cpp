#include "ngx_module/sources/usage_writer.hpp"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "ngx_module/core/counters.hpp"
#include "ngx_module/sources/log_text.hpp"

namespace llm::nginx::sources {
namespace {

constexpr ngx_msec_t kBatchEveryMs = 1'000;
constexpr int kFinishMs = 1'000;
// A statement ends before PgClient takes the server for lost: one that waits there (for a lock, say) is carried out later all the
// same, beside each of its repetitions.
constexpr const char* kLimit = "SET statement_timeout = '10s'";

struct Running {
    PgEndpoint endpoint;
    std::unique_ptr<UsageWriter> writer;
};
Running* running = nullptr;

// Whether a statement was refused for the state that the server is in, not for what it says: no connection to another one, a standby,
// a rollback, a full disk, a lock, a time limit, a shutdown, a broken file or index (classes of SQLSTATE, PostgreSQL's appendix A).
bool is_passing(std::string_view sqlstate) {
    constexpr std::string_view kPassing[] = {"08", "25", "40", "53", "55", "57", "58", "XX"};
    return std::find(std::begin(kPassing), std::end(kPassing), sqlstate.substr(0, 2)) != std::end(kPassing);
}

// Whether it was refused for what the table is, or for rights: as while a backup is restored.
bool is_about_the_table(std::string_view sqlstate) {
    return sqlstate.starts_with("42") || sqlstate.starts_with("3F");
}

constexpr std::string_view kReadOnly = "25006";

}  // namespace

UsageWriter::UsageWriter(const PgEndpoint& endpoint, core::Zone& zone)
    : zone_(zone), client_(endpoint, *this, PgClient::Life::until_exit),
      timer_([](void* self) { static_cast<UsageWriter*>(self)->on_timer(); }, this) {}

void UsageWriter::add(UsageRecord record) {
    if (backlog_.size() >= kMaxBacklog) {
        backlog_.pop_front();
        drop(1, "more wait than are kept");
    }
    backlog_.push_back(std::move(record));
    client_.start();  // does nothing once started
    if (!timer_.running()) {
        timer_.start(kBatchEveryMs);
    }
}

void UsageWriter::on_ready() {
    const auto no_rows = [](const PGresult&) {};
    client_.query(kLimit, {}, no_rows, [this, no_rows](const PGresult*, const std::string&) {
        // what waits there when this worker ends is written by another one
        client_.query(kGiveUpWhenClosed, {}, no_rows, [this](const PGresult*, const std::string&) { discover(); });
    });
}

void UsageWriter::on_lost() {
    // Not answered is not taken, as far as we know: they go back to the front. Should the server have taken
    // them all the same, they will be there twice, which is better than not at all.
    put_back();
    table_known_ = false;
}

std::vector<UsageRecord> UsageWriter::take_first(size_t most) {
    const auto end = backlog_.begin() + static_cast<std::ptrdiff_t>(std::min(most, backlog_.size()));
    std::vector<UsageRecord> first(std::make_move_iterator(backlog_.begin()), std::make_move_iterator(end));
    backlog_.erase(backlog_.begin(), end);
    return first;
}

void UsageWriter::put_back() {
    backlog_.insert(backlog_.begin(), std::make_move_iterator(sending_.begin()),
                    std::make_move_iterator(sending_.end()));
    sending_.clear();
}

void UsageWriter::on_timer() {
    // What is under way was made from them. Were they called old before it is refused, it would be sent again
    // and again.
    columns_fresh_ = columns_fresh_ && client_.busy();
    table_known_ = false;  // it may have got columns
    send();
}

void UsageWriter::discover() {
    query_ = UsageQuery();
    client_.query(
        std::string(kUsageColumnsQuery), {},
        [this](const PGresult& row) {
            query_.add_column(PQgetvalue(&row, 0, 0),
                              static_cast<uint32_t>(std::strtoul(PQgetvalue(&row, 0, 1), nullptr, 10)));
        },
        [this](const PGresult*, const std::string& error) {
            out_of_order_ = !error.empty() || query_.empty();
            if (out_of_order_) {
                complain_of(error.empty() ? "the table metrics has none of the columns" : error);
                return;  // the timer tries again
            }
            table_known_ = true;
            columns_fresh_ = true;
            send();
        });
}

void UsageWriter::send() {
    if (backlog_.empty() && sending_.empty()) {
        return;
    }
    timer_.start(kBatchEveryMs);  // also for what may come back
    if (backlog_.empty() || !client_.ready()) {
        return;
    }
    if (!table_known_) {
        discover();
        return;
    }
    sending_ = take_first(batch_);
    client_.query(
        query_.insert(), query_.parameters(sending_), [](const PGresult&) {},
        [this](const PGresult*, const std::string& error) { on_answer(error); });
}

// A record that the table refuses (its client has been deleted and the table refers to clients, a name is too long for its
// column) must not cost those that were sent with it: they are sent again in halves until it stands alone.
void UsageWriter::on_answer(const std::string& error) {
    const size_t records = sending_.size();
    const std::string sqlstate = client_.sqlstate();
    out_of_order_ = is_passing(sqlstate) || (columns_fresh_ && is_about_the_table(sqlstate));
    if (error.empty()) {
        sending_.clear();
        core::count_usage_records(zone_, records, 0);
        columns_fresh_ = false;
        batch_ = std::min(kBatch, 2 * batch_);
    } else if (out_of_order_) {
        put_back();
        complain_of(error);
        if (sqlstate == kReadOnly) {
            client_.restart(error);  // by now the name may lead to the primary
        }
        return;  // the timer tries again
    } else if (!columns_fresh_) {
        put_back();
        table_known_ = false;  // perhaps the table was changed
    } else if (records > 1) {
        put_back();
        batch_ = records / 2;
    } else {
        sending_.clear();
        drop(records, error);  // it would be refused again
    }
    if (!finishing_ && (!table_known_ || batch_ < kBatch || backlog_.size() >= kBatch)) {
        send();
    }
}

void UsageWriter::drop(size_t records, const std::string& reason) {
    dropped_ += records;
    core::count_usage_records(zone_, 0, records);
    if (records > 0 && loss_told_.pass()) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: %uL usage records lost: %s",
                      dropped_ - std::exchange(reported_, dropped_), printable(reason, 300).c_str());
    }
}

void UsageWriter::complain_of(const std::string& error) {
    if (!backlog_.empty() && wait_told_.pass()) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: %uz usage records wait: %s", backlog_.size(),
                      printable(error, 300).c_str());
    }
}

void UsageWriter::take_over(UsageHandover& left) {
    if (backlog_.size() + sending_.size() + kBatch > kMaxBacklog) {
        return;
    }
    for (UsageRecord& record : left.take()) {
        add(std::move(record));
    }
}

void UsageWriter::leave(UsageHandover& left) {
    put_back();
    size_t kept = 0;
    size_t lost = 0;
    while (!backlog_.empty()) {
        const std::vector<UsageRecord> block = take_first(kBatch);
        (left.put(block) ? kept : lost) += block.size();
    }
    drop(lost, "the worker ends and the database does not answer");
    if (kept > 0) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0, "llm: %uz usage records are left to other workers",
                      kept);
    }
}

void UsageWriter::finish(UsageHandover& left) {
    ngx_time_update();
    const ngx_msec_t began = ngx_current_msec;
    // nginx kills a worker 1.5 s after it was told to end at once: by then what it could not write must be with the others.
    const auto time_left = [began] {
        ngx_time_update();
        const auto spent = static_cast<int>(std::min<ngx_msec_t>(ngx_current_msec - began, kFinishMs));
        return ngx_terminate ? kFinishMs - spent : kFinishMs;
    };
    finishing_ = true;
    out_of_order_ = false;  // that may be long ago
    take_over(left);
    const bool written = backlog_.empty() && sending_.empty();
    bool answers = written || client_.wait_until_done(kFinishMs);
    while (answers && !out_of_order_ && time_left() > 0) {
        take_over(left);  // nobody may come after this worker
        if (backlog_.empty()) {
            break;
        }
        send();
        answers = client_.wait_until_done(time_left());
    }
    client_.stop();
    timer_.stop();
    loss_told_.reset();
    leave(left);
}

void start_usage(ngx_cycle_t* cycle, const std::string& url, const std::vector<HostAddresses>& addresses,
                 core::Zone& zone) {
    if (running != nullptr) {
        return;
    }
    running = new Running{};
    running->endpoint.addresses = addresses;
    running->endpoint.resolver = http_resolver(cycle);
    parse_pg_url(url, running->endpoint.url);  // checked when the directive was read
    running->writer = std::make_unique<UsageWriter>(running->endpoint, zone);
}

void record_usage(UsageRecord record) {
    if (running != nullptr) {
        running->writer->add(std::move(record));
    }
}

void finish_usage(UsageHandover left) {
    if (Running* ending = std::exchange(running, nullptr)) {
        ending->writer->finish(left);
        delete ending;
    }
}

void take_over_usage(UsageHandover left, core::Zone& zone) {
    if (left.empty()) {
        return;
    }
    if (running != nullptr) {
        running->writer->take_over(left);
        return;
    }
    if (const size_t lost = left.discard(); lost > 0) {  // else another worker was faster
        core::count_usage_records(zone, 0, lost);
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: %uz usage records lost: llm_usage is off", lost);
    }
}

}  // namespace llm::nginx::sources
