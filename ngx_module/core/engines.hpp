// Engines and models: where requests can go, what is known of each place, and how much it takes.
//
// Sources: `llm_engine` lines (static), reports from Redis. The admission law (admission.cpp) turns reports
// into a limit L per engine; the breaker turns failures into pauses.
#pragma once

#include <cstdint>
#include <string_view>

#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"
#include "shared/engine_report.hpp"

namespace llm::core {

// What a report may say has room in the zone.
static_assert(kMaxEngineModels == llm::kMaxModels && kMaxModelBytes == llm::kMaxModelBytes);

struct EngineAddress {
    uint32_t length = 0;  // 0 = not resolved: the engine takes no requests yet
    uint8_t sockaddr[128] = {};
};

// One `llm_engine` line.
struct EngineSpec {
    std::string_view id;    // empty: the url
    std::string_view url;   // as configured; identifies the engine
    std::string_view host;  // text of the Host header
    std::string_view key;   // sent as Bearer; may be empty
    std::string_view org;   // may be empty
    const std::string_view* models = nullptr;
    uint32_t model_count = 0;  // 1..kMaxEngineModels
    uint32_t max_running = 0;  // 0 = not said (a report's, else 64)
    bool tls = false;
    bool backup = false;
    EngineAddress address;
    uint64_t keys = 0;  // says whether the keys for announced engines, which may replace `key`, are still the same
};

// Resolved place of an engine that announced itself, next to its report.
struct EnginePlace {
    std::string_view host;  // text of the Host header
    std::string_view key;
    bool tls = false;
    EngineAddress address;
};

enum class Applied : uint8_t {
    updated,
    created,        // first report of this engine
    conflict_won,   // same id from another URL with a lower boot: this one replaced it (log it)
    conflict_lost,  // same id, other URL, boot not higher or the other is static: ignored (log it)
    old,            // (boot, seq) not newer: noted as a sign of life, nothing else
    gone,           // it left on purpose: no new requests; forgotten once its last lease ends
    unknown,        // "gone" of an engine that is not known
    full,           // no slot for one more engine or model: ignored (log it)
};

// Where a report went, for the next one of the same id and URL: it need not be looked for among all engines
// as long as none comes, goes or changes its name.
struct EngineMemo {
    uint32_t engine = kNone;
    uint64_t version = 0;  // of ZoneHeader::engines_version
};

struct ApplyResult {
    Applied what = Applied::updated;
    uint32_t engine = kNone;
    uint32_t generation = 0;
    EngineMemo memo;             // kNone unless it was applied, or old
    bool needs_address = false;  // the URL is new: resolve it and call set_engine_address()
    bool below_minimum = false;  // fell under llm_min_throughput at L = 1 with this report (one log line)
};

// Replaces all static engines by `specs` (start and reload). Those that are no longer listed take no new
// requests and vanish when their last lease ends; one that announced itself too stays as such. False when the
// zone cannot hold them all (nothing is changed then).
bool apply_static_engines(const ZoneLock& lock, const EngineSpec* specs, uint32_t count, int64_t now_us,
                          WakeSet& wakes);

// Applies one report. `place` may be null when the caller has not resolved the URL (yet); the old place
// stays. A report with the URL of a static engine updates that one. Any number in it is clamped; nothing in
// it can stop dispatch but its own `state`, and as many requests of others as it says it has, for as long as
// it keeps reporting them. `memo`: of the last report with this id and this URL, if the caller has kept it.
ApplyResult apply_report(const ZoneLock& lock, const EngineReport& report, const EnginePlace* place,
                         int64_t now_us, WakeSet& wakes, const EngineMemo& memo = {});

// A report that could not be parsed (counted only).
void count_bad_report(Zone& zone);

// Sets or refreshes the place of an engine (DNS answer). Ignored when (engine, generation) no longer fits.
void set_engine_address(const ZoneLock& lock, uint32_t engine, uint32_t generation, const EnginePlace& place,
                        int64_t now_us, WakeSet& wakes);

// The Redis connection came up or went down. While down, and for 10 × ttl_ms after it came up, no engine is
// forgotten.
void set_redis_state(const ZoneLock& lock, bool up, int64_t now_us);
bool redis_up(const Zone& zone);

// Admin: no new requests (true) or normal again (false). Survives reports and reloads. False when no engine
// has this id.
bool drain_engine(const ZoneLock& lock, std::string_view id, bool drain, int64_t now_us, WakeSet& wakes);

// What the balancer needs to connect: a private copy.
struct EngineTarget {
    uint32_t engine = kNone;
    uint32_t generation = 0;
    uint32_t place_version = 0;  // within this generation: the texts and the address are those of then
    EngineAddress address;
    bool tls = false;
    bool is_static = false;
    char id[kMaxEngineIdBytes + 1] = {};
    char url[kMaxEngineUrlBytes + 1] = {};
    char host[kMaxEngineHostBytes + 1] = {};
    char key[kMaxEngineKeyBytes + 1] = {};
    char org[kMaxOrgBytes + 1] = {};
    uint32_t max_running = 0;
    uint32_t held = 0;  // seats, this one included: llm_usage's current_parallel_requests
    double tokens_per_second_per_user = 0;
};

// Copies the target of an engine that the caller holds a lease on (then it cannot vanish). False when the
// slot is unused. `out` may be what an earlier call filled: texts that are of this engine and current stay.
bool engine_target(const ZoneLock& lock, uint32_t engine, EngineTarget& out);

// Any usable (ready, breaker closed) engine other than `but`, for requests that need no lease (OPTIONS).
// kNone when there is none.
uint32_t any_usable_engine(const ZoneLock& lock, int64_t now_us, uint32_t random, uint32_t but = kNone);

// Index of a model that some engine has ever registered, else kNone. Lock-free. Model names of clients never
// create entries.
uint32_t find_model(const Zone& zone, std::string_view name);

struct ModelView {
    char name[kMaxModelBytes + 1] = {};
    uint32_t engines = 0;          // registered now
    uint32_t usable = 0;           // of those: ready with the breaker closed
    uint32_t waiting = 0;          // requests queued for it
    uint32_t running = 0;          // seats held for it
    int64_t oldest_us = 0;         // arrival of the oldest queued request; 0 = none
    uint64_t created_us = 0;       // when first seen
    double drain_per_s = 0;        // dispatches per second, smoothed
    uint32_t desired_engines = 0;  // engines that would carry the present load (llm_desired_engines)
};

// The model with index `model` (0..model_count−1). False past the end. O(engines).
bool model_view(const ZoneLock& lock, uint32_t model, int64_t now_us, ModelView& out);
uint32_t model_count(const Zone& zone);
// Name of a model entry, NUL terminated, valid for the zone's life (entries are never removed). Lock-free.
const char* model_name(const Zone& zone, uint32_t model);

}  // namespace llm::core
