// The dispatcher: who goes next, to which engine, and when. The one contract between the core and its
// callers.
//
// clang-format off
// Life of a request (the owner is the nginx worker that holds the client's connection)
//
//   state     call or event                           next state
//   (new)     submit(): an engine has room            RUNNING
//             submit(): none has                      QUEUED, or refused
//   QUEUED    somebody's call frees a place           GRANTED
//             time_out()                              (gone)
//   GRANTED   take_up()                               RUNNING
//             not taken up within kGrantLifeUs        QUEUED, at its old place
//   RUNNING   retry(): another engine                 RUNNING
//             retry(): all others are full            QUEUED, at its place by arrival
//             finish(), abandon()                     (gone)
//   QUEUED, GRANTED
//             revoked, aborted                        ENDED: drain_events() tells the owner, who calls cancel()
//
//   cancel() is allowed in every state, any number of times. Every call with a stale ticket answers "no such
//   request" and changes nothing.
//
// Who may call what
//
//   owner, for its requests      submit, take_up, served_as, cancel, time_out, set_queue_timeout, retry,
//                                response_head, charge, release_lease, finish, abandon, queue_position
//   owner, on a wake-up          drain_events; also by its heartbeat timer, as a safety net
//   every process, by timer      heartbeat and sweep, each at least every 250 ms (more often is harmless)
//   start and end of a process   attach_process, detach_process
//   any process                  list_processes, reap_process for those that have died
//   configuration                apply_settings, apply_static_engines (engines.hpp): every worker at its start
//   sources                      clients.hpp, engines.hpp, start_up.hpp
//   web                          snapshot.hpp, counters.hpp, history.hpp, drain_engine, abort_request, set_priority
// clang-format on
//
// Locks: a function that takes a ZoneLock needs it, one that takes a Zone must be called without it unless it
// says otherwise. After the lock is released, wake the process of every slot in `wakes`, the calling one included
// (a slot is added only when it is not already signalled; drain_events() clears that).
//
// Nothing here blocks, allocates, logs or reads a clock. Costs are O(log waiting) unless stated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "ngx_module/core/clients.hpp"
#include "ngx_module/core/counters.hpp"
#include "ngx_module/core/engines.hpp"
#include "ngx_module/core/history.hpp"
#include "ngx_module/core/snapshot.hpp"
#include "ngx_module/core/text/prefix_keys.hpp"
#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

constexpr int64_t kGrantLifeUs = 2'000'000;  // a grant not taken up by then returns to the head of its flow
constexpr int64_t kHeartbeatLifeUs = 1'000'000;  // an owner silent for longer gets no grants until it beats again

// ---- configuration ----------------------------------------------------------------------------------------

// Makes `settings` the zone's. Queued requests follow where that has a meaning: scheduler, aging, minimum
// throughput, routing. O(requests and standings ever used) when the scheduler changed; next to nothing when
// no setting did.
void apply_settings(const ZoneLock& lock, const Settings& settings, int64_t now_us, WakeSet& wakes);

// ---- processes --------------------------------------------------------------------------------------------

// Takes a process slot. `start_time` (field 22 of /proc/self/stat) tells a process from a later one with the same
// pid. kNone when all slots are taken.
uint32_t attach_process(const ZoneLock& lock, int32_t pid, uint64_t start_time, int64_t now_us);

// A sign of life. Lets grants flow again after a pause; parked requests rejoin the queue at their old place.
void heartbeat(const ZoneLock& lock, uint32_t process, int64_t now_us, WakeSet& wakes);

// Orderly end: whatever the process still owns is cancelled, the slot is free again.
void detach_process(const ZoneLock& lock, uint32_t process, int64_t now_us, WakeSet& wakes);

struct ProcessView {
    uint32_t slot = kNone;
    uint32_t epoch = 0;
    int32_t pid = 0;
    uint64_t start_time = 0;
    int64_t heartbeat_us = 0;
    uint32_t requests = 0;
};
// Copies up to `capacity` used slots. Lock-free. The caller finds out, outside the lock, which of them are
// dead (kill(pid, 0) == ESRCH, or another start time) and hands those to reap_process().
uint32_t list_processes(const Zone& zone, ProcessView* out, uint32_t capacity);

