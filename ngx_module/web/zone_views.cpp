#include "ngx_module/web/zone_views.hpp"

#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx::web {
namespace {

constexpr uint32_t kBatch = 32;

// Walks one table with `take(lock, cursor, out, capacity)` until the cursor has reached `end` or `limit` is
// met.
template <class Snapshot, class Take>
std::vector<Snapshot> walk(uint32_t end, size_t limit, Take take) {
    std::vector<Snapshot> all;
    std::vector<Snapshot> batch(kBatch);
    uint32_t cursor = 0;
    while (cursor < end && all.size() < limit) {
        uint32_t count;
        {
            core::ZoneLock lock(zone());
            count = take(lock, cursor, batch.data(), kBatch);
        }
        all.insert(all.end(), batch.begin(), batch.begin() + count);
    }
    if (all.size() > limit) {
        all.resize(limit);
    }
    return all;
}

constexpr size_t kNoLimit = SIZE_MAX;

}  // namespace

std::vector<core::ModelView> all_models() {
    const uint32_t count = core::model_count(zone());
    std::vector<core::ModelView> models(count);
    for (uint32_t i = 0; i < count; ++i) {
        core::ZoneLock lock(zone());
        core::model_view(lock, i, now_us(), models[i]);
    }
    return models;
}

std::vector<core::EngineSnapshot> all_engines() {
    return walk<core::EngineSnapshot>(zone().plan().engines, kNoLimit, core::snapshot_engines);
}

std::vector<core::AccountSnapshot> all_accounts() {
    return walk<core::AccountSnapshot>(
        zone().plan().accounts, kNoLimit,
        [](const core::ZoneLock& lock, uint32_t& cursor, core::AccountSnapshot* out, uint32_t capacity) {
            return core::snapshot_accounts(lock, cursor, out, capacity, now_us());
        });
}

std::vector<core::RequestSnapshot> live_requests(size_t limit) {
    return walk<core::RequestSnapshot>(zone().plan().requests, limit, core::snapshot_requests);
}

}  // namespace llm::nginx::web
