// Engines, as the rest of the gateway asks for them.
#include "ngx_module/core/engine_slots.hpp"

namespace llm::core {

void set_engine_address(const ZoneLock& lock, uint32_t engine, uint32_t generation, const EnginePlace& place,
                        int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    if (engine >= c.header.plan.engines || c.engines[engine].used == 0 ||
        c.engines[engine].generation != generation) {
        return;
    }
    Engine& e = c.engines[engine];
    set_place(e, place.host, key_at(e, place), place.tls, place.address);
    run_engine(c, engine);
}

bool drain_engine(const ZoneLock& lock, std::string_view id, bool drain, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    const uint32_t i = find_id(c, id);
    if (i == kNone) {
        return false;
    }
    c.engines[i].drained = drain ? 1 : 0;
    run_models_of(c, i);
    return true;
}

bool engine_target(const ZoneLock& lock, uint32_t engine, EngineTarget& out) {
    Tables t(lock.zone());
    if (engine >= t.header.plan.engines || t.engines[engine].used == 0) {
        return false;
    }
    const Engine& e = t.engines[engine];
    if (out.engine != engine || out.generation != e.generation || out.place_version != e.place_version) {
        out.engine = engine;
        out.generation = e.generation;
        out.place_version = e.place_version;
        out.address = e.address;
        out.tls = e.tls != 0;
        out.is_static = e.is_static != 0;
        std::memcpy(out.id, e.id, sizeof out.id);
        std::memcpy(out.url, e.url, sizeof out.url);
        std::memcpy(out.host, e.host, sizeof out.host);
        std::memcpy(out.key, e.key, sizeof out.key);
        std::memset(out.org, 0, sizeof out.org);
        if (e.org != kNone) {
            std::memcpy(out.org, t.orgs[e.org].name, sizeof out.org);
        }
    }
    out.max_running = e.max_running;
    out.held = e.held;
    out.tokens_per_second_per_user = e.eu > 0 ? e.et / e.eu : e.tokens_per_second_per_user;
    return true;
}

uint32_t any_usable_engine(const ZoneLock& lock, int64_t now_us, uint32_t random, uint32_t but) {
    Tables t(lock.zone());
    uint32_t usable = 0;
    for (uint32_t i = 0; i < t.header.engine_end; ++i) {
        usable += i != but && engine_usable(t.engines[i]) ? 1 : 0;
    }
    if (usable == 0) {
        return kNone;
    }
    uint32_t skip = random % usable;
    for (uint32_t i = 0; i < t.header.engine_end; ++i) {
        if (i != but && engine_usable(t.engines[i]) && skip-- == 0) {
            return i;
        }
    }
    return kNone;
}

}  // namespace llm::core