// Releases everything that the dead process `slot` owned: its queued requests leave, its leases return.
// Nothing happens when the slot's epoch is no longer `epoch`. Returns the number of leases released. O(its
// requests).
uint32_t reap_process(const ZoneLock& lock, uint32_t slot, uint32_t epoch, int64_t now_us, WakeSet& wakes);

// ---- requests ---------------------------------------------------------------------------------------------

struct RequestArgs {
    const ClientView* client = nullptr;
    std::string_view model;  // decoded; checked here: model_not_found
    RoutingMode mode = RoutingMode::any;
    int32_t client_priority = -1;    // from the body; < 0 = none. Never raises (Settings::client_priority)
    uint32_t seats = 1;              // n × number of prompts, ≥ 1
    uint32_t prompt_tokens = 0;      // estimate from text bytes without data: URIs
    uint32_t max_output_tokens = 0;  // 0 = not said
    const PrefixKeys* prefix = nullptr;  // for RoutingPolicy::prefix; none: as under `throughput`
    bool stream = false;
    bool observe = false;      // llm_observe: refuse and queue nothing, say what would have been
    bool exceeds = false;      // llm_compat aristote: scope `queue`, refused when depth *exceeds* threshold
    uint32_t process = kNone;  // the owner's slot; kNone (no slot was free): queue_full
    uint64_t cookie = 0;       // given back with every event
    int64_t queue_timeout_us = 60'000'000;  // the owner sets a timer for it, which calls time_out()
    uint32_t random = 0;                    // any 32 random bits: jitter, ties between engines
};

enum class Decision : uint8_t { granted, queued, rejected };

struct Verdict {
    Decision decision = Decision::rejected;
    Ticket ticket;                        // granted (already RUNNING, no take_up needed) or queued
    uint32_t engine = kNone;              // granted
    uint32_t model = kNone;               // index of the model, when known
    uint32_t position = 0;                // queued: 1 = next
    Outcome reason = Outcome::completed;  // rejected: a rejected_… value; the caller counts it
    Outcome would = Outcome::completed;   // observe: what would have been said (completed = nothing)
    bool would_queue = false;             // observe: it would have waited
    int32_t priority = 0;                 // effective
    int32_t engine_class = 0;             // the engine gets x-llm-priority: 100 − engine_class
    uint32_t retry_after_ms = 0;          // rejected with 429/503: 1000..60000, jittered
    bool should_retry = true;             // false: more than 60 s; send x-should-retry: false
    uint32_t limit_requests = 0;          // x-ratelimit-limit-requests: threshold, else what the queue holds
    uint32_t remaining_requests = 0;
    uint32_t reset_ms = 0;  // until one more request would be accepted
};

// Checks model_not_found, model_not_allowed, no_engine, limits and queue, in this order, then grants or
// queues.
Verdict submit(const ZoneLock& lock, const RequestArgs& args, int64_t now_us, int64_t wall_s, WakeSet& wakes);

// The owner starts a granted request. False when the grant has expired meanwhile (the request is QUEUED again
// and will be granted anew), or the ticket is stale. `engine` is set on success. True again for a RUNNING
// request.
bool take_up(const ZoneLock& lock, Ticket ticket, int64_t now_us, uint32_t& engine, WakeSet& wakes);

struct ServedAs {
    int32_t priority = 0;  // effective
    int32_t engine_class = 0;
    uint32_t attempts = 0;  // begun, this one included
};
// What a request that was just taken up is served as: rights, and an administrator, may have changed it since
// submit() said so. Zeros for a stale ticket.
ServedAs served_as(const ZoneLock& lock, Ticket ticket);

enum class Why : uint8_t {
    client_gone,  // the client closed: cancelled_queued / cancelled_running
    refused,      // the adapter gave up for a reason of its own, which it counts itself: no outcome is counted
};

