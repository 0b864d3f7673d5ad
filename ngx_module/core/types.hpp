// Words of the dispatcher that its callers share: tickets, verdicts, outcomes, settings.
//
// Everything here is plain data. Times are microseconds of a monotonic clock (`now_us`) unless the name
// ends in `_s` or says "wall": the core has no clock of its own and takes every time, random number and process
// id as an argument, so that tests and the simulator run the very code that nginx runs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string_view>

#include "shared/token_hash.hpp"

namespace llm::core {

// "No such index" in every table of the zone.
constexpr uint32_t kNone = 0xffffffffu;

constexpr uint32_t kMaxProcesses = 1024;       // slots of nginx worker processes
constexpr uint32_t kMaxNameBytes = 63;         // a client's name
constexpr uint32_t kMaxOrgBytes = 127;         // an organisation
constexpr uint32_t kMaxModelBytes = 255;       // a model's name
constexpr uint32_t kMaxModelListBytes = 2047;  // a client's `models`, comma separated
constexpr uint32_t kMaxEngineIdBytes = 127;
constexpr uint32_t kMaxEngineUrlBytes = 255;
constexpr uint32_t kMaxEngineHostBytes = 255;
constexpr uint32_t kMaxEngineKeyBytes = 511;
constexpr uint32_t kMaxEngineModels = 64;     // models that one engine serves
constexpr uint32_t kMaxThroughputRules = 64;  // `llm_min_throughput n model=…` lines
constexpr int32_t kMaxPriority = 1000;        // larger ones in the database are cut to this
constexpr int32_t kMaxBand = 1000;            // bands lie in −kMaxBand..kMaxBand
constexpr int32_t kUnlimited = std::numeric_limits<int32_t>::max();  // a threshold that never refuses

// A request's name inside the zone. The generation grows each time the slot is freed, so that a stale ticket
// is recognised and every function that takes one may be called too late without harm.
struct Ticket {
    uint32_t index = kNone;
    uint32_t generation = 0;
    bool valid() const { return index != kNone; }
    friend bool operator==(const Ticket&, const Ticket&) = default;
};

enum class RequestState : uint32_t {
    free = 0,  // the slot is unused
    queued,    // waits in a flow
    granted,   // holds a lease; its owner has been told and has kGrantLifeUs to take it up
    running,   // taken up: the owner talks to the engine
    ended,     // ended by somebody else (revoked, aborted); waits for its owner to hear of it
};

enum class Scheduler : uint8_t { weighted, strict };
enum class ThresholdScope : uint8_t { token, queue };
enum class RoutingPolicy : uint8_t { throughput, least_running, round_robin, prefix, random };
enum class ClientPriority : uint8_t { lower, ignore };
enum class RoutingMode : uint8_t { any, private_first, private_only };

// As written in configuration, requests, the client table and usage records; in the order of the enumerators.
constexpr std::string_view kRoutingPolicyNames[] = {"throughput", "least_running", "round_robin", "prefix",
                                                    "random"};
constexpr std::string_view kRoutingModeNames[] = {"any", "private-first", "private-only"};

constexpr std::string_view name_of(RoutingPolicy policy) {
    return kRoutingPolicyNames[static_cast<size_t>(policy)];
}
constexpr std::string_view name_of(RoutingMode mode) {
    return kRoutingModeNames[static_cast<size_t>(mode)];
}
// False, and `out` unchanged, for any other text.
constexpr bool parse_routing_mode(std::string_view text, RoutingMode& out) {
    for (const RoutingMode mode : {RoutingMode::any, RoutingMode::private_first, RoutingMode::private_only}) {
        if (name_of(mode) == text) {
            out = mode;
            return true;
        }
    }
    return false;
}

// Every way in which a request can end, one metric series each; their names are outcome_name()'s (counters.hpp).
enum class Outcome : uint8_t {
    completed,
    rejected_invalid_api_key,
    rejected_model_not_allowed,
    rejected_invalid_json,
    rejected_model_required,
    rejected_model_not_found,
    rejected_body_too_large,
    rejected_unsupported_encoding,
    rejected_threshold,
    rejected_max_running,
    rejected_tokens_per_minute,
    rejected_queue_full,
    rejected_queue_timeout,
    rejected_no_engine,
    rejected_auth_unavailable,
    // raised by nginx in a dispatching location
    rejected_access_denied,       // 403 of allow/deny, auth_request …
    rejected_bad_request,         // 400
    rejected_request_timeout,     // 408
    rejected_not_found,           // 404
    rejected_method_not_allowed,  // 405
    rejected_internal_error,      // 500
    rejected_error,               // any other status
    timeout,               // engine_timeout
    engine_error,
    cancelled_queued,
    cancelled_running,
};
constexpr size_t kOutcomes = static_cast<size_t>(Outcome::cancelled_running) + 1;

// A lower bound on decoded tokens/s per user for one model (`llm_min_throughput n model=NAME`).
struct ThroughputRule {
    char model[kMaxModelBytes + 1] = {};  // NUL terminated
    double tokens_per_second = 0;
    bool operator==(const ThroughputRule&) const = default;
};

// What the configuration says, the same for all locations. Written to the zone by apply_settings().
struct Settings {
    Scheduler scheduler = Scheduler::weighted;
    ThresholdScope threshold_scope = ThresholdScope::token;
    RoutingPolicy routing = RoutingPolicy::throughput;
    ClientPriority client_priority = ClientPriority::lower;
    bool open_access = false;          // no llm_priority_db: everybody is one anonymous client
    int64_t aging_us = 30'000'000;     // < 0 = off
    int64_t grace_us = 3'600'000'000;  // known clients outlive their source's absence this long
    uint32_t queue_size = 0;           // queued requests at once; 0 = what the zone holds
    double min_throughput = 0;         // 0 = off
    uint32_t throughput_rules = 0;     // used entries of `throughput`
    ThroughputRule throughput[kMaxThroughputRules];
    bool operator==(const Settings&) const = default;
};

// Process slots that got something to read (a grant, a revocation) during a call and must be woken once the
// lock has been released. Never overflows.
class WakeSet {
  public:
    void add(uint32_t slot) { join(slot / 64, uint64_t{1} << (slot % 64)); }
    void merge(const WakeSet& other) {
        for (uint32_t used = other.used_; used != 0; used &= used - 1) {
            const auto i = static_cast<uint32_t>(__builtin_ctz(used));
            join(i, other.words_[i]);
        }
    }
    bool contains(uint32_t slot) const {
        return (used_ >> (slot / 64) & 1) != 0 && (words_[slot / 64] >> (slot % 64) & 1) != 0;
    }
    bool empty() const { return used_ == 0; }
    void clear() { used_ = 0; }

    // Calls visit(slot) for each slot, ascending.
    template <class Visit>
    void for_each(Visit visit) const {
        for (uint32_t used = used_; used != 0; used &= used - 1) {
            const auto i = static_cast<uint32_t>(__builtin_ctz(used));
            for (uint64_t word = words_[i]; word != 0; word &= word - 1) {
                visit(i * 64 + static_cast<uint32_t>(__builtin_ctzll(word)));
            }
        }
    }

  private:
    static constexpr size_t kWords = kMaxProcesses / 64;

    void join(uint32_t i, uint64_t word) {
        words_[i] = (used_ >> i & 1) != 0 ? words_[i] | word : word;
        used_ |= uint32_t{1} << i;
    }

    static_assert(kWords <= 32);
    uint64_t words_[kWords];  // only those that used_ names mean something: most sets stay empty
    uint32_t used_ = 0;       // one bit per word that is not zero
};

}  // namespace llm::core
