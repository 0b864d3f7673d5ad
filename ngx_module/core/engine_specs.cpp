// Engines of the configuration: start and reload.
#include <algorithm>

#include "ngx_module/core/engine_slots.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kDefaultMaxRunning = 64;

// The engine that a line of the configuration goes on with: its own, else any at its URL that no line before
// it has taken. One that announces itself too would be there twice, as its reports go to the one that is
// listed.
uint32_t find_for_spec(const Core& c, std::string_view id, std::string_view url) {
    const auto is_free = [&](const Engine& e) { return e.static_listed == 0 && view(e.url) == url; };
    const uint32_t own = find_engine(c, [&](const Engine& e) { return is_free(e) && view(e.id) == id; });
    return own != kNone ? own : find_engine(c, is_free);
}

uint32_t count_at(const Core& c, std::string_view url) {
    uint32_t count = 0;
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        const Engine& e = c.engines[i];
        count += e.used != 0 && e.leaving == 0 && view(e.url) == url ? 1 : 0;
    }
    return count;
}

// Never 0.
uint64_t hash_of_place(const EngineSpec& spec) {
    const std::string_view address(reinterpret_cast<const char*>(spec.address.sockaddr),
                                   std::min<size_t>(spec.address.length, sizeof spec.address.sockaddr));
    uint64_t hash = spec.keys ^ (spec.tls ? 1 : 2);
    for (const std::string_view part : {spec.url, spec.host, spec.key, address}) {
        hash = (hash ^ hash_bytes(part)) * 0x9e3779b97f4a7c15ull;
    }
    return hash | 1;
}

// Whether a configuration's models fit. Engines that share a model need it once.
bool models_fit(const Core& c, const EngineSpec* specs, uint32_t count) {
    constexpr uint32_t kSlots = 2 * kMaxZoneModels;
    uint64_t fresh[kSlots] = {};       // hashes of names that are not known yet
    uint32_t models = c.header.model_count;
    for (uint32_t i = 0; i < count; ++i) {
        for (uint32_t m = 0; m < specs[i].model_count; ++m) {
            if (find_model_locked(c, specs[i].models[m]) != kNone) {
                continue;
            }
            const uint64_t hash = hash_bytes(specs[i].models[m]) | 1;
            auto slot = static_cast<uint32_t>(hash >> 32) % kSlots;
            while (fresh[slot] != 0 && fresh[slot] != hash) {
                slot = (slot + 1) % kSlots;
            }
            models += fresh[slot] == 0 ? 1 : 0;
            fresh[slot] = hash;
            if (models > c.header.plan.models) {
                return false;
            }
        }
    }
    return true;
}

// Room for the whole configuration, checked before anything changes.
bool everything_fits(Core& c, const EngineSpec* specs, uint32_t count) {
    uint32_t free_slots = c.header.plan.engines - c.header.engine_end;
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        free_slots += c.engines[i].used == 0 ? 1 : 0;
    }
    uint32_t wanted = 0;
    for (uint32_t i = 0; i < count; ++i) {
        const auto before = static_cast<uint32_t>(std::count_if(
            specs, specs + i, [&](const EngineSpec& other) { return other.url == specs[i].url; }));
        wanted += before >= count_at(c, specs[i].url) ? 1 : 0;
        if (specs[i].model_count == 0 || specs[i].model_count > kMaxEngineModels) {
            return false;
        }
    }
    return wanted <= free_slots && models_fit(c, specs, count);
}

void apply_spec(Core& c, const EngineSpec& spec, bool& topology) {
    uint32_t i = find_for_spec(c, spec.id.empty() ? spec.url : spec.id, spec.url);
    const bool created = i == kNone;
    if (created) {
        i = new_engine(c);
        if (i == kNone) {
            return;
        }
    }
    Engine& e = c.engines[i];
    copy_text(e.url, spec.url);
    copy_text(e.id, spec.id.empty() ? spec.url : spec.id);
    // Each worker applies the configuration, also one that takes a dead one's place: what has been learnt since of
    // an engine whose line has not changed (its name's new address, the key for its id) stays.
    const uint64_t place = hash_of_place(spec);
    if (e.listed_place != place) {
        set_place(e, spec.host, spec.key, spec.tls, spec.address);
        e.listed_place = place;
    }
    e.is_static = 1;
    e.static_listed = 1;
    e.backup = spec.backup ? 1 : 0;
    if (!spec.org.empty() || e.org_listed != 0 || e.announced == 0) {
        set_org(e, open_org(c, spec.org));
        e.org_listed = spec.org.empty() ? 0 : 1;
    }
    e.config_max_running = spec.max_running;
    uint32_t list[kMaxEngineModels];
    uint32_t count = 0;
    for (uint32_t m = 0; m < spec.model_count; ++m) {
        count = add_model(list, count, open_model(c, spec.models[m]));
    }
    const uint32_t static_count = count;
    for (uint32_t m = e.announced != 0 ? e.static_model_count : e.model_count; m < e.model_count; ++m) {
        count = add_model(list, count, e.models[m]);
    }
    e.static_model_count = static_count;
    if (created) {
        e.state = static_cast<uint8_t>(EngineState::ready);
        LLM_LABEL();
        e.used = 1;
    }
    topology |= set_models(c, i, list, count);
    const uint32_t most = spec.max_running != 0 ? spec.max_running
                          : e.announced != 0    ? e.max_running
                                                : kDefaultMaxRunning;
    if (created) {
        e.max_running = most;
        start_limit(c, e);
    } else {
        set_max_running(c, e, most);
    }
}

}  // namespace

bool apply_static_engines(const ZoneLock& lock, const EngineSpec* specs, uint32_t count, int64_t now_us,
                          WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    if (!everything_fits(c, specs, count)) {
        return false;
    }
    bool topology = false;
    c.header.engines_version++;
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        c.engines[i].static_listed = 0;
    }
    for (uint32_t i = 0; i < count; ++i) {
        apply_spec(c, specs[i], topology);
    }
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        Engine& e = c.engines[i];
        if (e.used == 0 || e.is_static == 0 || e.static_listed != 0 || e.leaving != 0) {
            continue;
        }
        e.is_static = 0;
        e.org_listed = 0;
        e.listed_place = 0;
        if (e.announced != 0 && find_static(c, e.url) == kNone) {  // it goes on as one that announces itself
            e.static_model_count = 0;
            e.config_max_running = 0;
            e.backup = 0;
        } else {
            leave(c, i);
        }
    }
    if (topology) {
        refresh_domains(c);
    }
    run_all(c);
    return true;
}

}  // namespace llm::core
