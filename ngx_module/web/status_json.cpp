#include "ngx_module/web/status_json.hpp"

#include <cmath>
#include <nlohmann/json.hpp>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/nginx/conf.hpp"
#include "ngx_module/nginx/worker.hpp"
#include "ngx_module/web/zone_views.hpp"
#include "shared/engine_report.hpp"

namespace llm::nginx::web {
namespace {

using nlohmann::ordered_json;

constexpr size_t kShownClients = 500;
constexpr size_t kShownRequests = 200;  // waiting ones, and as many running ones

// `now` is asked for after what it is compared with was read: others write meanwhile.
int64_t age_ms(int64_t now, int64_t since) {
    return since == 0 ? 0 : (now - since) / 1000;
}

std::string request_id(core::Ticket ticket) {
    return std::to_string(ticket.index) + "-" + std::to_string(ticket.generation);
}

std::string_view state_name(core::RequestState state) {
    switch (state) {
        case core::RequestState::queued:
            return "queued";
        case core::RequestState::granted:
            return "granted";
        case core::RequestState::running:
            return "running";
        case core::RequestState::ended:
            return "ended";
        default:
            return "free";
    }
}

std::string_view breaker_name(core::Breaker breaker) {
    return breaker == core::Breaker::closed ? "closed"
           : breaker == core::Breaker::open ? "open"
                                            : "half_open";
}

ordered_json model_name_or_null(uint32_t model) {
    return model == core::kNone ? ordered_json() : ordered_json(core::model_name(zone(), model));
}

ordered_json totals() {
    core::QueueTotals totals;
    {
        core::ZoneLock lock(zone());
        totals = core::queue_totals(lock);
    }
    return {{"queued", totals.queued},
            {"granted", totals.granted},
            {"running", totals.running},
            {"held", totals.held}};
}

ordered_json models() {
    const std::vector<core::ModelView> all = all_models();
    const int64_t now = now_us();
    ordered_json out = ordered_json::array();
    for (const core::ModelView& model : all) {
        out.push_back({{"name", model.name},
                       {"queued", model.waiting},
                       {"running", model.running},
                       {"oldest_ms", age_ms(now, model.oldest_us)},
                       {"engines", model.engines},
                       {"engines_usable", model.usable},
                       {"drain_per_second", model.drain_per_s},
                       {"desired_engines", model.desired_engines}});
    }
    return out;
}

// An engine is called stale when the admission law no longer counts on its reports: ten times the interval in
// which it promises one.
bool is_stale(const core::EngineSnapshot& engine, int64_t now) {
    return engine.has_report && now - engine.report_us > engine.report_ttl_us / 6 * 10;
}

ordered_json engines(const std::vector<core::EngineSnapshot>& all, int64_t now) {
    ordered_json out = ordered_json::array();
    for (const core::EngineSnapshot& engine : all) {
        ordered_json names = ordered_json::array();
        for (uint32_t i = 0; i < engine.model_count; ++i) {
            names.push_back(model_name_or_null(engine.models[i]));
        }
        ordered_json row = {{"id", engine.id},
                            {"url", engine.url},
                            {"organisation", engine.org},
                            {"models", std::move(names)},
                            {"state", to_string(static_cast<EngineState>(engine.state))},
                            {"breaker", breaker_name(engine.breaker)},
                            {"usable", engine.usable},
                            {"drained", engine.drained},
                            {"leaving", engine.leaving},
                            {"backup", engine.backup},
                            {"static", engine.is_static},
                            {"slow_start", engine.slow_start},
                            {"below_minimum", engine.below_minimum},
                            {"held", engine.held},
                            {"foreign", engine.foreign},
                            {"limit", engine.limit},
                            {"max_running", engine.max_running},
                            {"running", engine.reported_running},
                            {"waiting", engine.reported_waiting},
                            {"tokens_per_second", engine.tokens_per_second},
                            {"tokens_per_second_per_user", engine.tokens_per_second_per_user},
                            {"speed", engine.speed},
                            {"minimum", engine.minimum},
                            {"kv_usage", engine.kv_usage},
                            {"served", engine.served},
                            {"failures", engine.failures}};
        row["report_age_ms"] =
            engine.has_report ? ordered_json(age_ms(now, engine.report_us)) : ordered_json();
        row["report_stale"] = is_stale(engine, now);
        out.push_back(std::move(row));
    }
    return out;
}

ordered_json clients() {
    ordered_json out = ordered_json::array();
    for (const core::AccountSnapshot& account : busiest_accounts(kShownClients)) {
        out.push_back({{"name", account.name},
                       {"organisation", account.organisation},
                       {"priority", account.priority},
                       {"weight", account.weight},
                       {"band", account.band},
                       {"running", account.running},
                       {"waiting", account.waiting},
                       {"threshold", account.threshold == core::kUnlimited ? ordered_json()
                                                                           : ordered_json(account.threshold)},
                       {"max_running", account.max_running},
                       {"tokens_per_minute", account.tokens_per_minute},
                       {"tokens_last_minute", account.tokens_last_minute},
                       {"prompt_tokens", account.prompt_tokens},
                       {"completion_tokens", account.completion_tokens}});
    }
    return out;
}

// The id of the engine that a request runs on; null when it waits.
ordered_json engine_id_or_null(const std::vector<core::EngineSnapshot>& all, uint32_t engine) {
    for (const core::EngineSnapshot& candidate : all) {
        if (candidate.engine == engine) {
            return candidate.id;
        }
    }
    return {};
}

ordered_json requests(const std::vector<core::EngineSnapshot>& engines) {
    const std::vector<core::RequestSnapshot> all = live_requests(kShownRequests);
    const int64_t now = now_us();
    ordered_json out = ordered_json::array();
    for (const core::RequestSnapshot& request : all) {
        const int64_t until = request.dispatched_us != 0 ? request.dispatched_us : now;
        out.push_back({{"id", request_id(request.ticket)},
                       {"state", state_name(request.state)},
                       {"client", request.client},
                       {"model", model_name_or_null(request.model)},
                       {"engine", engine_id_or_null(engines, request.engine)},
                       {"priority", request.priority},
                       {"class", request.level_class},
                       {"seats", request.seats},
                       {"attempts", request.attempts},
                       {"stream", request.stream},
                       {"held_back", request.held_back},
                       {"wait_ms", (until - request.queued_us) / 1000},
                       {"age_ms", (now - request.arrived_us) / 1000},
                       {"prompt_tokens", request.prompt_tokens},
                       {"completion_tokens", request.completion_tokens}});
    }
    return out;
}

ordered_json sources_state(const MainConf& conf) {
    const core::ClientTableView table = core::client_table(zone());
    const auto kind = conf.options->clients.kind;
    return {{"clients",
             {{"source", kind == sources::ClientSourceConfig::Kind::none   ? "open"
                         : kind == sources::ClientSourceConfig::Kind::file ? "file"
                                                                           : "postgresql"},
              {"up", table.source_up},
              {"loaded", table.ever_loaded},
              {"count", table.clients},
              {"bad_rows", table.skipped_rows}}},
            {"redis", {{"configured", conf.options->redis.enabled()}, {"up", core::redis_up(zone())}}}};
}

// One array per quantity, so that names are not repeated 180 times.
ordered_json history_json() {
    const std::vector<core::HistorySample> samples = history();
    const auto column = [&](auto value) {
        ordered_json out = ordered_json::array();
        for (const core::HistorySample& sample : samples) {
            out.push_back(value(sample));
        }
        return out;
    };
    const auto ms = [](float seconds) { return std::lround(double{seconds} * 1e3); };
    return {{"time", column([](const auto& s) { return s.wall_s; })},
            {"interval_ms", column([](const auto& s) { return s.interval_ms; })},
            {"queued", column([](const auto& s) { return s.queued; })},
            {"running", column([](const auto& s) { return s.running; })},
            {"completed", column([](const auto& s) { return s.completed; })},
            {"rejected", column([](const auto& s) { return s.rejected; })},
            {"failed", column([](const auto& s) { return s.failed; })},
            {"cancelled", column([](const auto& s) { return s.cancelled; })},
            {"prompt_tokens", column([](const auto& s) { return s.prompt_tokens; })},
            {"completion_tokens", column([](const auto& s) { return s.completion_tokens; })},
            {"dispatched", column([](const auto& s) { return s.dispatched; })},
            {"wait_p50_ms", column([&](const auto& s) { return ms(s.wait_p50_s); })},
            {"wait_p95_ms", column([&](const auto& s) { return ms(s.wait_p95_s); })},
            {"first_token_p50_ms", column([&](const auto& s) { return ms(s.first_token_p50_s); })}};
}

}  // namespace

std::string status_json(const MainConf& conf, bool admin) {
    const std::vector<core::EngineSnapshot> all = all_engines();
    const int64_t now = now_us();
    const core::ZonePlan& plan = zone().plan();
    ordered_json out;
    out["version"] = LLM_VERSION;
    out["time"] = wall_s();
    out["admin"] = admin;
    out["scheduler"] =
        static_cast<core::Scheduler>(conf.scheduler) == core::Scheduler::strict ? "strict" : "weighted";
    out["totals"] = totals();
    out["models"] = models();
    out["engines"] = engines(all, now);
    out["clients"] = clients();
    out["requests"] = requests(all);
    out["sources"] = sources_state(conf);
    out["history"] = history_json();
    out["zone"] = {{"clients", plan.clients}, {"requests", plan.requests}, {"engines", plan.engines}};
    // names come from outside: what is no UTF-8 is shown as U+FFFD
    return out.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace llm::nginx::web