// Ends a request in any state and releases what it holds; frees the ticket. Idempotent. False when stale.
bool cancel(const ZoneLock& lock, Ticket ticket, Why why, int64_t now_us, WakeSet& wakes);

struct Timeout {
    bool ended = false;  // false: stale, or no longer waiting (a grant won the race: carry on)
    bool stale = false;  // there is no such request
    uint32_t again_ms = 0;  // not yet, but after so long: its timer was early, or everything stood still meanwhile
    Outcome reason = Outcome::rejected_queue_timeout;  // or rejected_no_engine; the caller counts it
    uint32_t retry_after_ms = 0;
    bool should_retry = true;
    uint32_t limit_requests = 0;
    uint32_t remaining_requests = 0;
    uint32_t reset_ms = 0;
};
// The owner's queue timer fired. Ends a QUEUED request whose time is over; a GRANTED one is left alone.
Timeout time_out(const ZoneLock& lock, Ticket ticket, int64_t now_us, uint32_t random, WakeSet& wakes);

// Gives a QUEUED request another queue timeout, which counts from its arrival like the one before. Returns the µs
// that are left of it, 0 when it is over; -1 for a request that does not wait.
int64_t set_queue_timeout(const ZoneLock& lock, Ticket ticket, uint32_t timeout_ms, int64_t now_us);

enum class Failure : uint8_t {
    stale_connection,  // a reused idle connection died at once: same engine again, counted as no failure
    connect,           // refused, timed out, no route
    reset,             // closed or reset before the response head
    garbage,           // no HTTP before the response head
    status_429,
    status_503,
    status_5xx,  // 500, 502, 504
    status_4xx,  // 403, 404: the engine is well, but will not have this request
};
// What becomes of a request that an engine has lost when every other engine is full.
enum class WhenFull : uint8_t { fail, wait };
enum class RetryAction : uint8_t {
    again,  // send it to `engine` (a lease is held on it)
    pass,   // nothing left; hand the engine's own 429/503 on unchanged, then finish() as usual
    fail,   // nothing left: 502 engine_error, then finish(Outcome::engine_error)
    wait,   // every other engine is full: it is QUEUED again, and an event will tell of its grant
};
struct RetryAnswer {
    RetryAction action = RetryAction::fail;
    uint32_t engine = kNone;
    uint32_t attempts = 0;  // attempts begun so far, this one included
    uint32_t wait_ms = 0;   // wait: what is left of the time that it may wait; then time_out() is due
};
// A RUNNING request failed before its response head. Does the breaker's and the limit's bookkeeping for the
// failed engine and moves the lease: another engine with room, else one seat over the limit of another
// engine, else the same one after 429/503. Where the engine has neither answered nor refused (connect, reset,
// garbage, status_5xx) and others are usable but full, it does what `full` says. `retries` is llm_retries. With a stale
// ticket: fail.
RetryAnswer retry(const ZoneLock& lock, Ticket ticket, Failure cause, uint32_t retries, WhenFull full,
                  int64_t now_us, uint32_t random, WakeSet& wakes);

// The response head arrived. `status` feeds the breaker: 500, 502 and 504 count as failures, 429 and 503 lower the
// limit, everything else is a success. Not for a head that retry() was told of. Idempotent.
void response_head(const ZoneLock& lock, Ticket ticket, uint32_t status, int64_t now_us, uint32_t random,
                   WakeSet& wakes);

// Completion tokens seen so far in a stream (cumulative). Call in batches: each 16 tokens or 200 ms. The
// first call with tokens > 0 records time to first token; later ones the time between tokens. `blocked` = the
// client does not read (back-pressure): the interval is left out of the engine's measured speed.
void charge(const ZoneLock& lock, Ticket ticket, uint32_t completion_tokens, bool blocked, int64_t now_us,
            WakeSet& wakes);

