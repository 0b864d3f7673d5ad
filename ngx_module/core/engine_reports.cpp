// What engines report of themselves.
#include <algorithm>
#include <cmath>

#include "ngx_module/core/engine_slots.hpp"

namespace llm::core {
namespace {

constexpr int64_t kGonePauseUs =
    1'000'000;  // a static engine that said goodbye is probed again after so long

// The engine that a report speaks of, whatever it is called here: that of the configuration at its URL, else
// that of its id, else the same process under the id it had while the configuration listed it.
uint32_t find_reported(const Core& c, const EngineReport& report, const EngineMemo& memo) {
    if (memo.engine != kNone && memo.version == c.header.engines_version) {
        return memo.engine;
    }
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

// Whether the report, which speaks of engine `i`, is to be applied; else `result` says why not. Of two that go by one
// name at different places the younger stays: the other one leaves, and `i` becomes kNone.
bool is_accepted(Core& c, uint32_t& i, const EngineReport& report, ApplyResult& result) {
    Engine& e = c.engines[i];
    if (e.is_static == 0 && view(e.id) != report.id) {
        c.header.engines_version++;
        copy_text(e.id, report.id);  // the configuration lists it no more: it goes by its own name
        e.place_version++;
    }
    const bool elsewhere = view(e.url) != report.url;
    if (elsewhere && (e.is_static != 0 || report.boot <= e.boot)) {
        result.what = Applied::conflict_lost;  // what the configuration lists stays where it is
        return false;
    }
    if (is_old(c, e, report)) {
        e.seen_us = report.boot == e.boot ? c.now : e.seen_us;
        result.what = Applied::old;
        result.engine = i;
        result.generation = e.generation;
        result.memo = {i, c.header.engines_version};
        return false;
    }
    if (elsewhere) {
        result.what = Applied::conflict_won;
        leave(c, i);
        i = kNone;
    }
    return true;
}

// A slot for an engine that is not known yet; kNone if there is none. In service once `used` is set.
uint32_t create_engine(Core& c, const EngineReport& report) {
    const uint32_t i = new_engine(c);
    if (i != kNone) {
        copy_text(c.engines[i].id, report.id);
        copy_text(c.engines[i].url, report.url);
    }
    return i;
}

// The models that the engine serves, those of the configuration first. Returns how many: 0 if there is no room for any.
uint32_t list_models(Core& c, const Engine& e, const EngineReport& report, uint32_t (&list)[kMaxEngineModels]) {
    uint32_t count = e.is_static != 0 ? e.static_model_count : 0;
    std::copy(e.models, e.models + count, list);
    for (const std::string& name : report.models) {
        count = add_model(list, count, open_model(c, name));
    }
    return count;
}

// What needs no judgement: state, organisation, figures for people.
void copy_facts(Core& c, Engine& e, const EngineReport& report) {
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
}

// Whether what is at the URL of an engine, which has fallen silent, goes by another name now: another one has
// been heard of since that is there and serves all that it served. What succeeds there is no sign of life of
// the former name.
bool has_successor(const Core& c, const Engine& e) {
    const auto serves = [](const Engine& other, uint32_t model) {
        return std::find(other.models, other.models + other.model_count, model) !=
               other.models + other.model_count;
    };
    return find_engine(c, [&](const Engine& other) {
               return &other != &e && other.announced != 0 && other.seen_us > e.seen_us + e.ttl_us &&
                      view(other.url) == view(e.url) &&
                      std::all_of(e.models, e.models + e.model_count,
                                  [&](uint32_t model) { return serves(other, model); });
           }) != kNone;
}

}  // namespace

ApplyResult apply_report(const ZoneLock& lock, const EngineReport& report, const EnginePlace* place,
                         int64_t now_us, WakeSet& wakes, const EngineMemo& memo) {
    Core c(lock, now_us, wakes);
    ApplyResult result;
    uint32_t i = find_reported(c, report, memo);
    if (i != kNone && !is_accepted(c, i, report, result)) {
        return result;
    }
    if (report.state == EngineState::gone) {
        result.what = i == kNone ? Applied::unknown : say_goodbye(c, i);
        result.engine = i;
        run_all(c);
        return result;
    }
    const bool created = i == kNone;
    if (created) {
        i = create_engine(c, report);
    }
    uint32_t list[kMaxEngineModels];
    const uint32_t count = i != kNone ? list_models(c, c.engines[i], report, list) : 0;
    if (count == 0) {
        result.what = Applied::full;
        return result;
    }
    Engine& e = c.engines[i];
    const bool other_boot = e.announced == 0 || report.boot != e.boot;
    const auto state_before = static_cast<EngineState>(e.state);
    if (place != nullptr) {
        set_place(e, place->host, key_at(e, *place), place->tls, place->address);
    }
    result.needs_address = e.address.length == 0;
    copy_facts(c, e, report);
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
        forgive_engine(c, i);
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
    result.memo = {i, c.header.engines_version};
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

uint32_t lose_silent_engines(Core& c, char* first_id) {
    if (c.header.redis_up == 0) {
        return 0;
    }
    uint32_t lost = 0;
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        Engine& e = c.engines[i];
        const int64_t patience = 10 * e.ttl_us;
        // The key outlives its last sign of life by one ttl.
        if (e.used == 0 || e.leaving != 0 || e.announced == 0 || c.now - (e.seen_us + e.ttl_us) < patience ||
            c.now - c.header.redis_up_us < patience ||
            (c.now - e.success_us < patience && !has_successor(c, e))) {
            continue;
        }
        if (lost++ == 0) {
            std::memcpy(first_id, e.id, sizeof e.id);
        }
        if (e.is_static != 0) {
            e.announced = 0;  // as if it had never reported
            e.state = static_cast<uint8_t>(EngineState::ready);
            e.foreign = 0;
        } else {
            leave(c, i);
        }
    }
    bump(c.header.counters.engines_lost, uint64_t{lost});
    return lost;
}

}  // namespace llm::core
