// Engines: how they come, change and go.
#include <algorithm>
#include <cmath>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kDefaultMaxRunning = 64;
constexpr int64_t kGonePauseUs =
    1'000'000;  // a static engine that said goodbye is probed again after so long

std::string_view view(const char* text) {
    return text;
}

// The first engine in service for which wanted() holds; kNone if there is none.
template <class Wanted>
uint32_t find_engine(const Core& c, Wanted wanted) {
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        const Engine& e = c.engines[i];
        if (e.used != 0 && e.leaving == 0 && wanted(e)) {
            return i;
        }
    }
    return kNone;
}

uint32_t find_static(const Core& c, std::string_view url) {
    return find_engine(c, [&](const Engine& e) { return e.is_static != 0 && view(e.url) == url; });
}

uint32_t find_id(const Core& c, std::string_view id) {
    return find_engine(c, [&](const Engine& e) { return view(e.id) == id; });
}

// The engine that a report speaks of, whatever it is called here: that of the configuration at its URL, else
// that of its id, else the same process under the id it had while the configuration listed it.
uint32_t find_reported(const Core& c, const EngineReport& report) {
    uint32_t i = find_static(c, report.url);
    if (i == kNone) {
        i = find_id(c, report.id);
    }
    if (i == kNone) {
        i = find_engine(c,
                        [&](const Engine& e) { return e.boot == report.boot && view(e.url) == report.url; });
    }
    return i;
}

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

uint32_t new_engine(Core& c) {
    for (uint32_t i = 0; i < c.header.plan.engines; ++i) {
        Engine& e = c.engines[i];
        if (e.used == 0) {
            const uint32_t generation = e.generation + 1;
            e = Engine{};
            e.generation = generation;
            c.header.engine_end = i >= c.header.engine_end ? i + 1 : c.header.engine_end;
            std::atomic_signal_fence(std::memory_order_seq_cst);
            e.org = kNone;
            e.success_us = c.now;
            e.closed_us = c.now;
            return i;
        }
    }
    return kNone;
}

