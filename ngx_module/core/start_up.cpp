#include "ngx_module/core/start_up.hpp"

#include <atomic>

#include "ngx_module/core/core.hpp"

namespace llm::core {

void expect_sources(const ZoneLock& lock, uint32_t sources, int64_t until_us) {
    ZoneHeader& h = *lock.zone().header();
    std::atomic_ref<int64_t>(h.awaited_until_us).store(until_us, std::memory_order_relaxed);
    std::atomic_ref<uint32_t>(h.awaited_sources).store(sources, std::memory_order_release);
}

void source_spoke(Zone& zone, Source source, WakeSet& wakes) {
    ZoneHeader& h = *zone.header();
    std::atomic_ref<uint32_t> awaited(h.awaited_sources);
    if ((awaited.load(std::memory_order_acquire) & source) == 0) {
        return;
    }
    const ZoneLock lock(zone);
    if ((awaited.fetch_and(~uint32_t{source}) & ~uint32_t{source}) != 0) {
        return;
    }
    const Tables t(zone);
    for (uint32_t i = 0; i < h.process_end; ++i) {
        if (t.processes[i].used != 0) {
            wakes.add(i);
        }
    }
}

int64_t sources_awaited_until(const Zone& zone) {
    ZoneHeader& h = *zone.header();
    return std::atomic_ref<uint32_t>(h.awaited_sources).load(std::memory_order_acquire) == 0
               ? 0
               : std::atomic_ref<int64_t>(h.awaited_until_us).load(std::memory_order_relaxed);
}

}  // namespace llm::core
