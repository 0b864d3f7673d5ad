#include "ngx_module/web/zone_views.hpp"

#include <algorithm>

#include "ngx_module/nginx/worker.hpp"

namespace llm::nginx::web {
namespace {

constexpr uint32_t kBatch = 32;

// Walks one table with `take(lock, cursor, out, capacity)` until the cursor has reached `end`.
template <class Snapshot, class Take>
std::vector<Snapshot> walk(uint32_t end, Take take) {
    std::vector<Snapshot> all;
    std::vector<Snapshot> batch(kBatch);
    uint32_t cursor = 0;
    while (cursor < end) {
        uint32_t count;
        {
            core::ZoneLock lock(zone());
            count = take(lock, cursor, batch.data(), kBatch);
        }
        all.insert(all.end(), batch.begin(), batch.begin() + count);
    }
    return all;
}

bool runs(const core::RequestSnapshot& request) {
    return request.state == core::RequestState::running || request.state == core::RequestState::ended;
}

bool shown_before(const core::RequestSnapshot& a, const core::RequestSnapshot& b) {
    if (runs(a) != runs(b)) {
        return runs(b);
    }
    if (!runs(a) && a.level_class != b.level_class) {
        return a.level_class > b.level_class;
    }
    return a.arrived_us < b.arrived_us;
}

bool busier(const core::AccountSnapshot& a, const core::AccountSnapshot& b) {
    const auto live = [](const core::AccountSnapshot& s) { return s.running + s.waiting; };
    const auto ever = [](const core::AccountSnapshot& s) { return s.prompt_tokens + s.completion_tokens; };
    if (a.tokens_last_minute != b.tokens_last_minute) {
        return a.tokens_last_minute > b.tokens_last_minute;
    }
    return live(a) != live(b) ? live(a) > live(b) : ever(a) > ever(b);
}

}  // namespace

std::vector<core::ModelView> all_models() {
    const uint32_t count = core::model_count(zone());
    std::vector<core::ModelView> models(count);
    for (uint32_t i = 0; i < count; ++i) {
        const int64_t now = now_us();
        core::ZoneLock lock(zone());
        core::model_view(lock, i, now, models[i]);
    }
    return models;
}

std::vector<core::EngineSnapshot> all_engines() {
    return walk<core::EngineSnapshot>(zone().plan().engines, core::snapshot_engines);
}

std::vector<core::AccountSnapshot> busiest_accounts(size_t limit) {
    std::vector<core::AccountSnapshot> all = walk<core::AccountSnapshot>(
        zone().plan().accounts,
        [now = now_us()](const core::ZoneLock& lock, uint32_t& cursor, core::AccountSnapshot* out, uint32_t capacity) {
            return core::snapshot_accounts(lock, cursor, out, capacity, now);
        });
    std::sort(all.begin(), all.end(), busier);
    all.resize(std::min(all.size(), limit));
    return all;
}

std::vector<core::RequestSnapshot> live_requests(size_t limit) {
    std::vector<core::RequestSnapshot> all =
        walk<core::RequestSnapshot>(zone().plan().requests, core::snapshot_requests);
    std::sort(all.begin(), all.end(), shown_before);
    const auto running = std::find_if(all.begin(), all.end(), runs);
    const auto waiting = static_cast<size_t>(running - all.begin());
    if (all.size() - waiting > limit) {
        all.resize(waiting + limit);
    }
    if (waiting > limit) {
        all.erase(all.begin() + static_cast<std::ptrdiff_t>(limit),
                  all.begin() + static_cast<std::ptrdiff_t>(waiting));
    }
    return all;
}

std::vector<core::HistorySample> history() {
    std::vector<core::HistorySample> samples(core::kHistorySamples);
    uint32_t count;
    {
        core::ZoneLock lock(zone());
        count = core::read_history(lock, samples.data(), core::kHistorySamples);
    }
    samples.resize(count);
    return samples;
}

}  // namespace llm::nginx::web
