// llm_metrics: everything in the zone that is a number, for Prometheus.
#include <algorithm>
#include <memory>
#include <string_view>
#include <tuple>
#include <vector>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/web/handlers.hpp"
#include "ngx_module/web/send.hpp"
#include "ngx_module/web/zone_views.hpp"
#include "shared/engine_report.hpp"
#include "shared/prometheus.hpp"

namespace llm::nginx::web {
namespace {

using core::kNone;

// Calls visit(index, name) for "" and for each registered model.
template <class Visit>
void for_each_series(Visit visit) {
    visit(kNone, std::string_view{});
    const uint32_t count = core::model_count(zone());
    for (uint32_t i = 0; i < count; ++i) {
        visit(i, std::string_view(core::model_name(zone(), i)));
    }
}

void write_requests(PrometheusText& out) {
    out.family("llm_requests_total", "counter", "Finished requests by their one outcome.");
    for_each_series([&](uint32_t model, std::string_view name) {
        for (size_t i = 0; i < core::kOutcomes; ++i) {
            const auto outcome = static_cast<core::Outcome>(i);
            const uint64_t count = core::read_outcome(zone(), model, outcome);
            // a series appears with its first event; a model's completed requests always
            if (count > 0 || (outcome == core::Outcome::completed && model != kNone)) {
                out.sample("llm_requests_total", {{"model", name}, {"outcome", core::outcome_name(outcome)}},
                           count);
            }
        }
    });
}

void write_queues(PrometheusText& out, const std::vector<core::ModelView>& models, int64_t now) {
    out.family("llm_queue_depth", "gauge", "Requests that wait for an engine.");
    for (const core::ModelView& model : models) {
        out.sample("llm_queue_depth", {{"model", model.name}}, uint64_t{model.waiting});
    }
    out.family("llm_queue_oldest_seconds", "gauge", "Age of the oldest waiting request, 0 when none waits.");
    for (const core::ModelView& model : models) {
        const int64_t age = model.oldest_us == 0 ? 0 : now - model.oldest_us;
        out.sample("llm_queue_oldest_seconds", {{"model", model.name}}, static_cast<double>(age) / 1e6);
    }
    out.family("llm_desired_engines", "gauge", "Engines that would carry the present load.");
    for (const core::ModelView& model : models) {
        out.sample("llm_desired_engines", {{"model", model.name}}, uint64_t{model.desired_engines});
    }
}

void write_histogram(PrometheusText& out, std::string_view name, PrometheusText::Labels labels,
                     const core::HistogramView& histogram) {
    out.histogram(name, labels, histogram.bound, histogram.bounds, histogram.buckets, histogram.sum);
}

void write_wait(PrometheusText& out) {
    static constexpr std::string_view kPriorities[] = {"0", "1", "2", "3", "4", "5",
                                                       "6", "7", "8", "9", "10"};
    static_assert(std::size(kPriorities) == core::kWaitPriorities);
    out.family("llm_queue_wait_seconds", "histogram",
               "Time from arrival to dispatch, by priority (10 = 10 and above).");
    for_each_series([&](uint32_t model, std::string_view name) {
        for (uint32_t priority = 0; priority < core::kWaitPriorities; ++priority) {
            const core::HistogramView histogram = core::read_wait_histogram(zone(), model, priority);
            if (histogram.count > 0) {
                write_histogram(out, "llm_queue_wait_seconds",
                                {{"model", name}, {"priority", kPriorities[priority]}}, histogram);
            }
        }
    });
}

void write_model_histograms(PrometheusText& out) {
    struct Family {
        std::string_view name;
        core::ModelHistogram which;
        std::string_view help;
    };
    static constexpr Family kFamilies[] = {
        {"llm_time_to_first_token_seconds", core::ModelHistogram::time_to_first_token,
         "Arrival to first token, streams."},
        {"llm_inter_token_seconds", core::ModelHistogram::inter_token, "Time between tokens of a stream."},
        {"llm_request_duration_seconds", core::ModelHistogram::duration, "Arrival to end of the answer."},
    };
    for (const Family& family : kFamilies) {
        out.family(family.name, "histogram", family.help);
        for_each_series([&](uint32_t model, std::string_view name) {
            const core::HistogramView histogram = core::read_model_histogram(zone(), model, family.which);
            if (histogram.count > 0 || model != kNone) {
                write_histogram(out, family.name, {{"model", name}}, histogram);
            }
        });
    }
}

void write_tokens(PrometheusText& out) {
    out.family("llm_tokens_total", "counter", "Tokens processed.");
    for_each_series([&](uint32_t model, std::string_view name) {
        if (model == kNone) {
            return;
        }
        const core::TokenTotals tokens = core::read_model_tokens(zone(), model);
        out.sample("llm_tokens_total", {{"model", name}, {"type", "prompt"}}, tokens.prompt);
        out.sample("llm_tokens_total", {{"model", name}, {"type", "completion"}}, tokens.completion);
    });
    out.family("llm_cached_prompt_tokens_total", "counter",
               "Of the prompt tokens, those that engines say their prefix caches had.");
    for_each_series([&](uint32_t model, std::string_view name) {
        if (model != kNone) {
            out.sample("llm_cached_prompt_tokens_total", {{"model", name}},
                       core::read_cached_tokens(zone(), model));
        }
    });
    out.family("llm_client_tokens_total", "counter",
               "Tokens by client; the first 200 clients have a series of their own.");
    core::ClientTokens client;
    for (uint32_t i = 0; i <= core::kClientSeries; ++i) {
        if (core::read_client_tokens(zone(), i, client)) {
            out.sample("llm_client_tokens_total", {{"client", client.name}, {"type", "prompt"}},
                       client.tokens.prompt);
            out.sample("llm_client_tokens_total", {{"client", client.name}, {"type", "completion"}},
                       client.tokens.completion);
        }
    }
}

// An id is one series, or Prometheus refuses the page. Of engines that share one (an engine that leaves beside its
// successor, a listed one beside an announced one) that in use stands for all, with the seats of all.
std::vector<const core::EngineSnapshot*> one_per_id(std::vector<core::EngineSnapshot>& engines) {
    std::vector<core::EngineSnapshot*> all;  // a snapshot is large: they stay where they are
    all.reserve(engines.size());
    for (core::EngineSnapshot& engine : engines) {
        all.push_back(&engine);
    }
    const auto key = [](const core::EngineSnapshot& engine) {
        return std::tuple(std::string_view(engine.id), engine.leaving, !engine.usable);
    };
    std::sort(all.begin(), all.end(), [&](const auto* a, const auto* b) { return key(*a) < key(*b); });
    std::vector<const core::EngineSnapshot*> out;
    core::EngineSnapshot* first = nullptr;  // of those with this id
    for (core::EngineSnapshot* engine : all) {
        if (first != nullptr && std::string_view(first->id) == engine->id) {
            first->held += engine->held;
        } else {
            out.push_back(first = engine);
        }
    }
    return out;
}

void write_engines(PrometheusText& out, const std::vector<const core::EngineSnapshot*>& engines, int64_t now) {
    const auto gauge = [&](std::string_view name, std::string_view help, auto value) {
        out.family(name, "gauge", help);
        for (const core::EngineSnapshot* engine : engines) {
            out.sample(name, {{"engine", engine->id}}, static_cast<double>(value(*engine)));
        }
    };
    gauge("llm_engine_up", "1 when the engine is ready and its breaker closed.",
          [](const auto& engine) { return engine.usable ? 1 : 0; });
    gauge("llm_engine_running", "Sequences running, as the engine reports.",
          [](const auto& engine) { return engine.has_report ? engine.reported_running : engine.held; });
    gauge("llm_engine_held", "Seats that this gateway holds.",
          [](const auto& engine) { return engine.held; });
    gauge("llm_engine_limit", "Seats that the admission law allows.",
          [](const auto& engine) { return engine.limit; });
    gauge("llm_engine_tokens_per_second", "Tokens per second, as the engine reports.",
          [](const auto& engine) { return engine.tokens_per_second; });
    gauge("llm_engine_tokens_per_second_per_user", "Decoded tokens per second and running sequence.",
          [](const auto& engine) {
              return engine.speed > 0 ? engine.speed : engine.tokens_per_second_per_user;
          });
    gauge("llm_engine_kv_usage", "Live KV blocks over all.",
          [](const auto& engine) { return engine.kv_usage; });
    gauge("llm_engine_below_minimum", "1 when the engine is slower than llm_min_throughput at one seat.",
          [](const auto& engine) { return engine.below_minimum ? 1 : 0; });
    out.family("llm_engine_report_age_seconds", "gauge", "Age of the last report of an announced engine.");
    for (const core::EngineSnapshot* engine : engines) {
        if (engine->has_report) {
            out.sample("llm_engine_report_age_seconds", {{"engine", engine->id}},
                       static_cast<double>(now - engine->report_us) / 1e6);
        }
    }
}

void write_counters(PrometheusText& out) {
    const core::ZoneCounters counters = core::read_counters(zone());
    const auto counter = [&](std::string_view name, std::string_view help, uint64_t value) {
        out.family(name, "counter", help);
        out.sample(name, {}, value);
    };
    counter("llm_tokens_estimated_total", "Completion tokens counted without the engine's own usage.",
            counters.tokens_estimated);
    counter("llm_leases_reaped_total", "Leases returned from dead nginx workers.", counters.leases_reaped);
    counter("llm_grants_expired_total", "Grants that their worker did not take up in time.",
            counters.grants_expired);
    counter("llm_zone_rebuilds_total", "Times that the zone was rebuilt after a worker died in the lock.",
            counters.rebuilds);
    counter("llm_bad_reports_total", "Engine reports that were not valid.", counters.bad_reports);
    counter("llm_engines_lost_total", "Engines that stopped reporting without saying goodbye.",
            counters.engines_lost);
    counter("llm_aged_dispatches_total", "Dispatches that passed a stricter class by age.",
            counters.aged_grants);
    counter("llm_observed_rejections_total",
            "Requests that llm_observe let through although they would be refused.",
            counters.observed_rejections);
    counter("llm_observed_queued_total",
            "Requests that llm_observe let through although they would have waited.",
            counters.observed_queued);
    counter("llm_usage_records_total", "Usage records that the database has taken.", counters.usage_written);
    counter("llm_usage_dropped_total", "Usage records that were lost.", counters.usage_dropped);
    const core::ClientTableView clients = core::client_table(zone());
    counter("llm_bad_client_rows_total", "Rows of the client table that were skipped.", clients.bad_rows);
    out.family("llm_dispatch_seconds", "histogram", "From a free seat to the request handed on.");
    write_histogram(out, "llm_dispatch_seconds", {}, core::read_dispatch_histogram(zone()));
}

void write_state(PrometheusText& out, const MainConf& conf) {
    const core::ClientTableView clients = core::client_table(zone());
    out.family("llm_redis_up", "gauge", "1 while the gateway is connected to Redis, or is not told of one.");
    out.sample("llm_redis_up", {},
               uint64_t{core::redis_up(zone()) || !conf.options->redis.enabled() ? 1u : 0u});
    out.family("llm_priority_db_up", "gauge", "1 while the source of clients answers, or there is none.");
    out.sample(
        "llm_priority_db_up", {},
        uint64_t{clients.source_up || conf.options->clients.kind == sources::ClientSourceConfig::Kind::none});
    out.family("llm_clients", "gauge", "Clients in the token table.");
    out.sample("llm_clients", {}, uint64_t{clients.clients});
}

}  // namespace

ngx_int_t metrics_handler(ngx_http_request_t* r) {
    if ((r->method & (NGX_HTTP_GET | NGX_HTTP_HEAD)) == 0) {
        return refuse_method(r);
    }
    const std::vector<core::ModelView> models = all_models();
    std::vector<core::EngineSnapshot> all = all_engines();
    const std::vector<const core::EngineSnapshot*> engines = one_per_id(all);
    const int64_t now = now_us();
    PrometheusText out;
    write_requests(out);
    write_queues(out, models, now);
    write_wait(out);
    write_model_histograms(out);
    write_tokens(out);
    write_engines(out, engines, now);
    write_counters(out);
    write_state(out, main_conf(r));
    return send_copy(r, NGX_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", out.text());
}

}  // namespace llm::nginx::web
