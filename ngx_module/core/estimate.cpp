// Estimates for people and for clients that come back: place in the queue, Retry-After.
#include <algorithm>
#include <cmath>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr double kRateS = 10;         // time constant of the drain rate
constexpr double kSlowestRate = 0.1;  // dispatches/s that are reckoned with at least
constexpr float kFirstSeatS = 5;      // seat-seconds of a request, before one has ended
constexpr float kSeatGain = 0.05F;    // weight of the latest request in their mean
constexpr double kNetShare = 0.5;     // of the drain rate: what is left once fresh arrivals have had theirs
constexpr double kRetryShare = 0.15;  // share of the drain rate that is promised to those who come back
constexpr int64_t kShortestUs = 1'000'000;
constexpr int64_t kLongestUs = 60'000'000;

uint32_t flows_of(const Core& c, const Pool& p) {
    uint32_t flows = 0;
    for (uint32_t l = p.levels_head; l != kNone; l = c.levels[l].next) {
        flows += c.levels[l].flows;
    }
    return flows;
}

// Seats that requests for the pool's model have at its engines.
uint32_t held_for(const Core& c, const Pool& p) {
    const uint32_t all = c.models[p.model].held;
    if (p.org == kNone) {
        return all;
    }
    uint32_t held = 0;  // for other models too
    for_engines_of(c, p.model, [&](uint32_t i) {
        held += engine_serves(c, c.engines[i], p) ? c.engines[i].held : 0;
        return true;
    });
    return std::min(held, all);
}

// Dispatches per second that the queue can count on: as many as there were lately, or as the seats that are
// taken come free. The former tells after a lull how little was asked for, not how much could be served. A
// seat that nobody has given back for longer than usual takes that long.
double rate_ahead(const Core& c, const Pool& p) {
    const float seat_s = c.models[p.model].seat_s;
    const double usual = seat_s > 0 ? seat_s : kFirstSeatS;
    const double still = p.drain_us != 0 ? static_cast<double>(c.now - p.drain_us) / 1e6 : 0;
    return std::max({drain_rate_of(p, c.now), held_for(c, p) / std::max(usual, still), kSlowestRate});
}

// Until half of what this client itself has waiting has been served: those who wait share the rate, and at
// its threshold a client is refused whatever the others do.
int64_t own_wait_us(const Core& c, const Pool& p, const Account* a, double rate) {
    if (a == nullptr || a->waiting == 0 || c.header.settings.threshold_scope == ThresholdScope::queue) {
        return 0;
    }
    return static_cast<int64_t>(std::min((a->waiting + 1) / 2.0 * flows_of(c, p) / rate * 1e6, 1e9));
}

// Whether a limit of the client's own was in the way, which its other requests come back to and nobody
// else's.
bool is_own_limit(const Core& c, const Account* a, Outcome reason) {
    return a != nullptr && c.header.settings.threshold_scope == ThresholdScope::token &&
           (reason == Outcome::rejected_threshold || reason == Outcome::rejected_max_running);
}

}  // namespace

double drain_rate_of(const Pool& p, int64_t now_us) {
    const double age = std::max(0.0, static_cast<double>(now_us - p.drain_us) / 1e6);
    return p.drain_rate * std::exp(-age / kRateS);
}

void count_dispatch(Core& c, Pool& p) {
    p.drain_rate = (p.drain_us != 0 ? drain_rate_of(p, c.now) : 0) + 1 / kRateS;
    p.drain_us = c.now;
}

int64_t wait_for_an_engine_us(uint32_t random) {
    return 3'000'000 + static_cast<int64_t>(uint64_t{random} * 4'000'000 >> 32);
}

void learn_seat_time(Core& c, const Request& r) {
    if (r.lease == 0 || r.dispatched_us == 0) {
        return;
    }
    const auto seat_s = static_cast<float>(c.now - r.dispatched_us) / 1e6F * static_cast<float>(r.seats);
    float& mean = c.models[r.model].seat_s;
    mean = std::max(mean > 0 ? mean + kSeatGain * (seat_s - mean) : seat_s, 1e-3F);
}

// Those who are refused are given places one behind the other: the time until the queue in front has drained
// beside fresh arrivals, then one every 1/(share of the drain rate). So a crowd that obeys comes back spread
// out, at a pace that fits beside the fresh arrivals. Whom a limit of its own has refused stands behind its
// own requests only, with its part of that share: a client that comes back at once pushes nobody else away.
RetryHint retry_hint(Core& c, Pool& p, Account* a, Outcome reason, uint32_t random) {
    int64_t wait;
    if (reason == Outcome::rejected_no_engine) {
        wait = wait_for_an_engine_us(random);
    } else if (a != nullptr && a->held_tokens != 0) {
        wait = window_wait_us(c, *a);
    } else {
        const double rate = rate_ahead(c, p);
        const double ahead = (p.waiting + 1) / (rate * kNetShare) * 1e6;
        const bool own = is_own_limit(c, a, reason);
        const uint32_t sharers = own ? flows_of(c, p) + (a->waiting == 0 ? 1 : 0) : 1;
        const int64_t step = static_cast<int64_t>(std::min(1e6 / (rate * kRetryShare) * sharers, 1e9));
        const int64_t free_at = c.now + static_cast<int64_t>(std::min(ahead, 1e9));
        int64_t& promised = own ? a->promised_us : p.promised_us;
        promised = std::max(promised, free_at);
        wait = std::max(promised - c.now, own_wait_us(c, p, a, rate * kNetShare));
        if (promised - c.now <= 2 * kLongestUs) {
            promised += step;  // later ones are told not to come back: they need no place
        }
    }
    RetryHint hint;
    hint.reset_ms = static_cast<uint32_t>(std::clamp<int64_t>(wait / 1000, 0, 3'600'000));
    const int64_t jittered =
        wait + static_cast<int64_t>(static_cast<double>(wait) * 0.1 * (random / 4294967296.0));
    hint.should_retry = jittered <= kLongestUs;  // not `wait`: the last of them would come in one moment
    hint.retry_after_ms = static_cast<uint32_t>(std::clamp(jittered, kShortestUs, kLongestUs) / 1000);
    return hint;
}

uint32_t position_of(const Tables& t, const Request& r) {
    if (r.flow == kNone) {
        return 1;  // parked: at its old place when its owner wakes
    }
    const Level& own = t.levels[t.flows[r.flow].level];
    uint32_t ahead = 0;
    for (uint32_t l = t.pools[own.pool].levels_head; l != kNone && t.levels[l].level_class > own.level_class;
         l = t.levels[l].next) {
        ahead += t.levels[l].waiting;
    }
    // Those of the level that came later are behind it, give or take what fairness changes.
    const uint32_t later = own.arrived - r.arrival_no;
    return ahead + (own.waiting > later ? own.waiting - later : 1);
}

}  // namespace llm::core