struct Usage {
    uint32_t prompt_tokens = 0;
    uint32_t cached_tokens = 0;  // part of prompt_tokens served from the engine's prefix cache
    uint32_t completion_tokens = 0;
    bool exact = false;  // from the engine's `usage`; false: counted or estimated by the gateway
    uint32_t streamed_tokens = 0;  // seen in the stream, charge()d or not
    int64_t last_token_us = 0;     // when the last of them was
};

// What a finished request was, for usage records and log variables.
struct RequestSummary {
    bool valid = false;
    uint32_t engine = kNone;
    uint32_t model = kNone;
    int32_t priority = 0;
    uint32_t attempts = 0;
    int64_t arrived_us = 0;
    int64_t dispatched_us = 0;   // the last grant out of the queue; 0 = never
    int64_t first_token_us = 0;  // 0 = none seen
    int64_t ended_us = 0;
    Usage usage;
};

// Ends a RUNNING request: releases the lease (once, whatever happens later), trues up the charge, counts the
// outcome (completed, engine_error, timeout, or the cancelled_running of a client that left) and runs the
// dispatcher. A request that failed before its first byte is refunded in full. Idempotent; stale: invalid
// summary.
RequestSummary finish(const ZoneLock& lock, Ticket ticket, Outcome outcome, const Usage& usage,
                      int64_t now_us, WakeSet& wakes);

// As finish(), of a request that nginx sends to another location after its answer or failure: counts no outcome
// and no duration, because the location that answers in the end does.
void abandon(const ZoneLock& lock, Ticket ticket, Outcome outcome, const Usage& usage, int64_t now_us,
             WakeSet& wakes);

// Gives the lease back early, when the engine has sent everything but the client still reads.
// The request stays RUNNING for finish(), which then releases nothing more. Idempotent.
void release_lease(const ZoneLock& lock, Ticket ticket, int64_t now_us, WakeSet& wakes);

// Place in the queue, 1 = next; 0 = not waiting. FIFO estimate within the class. O(classes).
uint32_t queue_position(const ZoneLock& lock, Ticket ticket);

// ---- events -----------------------------------------------------------------------------------------------

enum class EventKind : uint8_t {
    granted,  // take_up() it within kGrantLifeUs
    revoked,  // its client is no longer valid: cancel() it as refused, answer 401 and count it
    aborted,  // an administrator ended it: answer 503 (queued: as before; running: call finish())
};
struct Event {
    EventKind kind = EventKind::granted;
    Ticket ticket;
    uint64_t cookie = 0;
    uint32_t engine = kNone;  // granted
    uint32_t wait_ms = 0;     // time spent in the queue
};
// Takes up to `capacity` events of the process; 0 = none left. Clears `signalled`, so call it until it
// answers less than `capacity`.
uint32_t drain_events(const ZoneLock& lock, uint32_t process, Event* out, uint32_t capacity, int64_t now_us);

// ---- periodic ---------------------------------------------------------------------------------------------

struct SweepResult {
    uint32_t expired_grants = 0;
    uint32_t lost_engines = 0;  // log them: `lost` holds the first id
    char lost[kMaxEngineIdBytes + 1] = {};
};
// Everything that happens by the mere passing of time: expired grants, silent owners, stale reports,
// half-open breakers, expired clients, lost engines, aged requests, and as a safety net one run of
// the dispatcher. O(processes + engines + a bounded batch of accounts).
SweepResult sweep(const ZoneLock& lock, int64_t now_us, int64_t wall_s, uint32_t random, WakeSet& wakes);

// ---- administration ---------------------------------------------------------------------------------------

// Ends a request from outside (DELETE requests/{id}): its owner gets Event::aborted. False when stale.
bool abort_request(const ZoneLock& lock, Ticket ticket, int64_t now_us, WakeSet& wakes);

// Gives a queued request another priority (PATCH requests/{id}), up or down, 0..kMaxPriority. False when it
// does not wait.
bool set_priority(const ZoneLock& lock, Ticket ticket, int32_t priority, int64_t now_us, WakeSet& wakes);

}  // namespace llm::core
