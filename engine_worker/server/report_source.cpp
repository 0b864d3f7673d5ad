#include "engine_worker/server/report_source.hpp"

#include <utility>

#include "engine_worker/clock.hpp"
#include "engine_worker/host_name.hpp"
#include "engine_worker/server/load_model.hpp"

namespace llm::engine {
namespace {

constexpr uint32_t kReportTtlMs = 3000;

}  // namespace

std::string describe_engine(const Options& options, uint16_t port, EngineReport& out) {
    out.id = options.id;
    out.url = options.advertise;
    out.models = served_names(options);
    out.org = options.org;
    out.boot = unix_milliseconds();
    out.ttl_ms = kReportTtlMs;
    out.max_running = static_cast<uint32_t>(options.max_running > 0 ? options.max_running : kDefaultRunning);
    out.preempts = true;
    if (out.id.empty()) {
        out.id = host_name() + ":" + (port != 0 ? std::to_string(port) : options.listen);
    }
    if (out.url.empty() && port == 0) {
        return options.redis.empty()
                   ? ""
                   : "--advertise is needed when --listen is a UNIX socket and --redis is given";
    }
    if (out.url.empty()) {
        std::string host = options.listen.substr(0, options.listen.rfind(':'));
        if (host.empty() || host == "*" || host == "0.0.0.0" || host == "[::]") {
            host = host_name();
        }
        out.url = "http://" + host + ":" + std::to_string(port);
    }
    EngineReport parsed;
    const std::string why = options.redis.empty() ? "" : parse_engine_report(to_json(out), parsed);
    return why.empty() ? "" : "the report would not be valid: " + why;
}

ReportSource::ReportSource(EngineReport fixed, const ApiService& service)
    : fixed_(std::move(fixed)), service_(service), started_(steady_seconds()) {}

void ReportSource::set_engine(const EngineThread& engine, int32_t max_running, int32_t max_context) {
    max_running_.store(max_running);
    max_context_.store(max_context);
    engine_.store(&engine);
}

EngineReport ReportSource::snapshot() const {
    EngineReport report = fixed_;
    report.state = service_.state();
    report.uptime_s = steady_seconds() - started_;
    report.has_counters = true;
    if (const EngineThread* engine = engine_.load(); engine != nullptr) {
        const EngineStats stats = engine->stats();
        report.max_running = static_cast<uint32_t>(max_running_.load());
        report.max_context = static_cast<uint32_t>(max_context_.load());
        report.running = stats.running;
        report.waiting = stats.waiting_long;
        report.kv_usage = stats.kv_usage;
        report.tokens_in = static_cast<double>(stats.tokens_in);
        report.tokens_out = static_cast<double>(stats.tokens_out);
        report.decode_tokens = static_cast<double>(stats.decode_tokens);
        report.user_seconds = stats.user_seconds;
        report.completed = static_cast<double>(stats.completed);
    }
    return report;
}

}  // namespace llm::engine
