// Writes usage records to PostgreSQL in batches, off the request path. Every worker has a writer of its own:
// a record crosses processes only where a worker ends that could not write it.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "ngx_module/core/zone.hpp"
#include "ngx_module/sources/loop.hpp"
#include "ngx_module/sources/pg_client.hpp"
#include "ngx_module/sources/usage_handover.hpp"
#include "ngx_module/sources/usage_record.hpp"

namespace llm::nginx::sources {

class UsageWriter : private PgClient::Listener {
  public:
    // `endpoint` and `zone` must outlive the writer. Connects with the first record.
    UsageWriter(const PgEndpoint& endpoint, core::Zone& zone);

    // Takes a record; drops the oldest one when kMaxBacklog wait already. Never blocks, O(1).
    void add(UsageRecord record);

    // Takes a batch of what other workers have left, if there is room for it. About 1 ms.
    void take_over(UsageHandover& left);

    // Sends what waits here and what others have left, blocking for at most a second until each batch is taken (in all, where
    // nginx is told to end at once), and closes. What the database does not take is left to other workers. In exit_process.
    void finish(UsageHandover& left);

    static constexpr size_t kMaxBacklog = 10'000;

  private:
    static constexpr size_t kBatch = 500;

    void on_ready() override;
    void on_lost() override;
    void on_late() override {}
    void on_notify(std::string_view, std::string_view) override {}

    void on_timer();
    void discover();
    void send();
    void on_answer(const std::string& error);
    std::vector<UsageRecord> take_first(size_t most);
    void put_back();
    void complain_of(const std::string& error);
    void drop(size_t records, const std::string& reason);
    void leave(UsageHandover& left);

    core::Zone& zone_;
    PgClient client_;
    UsageQuery query_;
    bool table_known_ = false;    // its columns were read in this second
    bool columns_fresh_ = false;  // read in this round, and nothing was taken since
    bool out_of_order_ = false;   // the server takes nothing for now
    bool finishing_ = false;      // finish() sees to it that each batch has its own time
    size_t batch_ = kBatch;       // less while the records that are refused are looked for
    std::deque<UsageRecord> backlog_;
    std::vector<UsageRecord> sending_;  // kept until the server has taken them
    uint64_t dropped_ = 0;
    uint64_t reported_ = 0;  // of dropped_, in the log
    Timer timer_;  // runs while anything is kept
    OncePerMinute loss_told_;
    OncePerMinute wait_told_;
};

// The writer of this worker: start in init_process, finish in exit_process. `url` is that of llm_usage, or of
// llm_priority_db for `on`; `addresses` as in ClientSourceConfig; `zone` counts. Without a start, record_usage() does
// nothing.
void start_usage(ngx_cycle_t* cycle, const std::string& url, const std::vector<HostAddresses>& addresses,
                 core::Zone& zone);
void record_usage(UsageRecord record);
void finish_usage(UsageHandover left);

// Now and then, in a worker that goes on: its writer takes what others have left. Where there is none,
// because usage is not written any more, that is lost.
void take_over_usage(UsageHandover left, core::Zone& zone);

}  // namespace llm::nginx::sources
