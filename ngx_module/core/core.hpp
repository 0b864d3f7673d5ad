// Inside the lock: what the files of the core share with each other. Not for callers (dispatcher.hpp is).
//
// `Core` is one call's view of the zone: the arrays' addresses in this process, the time, and who must be
// woken. It can only be made from a ZoneLock, so a function that takes a Core& runs under the lock.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <string_view>

#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/core/layout.hpp"
#include "ngx_module/core/test_hooks.hpp"

namespace llm::core {

// The arrays' addresses. Without the lock only the parts that say so may be read.
struct Tables : ZoneArrays {
    explicit Tables(const Zone& zone) : ZoneArrays(zone.arrays()), header(*zone.header()) {}

    ZoneHeader& header;

    uint32_t engine_words() const { return (header.plan.engines + 63) / 64; }
    uint64_t* engines_of(uint32_t model) const { return model_engines + size_t{model} * engine_words(); }
};

struct Core : Tables {
    Core(const ZoneLock& lock, int64_t now_us, WakeSet& wake_set)
        : Tables(lock.zone()), zone(lock.zone()), now(now_us), wakes(wake_set) {}
    // Recovery only: the lock is being taken. No time passes.
    Core(Zone& z, WakeSet& wake_set) : Tables(z), zone(z), now(0), wakes(wake_set) {}
    Zone& zone;
    int64_t now;
    WakeSet& wakes;
};

// ---- small tools ------------------------------------------------------------------------------------------

uint64_t hash_bytes(std::string_view text);  // FNV-1a, mixed
uint32_t mix32(uint64_t value);              // splitmix64, upper half
inline uint32_t account_bucket(const Tables& t, const TokenHash& hash) {
    uint64_t word;
    std::memcpy(&word, hash.data(), sizeof word);
    return static_cast<uint32_t>((static_cast<unsigned __int128>(word) * t.header.plan.accounts) >> 64);
}
// Copies text into a NUL-terminated array, cut where it does not fit.
template <size_t N>
void copy_text(char (&to)[N], std::string_view from) {
    const size_t bytes = from.size() < N ? from.size() : N - 1;
    if (bytes != 0) {  // memcpy from null is undefined even for nothing
        std::memcpy(to, from.data(), bytes);
    }
    std::memset(to + bytes, 0, N - bytes);
}

// Takes an entry of a table: one that was given back, else the next that was never used. For has_slot() only.
// The new end is stored before anything that the caller stores into the entry.
template <class Entry>
uint32_t take_slot(Entry* table, uint32_t& given_back, uint32_t& end, uint32_t Entry::*next) {
    uint32_t i = given_back;
    if (i != kNone) {
        given_back = table[i].*next;
        return i;
    }
    i = end;
    std::atomic_ref<uint32_t>(end).store(i + 1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    return i;
}
inline bool has_slot(uint32_t given_back, uint32_t end, uint32_t size) {
    return given_back != kNone || end < size;
}

// Calls visit(engine index) for every registered engine of a model until it returns false.
template <class Visit>
void for_engines_of(const Tables& t, uint32_t model, Visit visit) {
    const uint64_t* words = t.engines_of(model);
    for (uint32_t i = 0; i * 64 < t.header.engine_end; ++i) {
        for (uint64_t word = words[i]; word != 0; word &= word - 1) {
            if (!visit(i * 64 + static_cast<uint32_t>(__builtin_ctzll(word)))) {
                return;
            }
        }
    }
}

// ---- requests.cpp: the table ------------------------------------------------------------------------------

// The live request of a ticket, or null when it is stale.
Request* find_request(const Tables& t, Ticket ticket);
inline uint32_t index_of(const Tables& t, const Request& r) {
    return static_cast<uint32_t>(&r - t.requests);
}
inline RequestState state_of(const Request& r) {
    return static_cast<RequestState>(r.state);
}
inline bool is_among(const uint32_t (&engines)[kTried], uint32_t engine) {
    for (uint32_t one : engines) {
        if (one == engine) {
            return true;
        }
    }
    return false;
}
// Whether it has failed on this engine, as far as it remembers.
inline bool was_tried(const Request& r, uint32_t engine) {
    return is_among(r.tried, engine);
}
// The transition: everything else about the request must be written already.
void set_state(Request& r, RequestState state);
// Counts of waiting requests: joins and leaves. Whoever has left belongs to a lasting pool.
void join_waiting(Core& c, Request& r);
void leave_waiting(Core& c, Request& r);
// The list of GRANTED requests, oldest grant first.
void link_grant(Core& c, Request& r);
void unlink_grant(Core& c, Request& r);
// A request that holds a lease, and that no list of GRANTED or count of RUNNING ones has any more, goes back into the
// queue of `pool`, to its place by arrival; charged nothing, and parked while its owner is suspended. Others, or it
// itself, get what became free.
void put_back(Core& c, Request& r, uint32_t pool);
// A GRANTED request goes back to where it was in its flow; charged nothing. Its owner's process is suspended
// when `suspend`. Others, or it itself, get what became free.
void return_grant(Core& c, Request& r, bool suspend);
// Ends a waiting request on somebody else's behalf; its owner hears of it by mail.
void end_waiting(Core& c, Request& r, Mail mail);
// Takes the request out of every list, frees its slot and its account's claim.
void free_request(Core& c, Request& r);

// ---- processes.cpp ----------------------------------------------------------------------------------------

void beat(Core& c, uint32_t process);  // a sign of life; runs what has to wait for one
void link_to_process(Core& c, Request& r);
void unlink_from_process(Core& c, Request& r);
void put_mail(Core& c, Request& r, Mail mail);
void take_mail(Core& c, Request& r);
// True when the request's owner may be given work now; a silent owner is suspended and its requests parked.
bool owner_is_awake(Core& c, const Request& r);
void suspend_process(Core& c, Process& p);
inline bool owner_matches(const Tables& t, const Request& r) {
    return r.process < kMaxProcesses && t.processes[r.process].used != 0 &&
           t.processes[r.process].epoch == r.process_epoch;
}

// ---- clients.cpp ------------------------------------------------------------------------------------------

// lookup_client for callers that hold the lock.
bool lookup_row_locked(Core& c, const TokenHash& hash, ClientView& out);
// Brings an account's rights up to date with the table; ends its queued requests when it is no longer valid.
void refresh_account(Core& c, uint32_t account, int64_t wall_s);
// Ends all queued and parked requests of the account.
void end_all_waiting(Core& c, uint32_t account, Mail mail);
bool view_is_valid(const ClientView& view, int64_t wall_s);

// ---- accounts.cpp -----------------------------------------------------------------------------------------

// The account of a client, made or revived on first use; its rights are set to the view's. kNone: no room.
uint32_t open_account(Core& c, const ClientView& client);
void claim_account(Core& c, uint32_t account);    // one more live request
void unclaim_account(Core& c, uint32_t account);  // one fewer
void set_rights(Core& c, Account& a, const ClientView& client);
// Makes sure that the sweep looks when the client expires, if some of its requests wait.
void expect_expiry(Core& c, const Account& a);
// The (client, domain) entry, made on first use, where the table is full in the place of one that nobody needs
// now. kNone: no room.
uint32_t open_standing(Core& c, uint32_t account, uint32_t domain);
void link_account(Core& c, uint32_t account);  // into its hash bucket
void link_idle(Core& c, uint32_t account);
void evict_account(Core& c, uint32_t account);
// Counts tokens in the sliding minute, now.
void count_window(Core& c, uint32_t account, int64_t tokens);
// Takes back up to `tokens` of those counted between two times, as far as they lie within the minute.
void take_from_window(Core& c, uint32_t account, int64_t from_us, int64_t to_us, int64_t tokens);
uint32_t window_tokens(Core& c, Account& a);
// Until the window has room again, microseconds.
int64_t window_wait_us(Core& c, Account& a);
inline bool held_back(const Account& a) {
    return a.held_running != 0 || a.held_tokens != 0;
}
// Brings held_running/held_tokens up to date; flows leave or rejoin their queues. True when some rejoined.
bool update_hold(Core& c, uint32_t account);
// The same, and runs the dispatcher for flows that rejoined.
void refresh_hold(Core& c, uint32_t account);
// The account that has gone unlooked at for longest of those whose tokens_per_minute is used up; kNone: there is none.
uint32_t next_held(Core& c);
// Within a run: may only hold back. Letting go is left to the next refresh_hold().
void tighten_hold(Core& c, uint32_t account);

// ---- models.cpp -------------------------------------------------------------------------------------------

uint32_t open_model(Core& c, std::string_view name);  // kNone: full
uint32_t find_model_locked(const Tables& t, std::string_view name);
uint32_t open_org(Core& c, std::string_view name);  // kNone: empty or full
uint32_t find_org(const Tables& t, std::string_view name);
uint32_t find_pool(Core& c, uint32_t model, uint32_t org);
uint32_t open_pool(Core& c, uint32_t model, uint32_t org);
// A temporary one, for requests that do not go to the engines `shunned` (as in Pool). kNone: no room.
uint32_t make_temporary_pool(Core& c, uint32_t model, uint32_t org, const uint32_t (&shunned)[kTried]);
// Ends a pool in which nobody waits any more.
void close_pool(Core& c, uint32_t pool);
// Registers or unregisters the engine with its models; recomputes the domains when the components changed.
void register_models(Core& c, uint32_t engine);
void unregister_models(Core& c, uint32_t engine);
void refresh_domains(Core& c);
void refresh_minimums(Core& c);
inline uint32_t domain_of(const Tables& t, const Pool& p) {
    return t.models[p.model].domain;
}

// ---- flows.cpp: queues ------------------------------------------------------------------------------------

int32_t class_of(const Tables& t, const Account& a, int32_t priority);
double weight_of(const Tables& t, const Account& a, int32_t priority);
// What an engine is told of a class: the background comes after every band.
inline int32_t engine_class_of(int32_t level_class) {
    return level_class == kBackground ? -kMaxBand - 1 : level_class;
}
// Puts a QUEUED request into its flow, sorted by seq. `lift` = apply the lift rule when the client becomes
// backlogged. False when tables are full.
bool enqueue(Core& c, Request& r, bool lift);
// Unlinks the flow of a request that is its head, to be linked again by dequeue(): its key changes only once.
void detach(Core& c, Request& r);
// A request that is served on arrival passes through the queue all the same: the lift rule applies before it
// is charged, and what it leaves behind counts after. Else those who used idle capacity would pay for it when
// others come.
void enter_for_a_moment(Core& c, const Request& r);
void leave_after_a_moment(Core& c, const Request& r);
// Takes it out again.
void dequeue(Core& c, Request& r);
// Adds to the virtual counter (negative: gives back) and moves the client's flows to their new places.
void add_vt(Core& c, uint32_t standing, double vt);
void put_in_queue(Core& c, uint32_t flow, bool lift);
// Whether a comes before b in the order of service of one class.
inline bool served_before(const Flow& a, const Flow& b) {
    return a.key_vt < b.key_vt || (a.key_vt == b.key_vt && a.key_seq < b.key_seq);
}
// The flows of a level in the order of service, `most` at most, and of those only the ones before flow
// `limit` (kNone: no limit). Returns how many. O(found + log flows), O(1) where there are none.
uint32_t first_flows(const Core& c, const Level& level, uint32_t* out, uint32_t most, uint32_t limit);
void take_from_queue(Core& c, uint32_t flow);
// Waiting requests of the account for this model (threshold scope `token`).
uint32_t waiting_of(const Tables& t, const Account& a, uint32_t model);

struct QueueRoom {
    uint32_t limit;      // requests that may wait: the threshold, or what the queue holds where there is none
    uint32_t remaining;  // of those, how many more now
};
// What a client with this threshold is told of the queue when `waiting` requests count against it.
QueueRoom queue_room(const Tables& t, int32_t threshold, uint32_t waiting);

// ---- charging (charge.cpp) --------------------------------------------------------------------------------

void charge_dispatch(Core& c, Request& r);
void charge_output(Core& c, Request& r, uint32_t completion_tokens);
void true_up(Core& c, Request& r, const Usage& usage);
void refund(Core& c, Request& r);
// `usage`: what its worker has seen, charged or not; empty where the worker is dead.
void settle_cancelled(Core& c, Request& r, const Usage& usage);

// ---- wait_again.cpp ---------------------------------------------------------------------------------------

// A RUNNING request whose attempt has failed (it is counted and remembered already) waits for an engine that it has
// not failed on, and runs what that makes possible. False, with nothing changed: there is none, or no time is left.
bool wait_again(Core& c, Request& r);
// Where a request waits, given what it has failed on. kNone: no room for such a pool.
uint32_t pool_to_wait_in(Core& c, const Request& r);
// Where it belongs while it does not wait: temporary pools go.
uint32_t lasting_pool(Core& c, uint32_t pool);
// The engine was started again, or has shown that it works: those who failed on it may go there. No dispatch run.
void forgive_engine(Core& c, uint32_t engine);

// ---- admission.cpp ----------------------------------------------------------------------------------------

void start_limit(Core& c, Engine& e);  // new engine, new boot, recovered breaker
void control(Core& c, Engine& e, const EngineReport& report, bool other_boot);
void control_stale(Core& c, Engine& e);     // from the sweep: silent engines, own measurement, recovery
void engine_saturated(Core& c, Engine& e);  // it answered 429/503
void measure_answer(Core& c, Engine& e, const Request& r, const Usage& usage);  // it has answered `r` as a whole
void clamp_limit(Core& c, Engine& e);
double minimum_of(const Tables& t, const Engine& e);

// ---- breaker.cpp ------------------------------------------------------------------------------------------

// Could be used were its breaker closed.
inline bool engine_is_placed(const Engine& e) {
    return e.used != 0 && e.leaving == 0 && e.drained == 0 && e.address.length != 0 &&
           e.state == static_cast<uint8_t>(EngineState::ready);
}
// Ready, breaker closed.
inline bool engine_usable(const Engine& e) {
    return engine_is_placed(e) && e.breaker == Breaker::closed;
}
void engine_failed(Core& c, Engine& e, uint32_t random);
// It has answered a request that was sent to it at `sent_us`: the probe, or one sent there before the breaker opened, either
// shows that it works. One sent as long after its last failure as a breaker rests first does so for those who have
// failed on it.
void engine_succeeded(Core& c, Engine& e, int64_t sent_us);
bool probe_due(const Core& c, const Engine& e);

// ---- dispatch.cpp -----------------------------------------------------------------------------------------

struct Room {
    bool open;  // may take a request now
    bool probe;
};
Room room_for(const Core& c, const Engine& e, int32_t level_class);
// Seats held for the limit, with one more: what engines are compared by.
inline double load_with_one_more(const Engine& e) {
    return (e.held + 1.0) / e.limit;
}
// Whether the pool's requests may go to engine `index`, usable or not.
inline bool pool_admits(const Pool& p, const Engine& e, uint32_t index) {
    return (p.org == kNone || e.org == p.org) && (p.temporary == 0 || !is_among(p.shunned, index));
}
// The same, and it is no backup that others stand in front of.
bool engine_serves(const Core& c, const Engine& e, const Pool& p);
// Calls visit(pool) for every pool with waiting requests that the engine serves.
template <class Visit>
void for_pools_of(const Core& c, uint32_t engine, Visit visit) {
    const Engine& e = c.engines[engine];
    for (uint32_t m = 0; m < e.model_count; ++m) {
        for (uint32_t i = c.models[e.models[m]].pools_head; i != kNone; i = c.pools[i].next) {
            const Pool& p = c.pools[i];
            if (p.levels_head != kNone && engine_serves(c, e, p)) {
                visit(p);
            }
        }
    }
}
struct Prompt {
    uint32_t tokens;  // estimate
    const PrefixKeys& keys;
};
inline Prompt prompt_of(const Tables& t, const Request& r) {
    return {r.prompt_tokens, t.request_prefixes[index_of(t, r)]};
}
// The best engine with room for a request of the pool; kNone when there is none.
uint32_t choose_engine(Core& c, const Pool& p, uint32_t prefer_org, int32_t level_class, const Prompt& prompt,
                       uint32_t random);
enum class Usable : uint8_t { none, loading, probe, yes };
Usable pool_usable(const Core& c, const Pool& p);
// Hands the request a lease. `immediate`: to its owner's own call (RUNNING), else through its mailbox
// (GRANTED).
void grant(Core& c, Request& r, uint32_t engine, bool immediate);
// Takes the lease away; says on which engine. No dispatch run. Does nothing when there is none.
uint32_t drop_lease(Core& c, Request& r);
// Moves the lease from one engine to another, as retry() does.
void take_lease(Core& c, Request& r, uint32_t engine);
void run_engine(Core& c, uint32_t engine);
void run_pool(Core& c, uint32_t pool);
void run_account(Core& c, uint32_t account);  // its flows have become eligible
// The engine can no longer be used: others (backups) may have to serve what waits for its models.
void run_models_of(Core& c, uint32_t engine);
void run_all(Core& c);
// After drop_lease(): lets others use what became free (the engine's place, the client's max_running).
void after_release(Core& c, uint32_t account, uint32_t engine);

// ---- window.cpp -------------------------------------------------------------------------------------------

// Under RoutingPolicy::prefix: the flow that goes next to `engine` instead of `first`, which is the one whose
// turn it is in its class; often `first` itself.
uint32_t choose_in_window(const Core& c, uint32_t engine, uint32_t first, int32_t level_class);

// ---- prefix_table.cpp -------------------------------------------------------------------------------------

// The engines that have computed the beginning of a prompt, and how much of it.
struct PrefixHits {
    static constexpr uint32_t kMost = 16;
    uint32_t count;
    uint32_t engines[kMost];
    double parts[kMost];  // 0..1 of the prompt

    // 0 where nothing is known.
    double part_on(uint32_t engine) const {
        for (uint32_t i = 0; i < count; ++i) {
            if (engines[i] == engine) {
                return parts[i];
            }
        }
        return 0;
    }
};
// Keys that requests for another model do not share, nor what engines keep of them.
PrefixKeys keys_for_model(const PrefixKeys& keys, uint32_t model);
// Those with the longest beginnings.
PrefixHits find_prefix(const Core& c, const PrefixKeys& keys);
// 0..1: how much of the prompt this one engine has.
double prefix_part(const Core& c, const PrefixKeys& keys, uint32_t engine);
// The engine is about to compute the prompt.
void remember_prefix(Core& c, const PrefixKeys& keys, uint32_t engine);

// ---- estimate.cpp -----------------------------------------------------------------------------------------

struct RetryHint {
    uint32_t retry_after_ms;
    bool should_retry;
    uint32_t reset_ms;
};
// When to come back to a model without a usable engine, which nobody knows: 3 to 7 s, spread by `random`.
int64_t wait_for_an_engine_us(uint32_t random);
void count_dispatch(Core& c, Pool& p);
// The request is about to give its seats back.
void learn_seat_time(Core& c, const Request& r);
// Dispatches per second lately.
double drain_rate_of(const Pool& p, int64_t now_us);
RetryHint retry_hint(Core& c, Pool& p, Account* a, Outcome reason, uint32_t random);
uint32_t position_of(const Tables& t, const Request& r);

// ---- engine_slots.cpp, engine_reports.cpp -----------------------------------------------------------------

void free_engine_if_idle(Core& c, uint32_t engine);
// Forgets engines whose key has been gone for too long; of one that is listed only its reports. Returns how
// many; `first_id` gets the first.
uint32_t lose_silent_engines(Core& c, char* first_id);

// ---- recover.cpp ------------------------------------------------------------------------------------------

// Rebuilds everything derived from the facts.
void rebuild(Core& c);
void rebuild(Zone& zone);

// ---- counters ---------------------------------------------------------------------------------------------

template <class T>
void bump(T& counter, T by = 1) {
    std::atomic_ref<T>(counter).fetch_add(by, std::memory_order_relaxed);
}
void observe(Histogram& h, const double* bounds, size_t count, int64_t us);
// The same value `times` times.
void observe_many(Histogram& h, const double* bounds, size_t count, int64_t us, uint64_t times);
ModelCounters& counters_of(const Tables& t, uint32_t model);
// A wait in the queue that has ended, in llm_queue_wait_seconds.
void observe_wait(const Tables& t, const Request& r, int64_t us);
uint32_t client_series(Core& c, const char* name);
void count_tokens(Core& c, const Request& r, uint64_t prompt, uint64_t completion);

}  // namespace llm::core
