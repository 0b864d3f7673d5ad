// What anybody who can write to Redis may say of an engine: refused with a reason, or within the bounds that the
// header promises; and what was accepted survives being written and read again.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "shared/engine_report.hpp"

namespace {

void require(bool condition) {
    if (!condition) {
        std::abort();
    }
}

bool is_count(double value) {
    return std::isfinite(value) && value >= 0;
}

void require_bounds(const llm::EngineReport& report) {
    require(!report.id.empty() && report.id.size() <= 127);
    require(report.url.size() <= 255 && (report.url.starts_with("http://") || report.url.starts_with("https://")));
    require(!report.models.empty() && report.models.size() <= 64);
    for (const std::string& model : report.models) {
        require(!model.empty() && model.size() <= 255);
    }
    require(report.org.size() <= 127);
    require(report.ttl_ms >= 1 && report.ttl_ms <= 3'600'000);
    require(report.max_running >= 1 && report.max_running <= 1'000'000);
    require(report.kv_usage >= 0 && report.kv_usage <= 1);
    for (const double value : {report.uptime_s, report.tokens_in, report.tokens_out, report.decode_tokens,
                               report.user_seconds, report.completed, report.tokens_per_second,
                               report.tokens_per_second_per_user}) {
        require(is_count(value));
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    llm::EngineReport report;
    const std::string reason = llm::parse_engine_report(text, report);
    if (!reason.empty()) {
        require(reason.find('\n') == std::string::npos);
        return 0;
    }
    require_bounds(report);
    llm::EngineReport again;
    require(llm::parse_engine_report(llm::to_json(report), again).empty());
    require(again.id == report.id && again.url == report.url && again.models == report.models &&
            again.org == report.org && again.state == report.state && again.boot == report.boot &&
            again.seq == report.seq && again.ttl_ms == report.ttl_ms && again.max_running == report.max_running &&
            again.running == report.running && again.waiting == report.waiting);
    return 0;
}
