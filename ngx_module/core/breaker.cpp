// The breaker: an engine that fails three times in a row before its first byte rests, for longer each time,
// and comes back through one probe.
#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kFailuresToOpen = 3;
constexpr int64_t kFirstPauseUs = 5'000'000;
constexpr uint32_t kMaxBackoff = 5;         // longest pause 5 s·2^5
constexpr int64_t kHealthyUs = 60'000'000;  // closed for so long: the next pause is short again

void open_breaker(Core& c, Engine& e, uint32_t random) {
    // Half of the pause is fixed, half random ("equal jitter"), so that gateways do not probe in step.
    const int64_t pause = kFirstPauseUs << e.backoff;
    e.open_until_us =
        c.now + pause / 2 + static_cast<int64_t>(static_cast<uint64_t>(pause / 2) * random >> 32);
    e.breaker = Breaker::open;
    e.backoff = e.backoff < kMaxBackoff ? e.backoff + 1 : e.backoff;
    run_models_of(c, static_cast<uint32_t>(&e - c.engines));
}

}  // namespace

bool probe_due(const Core& c, const Engine& e) {
    return e.breaker != Breaker::closed && e.probe_out == 0 && c.now >= e.open_until_us;
}

void engine_failed(Core& c, Engine& e, uint32_t random) {
    e.failures++;
    e.failures_in_row++;
    e.failed_us = c.now;
    if (e.breaker == Breaker::closed) {
        if (e.failures_in_row < kFailuresToOpen) {
            return;
        }
        if (c.now - e.closed_us > kHealthyUs) {
            e.backoff = 0;
        }
        open_breaker(c, e, random);
    } else if (c.now >= e.open_until_us) {
        open_breaker(c, e, random);  // the probe failed
    }
}

void engine_succeeded(Core& c, Engine& e, int64_t sent_us) {
    e.failures_in_row = 0;
    e.success_us = c.now;
    const bool opened = e.breaker != Breaker::closed;
    if (opened) {
        e.breaker = Breaker::closed;
        e.closed_us = c.now;
        start_limit(c, e);
    }
    if (opened || (e.failed_us != 0 && sent_us - e.failed_us > kFirstPauseUs)) {
        e.failed_us = 0;
        const auto index = static_cast<uint32_t>(&e - c.engines);
        forgive_engine(c, index);
        run_engine(c, index);
    }
}

}  // namespace llm::core
