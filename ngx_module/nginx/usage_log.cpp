#include "ngx_module/nginx/usage_log.hpp"

#include <algorithm>
#include <utility>

#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/sources/usage_writer.hpp"

namespace llm::nginx {
namespace {

// The core's times are monotonic; the table has dates.
double date_of(int64_t monotonic_us) {
    if (monotonic_us == 0) {
        return 0;
    }
    timespec wall;
    clock_gettime(CLOCK_REALTIME, &wall);
    const double now = static_cast<double>(wall.tv_sec) + static_cast<double>(wall.tv_nsec) / 1e9;
    return now - static_cast<double>(now_us() - monotonic_us) / 1e6;
}

}  // namespace

void record_usage(const Request& request, const core::RequestSummary& summary) {
    const MainConf& conf = main_conf(request.r);
    if (conf.options->usage_url.empty() || !summary.valid) {
        return;
    }
    sources::UsageRecord record;
    record.user_name = view(request.client);
    record.user_organization = view(request.organisation);
    record.request_date = date_of(request.arrived_us);
    record.sent_to_llm_date = date_of(summary.dispatched_us);
    record.response_date = date_of(summary.ended_us);
    record.model = view(request.model);
    record.server = view(request.target.url);
    record.server_organization = view(request.target.organisation);
    // no token at all: the engine has refused or failed, and has said nothing of usage
    if (summary.usage.prompt_tokens != 0 || summary.usage.completion_tokens != 0) {
        record.prompt_tokens = summary.usage.prompt_tokens;
        record.completion_tokens = summary.usage.completion_tokens;
    }
    record.strategy = core::name_of(static_cast<core::RoutingPolicy>(conf.routing));
    record.requeue_count = summary.attempts > 0 ? summary.attempts - 1 : 0;
    record.max_parallel_requests = request.target.max_running;
    record.current_parallel_requests = request.target.held - std::min(request.seats, request.target.held);
    record.priority = summary.priority;
    if (request.target.tokens_per_second_per_user > 0) {  // else nothing has been measured yet
        record.performance_score = request.target.tokens_per_second_per_user;
    }
    record.routing_mode = core::name_of(request.mode);
    sources::record_usage(std::move(record));
}

}  // namespace llm::nginx