void set_place(Engine& e, std::string_view host, std::string_view key, bool tls,
               const EngineAddress& address) {
    copy_text(e.host, host);
    copy_text(e.key, key);
    e.tls = tls ? 1 : 0;
    e.address = address;
    e.place_version++;
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

// The key for an engine that says where it is: that of its own llm_engine stays unless there is one for its
// id.
std::string_view key_at(const Engine& e, const EnginePlace& place) {
    return e.is_static != 0 && place.key.empty() ? view(e.key) : place.key;
}

void set_org(Engine& e, uint32_t org) {
    e.org = org;
    e.place_version++;
}

// The engine's models become `list` (static ones first). False when nothing changed.
bool set_models(Core& c, uint32_t engine, const uint32_t* list, uint32_t count) {
    Engine& e = c.engines[engine];
    if (count == e.model_count && std::equal(list, list + count, e.models)) {
        return false;
    }
    unregister_models(c, engine);
    std::copy(list, list + count, e.models);
    e.model_count = count;
    register_models(c, engine);
    return true;
}

uint32_t add_model(uint32_t* list, uint32_t count, uint32_t model) {
    if (model == kNone || count >= kMaxEngineModels || std::find(list, list + count, model) != list + count) {
        return count;
    }
    list[count] = model;
    return count + 1;
}

// Applies a new upper bound. Without a minimum the limit is the bound, unless the engine itself has refused
// lately.
void set_max_running(Core& c, Engine& e, uint32_t most) {
    const bool was_full = e.limit >= e.max_running;
    e.max_running = most;
    if (was_full && minimum_of(c, e) <= 0) {
        e.limit = most;
    }
    clamp_limit(c, e);
}

void leave(Core& c, uint32_t engine) {
    Engine& e = c.engines[engine];
    LLM_LABEL();
    e.leaving = 1;
    LLM_LABEL();
    unregister_models(c, engine);
    refresh_domains(c);
    free_engine_if_idle(c, engine);
}

// A report that says "gone".
Applied say_goodbye(Core& c, uint32_t engine) {
    Engine& e = c.engines[engine];
    if (e.is_static == 0) {
        leave(c, engine);
        return Applied::gone;
    }
    // The configuration still lists it: wait for it to come back, by way of the breaker's probes.
    e.announced = 0;
    e.state = static_cast<uint8_t>(EngineState::ready);
    e.foreign = 0;
    e.breaker = Breaker::open;
    e.open_until_us = c.now + kGonePauseUs;
    return Applied::gone;
}

// Whether a configuration's models fit. Engines that share a model need it once.
bool models_fit(const Core& c, const EngineSpec* specs, uint32_t count) {
    constexpr uint32_t kSlots = 4096;  // twice the most models of a zone
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

// Whether a newer report than this one is known. What says so may be a lie, or the clock by which boots are
// counted may have been set back: an engine that goes on reporting is believed once nothing newer has been heard
// for as long as its reports live. One report alone is not: it may come late, or be told once more.
bool is_old(const Core& c, Engine& e, const EngineReport& report) {
    if (e.announced == 0 || report.boot > e.boot || (report.boot == e.boot && report.seq > e.seq)) {
        return false;
    }
    const bool goes_on =
        report.boot == e.refused_boot && report.seq > e.refused_seq && e.refused_us > e.report_us;
    if (goes_on && c.now - e.report_us > int64_t{report.ttl_ms} * 1000) {
        return false;
    }
    if (report.boot != e.refused_boot || report.seq != e.refused_seq) {
        e.refused_boot = report.boot;
        e.refused_seq = report.seq;
        e.refused_us = c.now;
    }
    return true;
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

void free_engine_if_idle(Core& c, uint32_t engine) {
    Engine& e = c.engines[engine];
    if (e.leaving != 0 && e.held == 0) {
        e.used = 0;
    }
}

bool apply_static_engines(const ZoneLock& lock, const EngineSpec* specs, uint32_t count, int64_t now_us,
                          WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    if (!everything_fits(c, specs, count)) {
        return false;
    }
    bool topology = false;
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

ApplyResult apply_report(const ZoneLock& lock, const EngineReport& report, const EnginePlace* place,
                         int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    ApplyResult result;
    uint32_t i = find_reported(c, report);
    if (i != kNone) {
        Engine& e = c.engines[i];
        if (e.is_static == 0 && view(e.id) != report.id) {
            copy_text(e.id, report.id);  // the configuration lists it no more: it goes by its own name
            e.place_version++;
        }
        const bool elsewhere = view(e.url) != report.url;
        if (elsewhere && (e.is_static != 0 || report.boot <= e.boot)) {
            result.what = Applied::conflict_lost;  // what the configuration lists stays where it is
            return result;
        }
        if (is_old(c, e, report)) {
            e.seen_us = report.boot == e.boot ? now_us : e.seen_us;
            bump(c.header.counters.old_reports);
            result.what = Applied::old;
            result.engine = i;
            result.generation = e.generation;
            return result;
        }
        if (elsewhere) {
            result.what = Applied::conflict_won;
            leave(c, i);
            i = kNone;
        }
    }
    if (report.state == EngineState::gone) {
        result.what = i == kNone ? Applied::unknown : say_goodbye(c, i);
        result.engine = i;
        run_all(c);
        return result;
    }
    const bool created = i == kNone;
    if (created) {
        i = new_engine(c);
        if (i == kNone) {
            result.what = Applied::full;
            return result;
        }
        copy_text(c.engines[i].id, report.id);
        copy_text(c.engines[i].url, report.url);
    }
    Engine& e = c.engines[i];
    uint32_t list[kMaxEngineModels];
    uint32_t count = e.is_static != 0 ? e.static_model_count : 0;
    std::copy(e.models, e.models + count, list);
    for (const std::string& name : report.models) {
        count = add_model(list, count, open_model(c, name));
    }
    if (count == 0) {
        result.what = Applied::full;
        return result;
    }
    const bool other_boot = e.announced == 0 || report.boot != e.boot;
    const auto state_before = static_cast<EngineState>(e.state);
    if (place != nullptr) {
        set_place(e, place->host, key_at(e, *place), place->tls, place->address);
    }
    result.needs_address = e.address.length == 0;
    e.ttl_us = int64_t{report.ttl_ms} * 1000;
    e.state = static_cast<uint8_t>(report.state);
    e.preempts = report.preempts ? 1 : 0;
    if (e.org_listed == 0) {
        if (const uint32_t org = open_org(c, report.org); org != e.org) {
            set_org(e, org);
        }
    }
    e.tokens_per_second = std::isfinite(report.tokens_per_second) ? report.tokens_per_second : 0;
    e.tokens_per_second_per_user =
        std::isfinite(report.tokens_per_second_per_user) ? report.tokens_per_second_per_user : 0;
    if (created) {
        LLM_LABEL();
        e.used = 1;
    }
    const bool topology = set_models(c, i, list, count);
    set_max_running(c, e,
                    e.config_max_running != 0 ? e.config_max_running : std::max(report.max_running, 1u));
    const bool was_below = e.below_minimum != 0;
    control(c, e, report, other_boot);
    if (other_boot || (state_before == EngineState::failed && report.state == EngineState::ready)) {
        e.breaker = Breaker::closed;
        e.failures_in_row = 0;
        e.closed_us = now_us;
        start_limit(c, e);
    }
    e.announced = 1;
    e.boot = report.boot;
    e.seq = report.seq;
    e.report_us = now_us;
    e.seen_us = now_us;
    result.what = result.what == Applied::conflict_won ? result.what
                  : created                            ? Applied::created
                                                       : Applied::updated;
    result.engine = i;
    result.generation = e.generation;
    result.below_minimum = !was_below && e.below_minimum != 0;
    if (topology) {
        refresh_domains(c);
        run_all(c);
    } else if (c.header.queued != 0) {
        run_models_of(c, i);
    }
    return result;
}

void count_bad_report(Zone& zone) {
    bump(zone.header()->counters.bad_reports);
}

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

void set_redis_state(const ZoneLock& lock, bool up, int64_t now_us) {
    ZoneHeader& h = *lock.zone().header();
    if (up && h.redis_up == 0) {
        h.redis_up_us = now_us;
    }
    std::atomic_ref<uint32_t>(h.redis_up).store(up ? 1 : 0, std::memory_order_relaxed);
}

bool redis_up(const Zone& zone) {
    return std::atomic_ref<uint32_t>(zone.header()->redis_up).load(std::memory_order_relaxed) != 0;
}

uint32_t forget_silent_engines(Core& c, char* first_id) {
    if (c.header.redis_up == 0) {
        return 0;
    }
    uint32_t forgotten = 0;
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        Engine& e = c.engines[i];
        const int64_t patience = 10 * e.ttl_us;
        // The key outlives its last sign of life by one ttl.
        if (e.used == 0 || e.leaving != 0 || e.announced == 0 || c.now - (e.seen_us + e.ttl_us) < patience ||
            c.now - e.success_us < patience || c.now - c.header.redis_up_us < patience) {
            continue;
        }
        if (e.is_static != 0) {
            e.announced = 0;  // as if it had never reported
            e.state = static_cast<uint8_t>(EngineState::ready);
            e.foreign = 0;
            continue;
        }
        if (forgotten++ == 0) {
            std::memcpy(first_id, e.id, sizeof e.id);
        }
        leave(c, i);
    }
    return forgotten;
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
