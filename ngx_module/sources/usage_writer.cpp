#include "ngx_module/sources/usage_writer.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "ngx_module/core/counters.hpp"
#include "ngx_module/sources/log_text.hpp"

namespace llm::nginx::sources {
namespace {

constexpr size_t kBatch = 500;
constexpr ngx_msec_t kBatchEveryMs = 1'000;
constexpr int kFinishMs = 1'000;

struct Running {
    PgEndpoint endpoint;
    std::unique_ptr<UsageWriter> writer;
};
Running* running = nullptr;

}  // namespace

UsageWriter::UsageWriter(const PgEndpoint& endpoint, core::Zone& zone)
    : zone_(zone), client_(endpoint, *this, PgClient::Life::until_exit),
      timer_([](void* self) { static_cast<UsageWriter*>(self)->send(); }, this) {}

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
    discover();
}

void UsageWriter::on_lost() {
    // Not answered is not taken, as far as we know: they go back to the front. Should the server have taken
    // them all the same, they will be there twice, which is better than not at all.
    backlog_.insert(backlog_.begin(), std::make_move_iterator(sending_.begin()),
                    std::make_move_iterator(sending_.end()));
    sending_.clear();
    table_known_ = false;
}

void UsageWriter::discover() {
    client_.query(
        std::string(kUsageColumnsQuery), {}, [](const PGresult&) {},
        [this](const PGresult* last, const std::string& error) {
            query_ = UsageQuery();
            for (int i = 0; last != nullptr && i < PQnfields(last); ++i) {
                query_.add_column(PQfname(last, i));
            }
            table_known_ = error.empty() && !query_.empty();
            if (!table_known_) {
                const size_t waiting = backlog_.size();
                backlog_.clear();
                drop(waiting, error.empty() ? "the table metrics has none of the columns" : error);
                return;
            }
            send();
        });
}

void UsageWriter::send() {
    if (backlog_.empty()) {
        return;
    }
    timer_.start(kBatchEveryMs);
    if (!client_.ready() || client_.busy()) {
        return;
    }
    if (!table_known_) {
        discover();  // somebody may have made the table meanwhile
        return;
    }
    const auto end = backlog_.begin() + static_cast<std::ptrdiff_t>(std::min(kBatch, backlog_.size()));
    sending_.assign(std::make_move_iterator(backlog_.begin()), std::make_move_iterator(end));
    backlog_.erase(backlog_.begin(), end);
    client_.query(
        query_.insert(), query_.parameters(sending_), [](const PGresult&) {},
        [this](const PGresult*, const std::string& error) {
            const size_t records = sending_.size();
            sending_.clear();
            if (error.empty()) {
                core::count_usage_records(zone_, records, 0);
            } else {
                drop(records, error);  // it would be refused again
                table_known_ = false;
            }
            if (backlog_.size() >= kBatch) {
                send();
            }
        });
}

void UsageWriter::drop(size_t records, const std::string& reason) {
    dropped_ += records;
    core::count_usage_records(zone_, 0, records);
    if (records > 0 && complaint_.pass()) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0, "llm: %uL usage records lost: %s",
                      dropped_ - std::exchange(reported_, dropped_), printable(reason, 300).c_str());
    }
}

void UsageWriter::finish() {
    timer_.stop();
    bool answers = client_.wait_until_done(kFinishMs);
    while (answers && client_.ready() && !backlog_.empty()) {
        send();
        answers = client_.wait_until_done(kFinishMs);
    }
    const size_t waiting = backlog_.size() + sending_.size();
    client_.stop();
    timer_.stop();
    complaint_.reset();
    drop(waiting, "the worker ends and the database does not answer");
}

void start_usage(ngx_cycle_t* cycle, const std::string& url, const std::vector<PeerAddress>& addresses,
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

void finish_usage() {
    if (Running* ending = std::exchange(running, nullptr)) {
        ending->writer->finish();
        delete ending;
    }
}

}  // namespace llm::nginx::sources
