// What lies in shared memory. Plain structs addressed by index; no pointer is ever stored here.
//
// Two kinds of members. *Facts* survive a crash: they are written before the one store that makes them count
// (a request's `state`, an entry's `used`). *Derived* members (lists, trees, counts) are rebuilt from the
// facts by recover.cpp whenever the lock is found dirty, so they may be torn at any store. Each struct says
// which are which.
#pragma once

#include <cstdint>
#include <type_traits>

#include "ngx_module/core/counters.hpp"
#include "ngx_module/core/engines.hpp"
#include "ngx_module/core/history.hpp"
#include "ngx_module/core/snapshot.hpp"
#include "ngx_module/core/text/prefix_keys.hpp"
#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

constexpr uint64_t kMagic = 0x31656e6f7a6d6c6cull;  // "llmzone1"

constexpr int64_t kWindowBuckets = 31;  // tokens_per_minute: 30 buckets of 2 s and the one being filled
constexpr int64_t kWindowBucketUs = 2'000'000;
constexpr uint32_t kClassSlots = 16;  // classes counted apart on one engine; further ones share the last slot
constexpr uint32_t kRememberedClasses = 16;  // classes whose vlast a domain remembers
constexpr uint32_t kTried = 4;               // engines a request remembers having failed on
// However large the zone. What works on all of either at once has room for so many.
constexpr uint32_t kMaxZoneEngines = 4096;
constexpr uint32_t kMaxZoneModels = 2048;
constexpr uint32_t kPoolsPerModel = 4;  // places for them: one for anybody, one for each organisation that asks, temporary ones
constexpr int32_t kBackground = -(1 << 30);  // class of priority 0 in `weighted`: after everything else

struct Process {
    // facts
    uint32_t used;
    uint32_t epoch;  // grows with each attach; an entry counts only while its own copy agrees
    int32_t pid;
    uint32_t suspended;  // an expired grant or a stale heartbeat: no grants until it beats
    uint64_t start_time;
    int64_t heartbeat_us;
    // derived
    uint32_t requests_head;
    uint32_t requests;
    uint32_t mail_head;
    uint32_t mail_tail;
    uint32_t signalled;  // a wake is under way; cleared by drain_events()
    uint32_t reserved;
};
static_assert(sizeof(Process) == 56);

// Why a request sits in its owner's mailbox.
enum class Mail : uint8_t { none, granted, revoked, aborted };

struct alignas(64) Request {
    // facts
    uint32_t state;  // RequestState; every transition is one store of it, made last
    uint32_t generation;
    uint64_t seq;  // order of arrival; kept when it returns to its flow
    uint64_t cookie;
    uint32_t process;
    uint32_t process_epoch;
    uint32_t account;
    uint32_t pool;
    uint32_t model;
    int32_t priority;  // effective
    uint32_t seats;
    uint32_t prompt_tokens;  // estimate, corrected by usage
    uint32_t standing;       // derived
    uint32_t flow;           // derived; kNone while not in one

    // derived: links
    uint32_t flow_next;
    uint32_t flow_prev;
    uint32_t process_next;
    uint32_t process_prev;
    uint32_t mail_next;
    uint32_t mail_prev;
    // facts: the lease
    uint32_t engine;      // meaningful while `lease` or GRANTED/RUNNING
    uint32_t prefer_org;  // private-first: try engines of this organisation before others; kNone = none
    int64_t arrived_us;
    int64_t queued_us;  // arrival, later by the time that engines had it which it failed on
    int64_t deadline_us;
    int64_t granted_us;     // this attempt
    int64_t dispatched_us;  // the grant that ended its time in the queue, the last where it waited again; 0 = none

    // facts: charging (docs/scheduler.md, "Cost"). Cost is in prompt-token units, vt = cost / weight.
    double charged_cost;  // all that was charged so far
    double charged_vt;    // the same as it was added to vt, so that a changed weight cannot corrupt a refund
    double precharge_left;  // cost of output charged ahead and not yet consumed by streamed tokens
    int64_t head_us;        // response head; 0 = none yet
    int64_t first_token_us;
    int64_t last_token_us;  // of an answer in one piece: when its engine had sent all of it
    uint32_t completion_tokens;
    uint32_t predicted;

    // facts
    uint32_t tried[kTried];
    uint32_t attempts;       // begun
    uint32_t failed;         // of those, over
    uint32_t window_prompt;  // what tokens_per_minute has counted for it, when it was dispatched
    uint32_t window_completion;  // and since
    uint32_t arrival_no;     // derived: its number within its level, for queue_position()
    int32_t level_class;     // class under which it holds its lease
    uint32_t timeout_ms;     // the whole time that it may wait, of which the end is deadline_us
    uint32_t waited_ms;      // of that time, gone by until it ran
    uint8_t class_slot;      // derived: slot of Engine::by_class
    uint8_t lease;           // holds seats
    uint8_t stream;
    uint8_t parked;  // derived: its owner is suspended, it is in no flow
    Mail mail;
    uint8_t mailed;  // derived: is linked in a mailbox
    uint8_t probe;   // the one request let through to a half-open breaker
    uint8_t anonymous;
    uint8_t low;  // its client lowered its priority
    uint8_t reserved_bytes[7];
};
static_assert(sizeof(Request) == 256);

struct Account {
    // facts
    uint32_t used;
    int32_t priority;  // rights as of the last refresh
    TokenHash hash;
    char name[kMaxNameBytes + 1];
    int64_t expires_at;
    float weight;  // > 0: effective weight of the client at its own priority
    int32_t band;
    int32_t threshold;
    uint32_t max_running;
    uint32_t tokens_per_minute;
    uint32_t series;  // of llm_client_tokens_total
    float predicted;  // mean completion tokens of its requests; 0 = none yet
    uint8_t revoked;  // no longer a client; its running requests may finish
    uint8_t anonymous;
    uint8_t reserved_bytes[2];
    uint64_t prompt_tokens;
    uint64_t completion_tokens;
    int64_t promised_us;  // as Pool::promised_us, of refusals by its own limits
    int64_t window_at;  // number of the bucket being filled
    uint32_t window[kWindowBuckets];
    uint32_t window_sum;
    // derived
    uint32_t running;  // seats granted or running
    uint32_t waiting;  // requests queued
    uint32_t live;     // requests in any state
    uint32_t hash_next;
    uint32_t standings_head;
    uint32_t idle_prev;  // LRU list of accounts without live requests
    uint32_t idle_next;
    uint32_t held_prev;  // list of accounts held back by tokens_per_minute
    uint32_t held_next;
    uint8_t held_running;  // at max_running
    uint8_t held_tokens;   // tokens_per_minute used up
    uint8_t idle;          // is linked in the LRU list
    uint8_t reserved_byte;
};
static_assert(sizeof(Account) == 344);

// "This engine has computed this beginning of a prompt": one word, so that it is never torn, and no more than
// a hint (prefix_table.cpp). 0 = unused.
struct PrefixEntry {
    uint64_t word;  // key, engine, time
};
constexpr uint32_t kPrefixWays = 8;  // entries that a key may stand in
struct alignas(64) PrefixSet {
    PrefixEntry ways[kPrefixWays];
};

// (client, domain): the virtual counter.
struct Standing {
    // facts
    uint32_t used;
    uint32_t account;
    uint32_t domain;
    double vt;
    // derived
    uint32_t next;  // of the account
    uint32_t flows_head;
    uint32_t backlogged;  // its flows that stand in a queue (not held back)
    uint32_t in_use;      // scratch of reclaim_standings()
};
static_assert(sizeof(Standing) == 40);

// Whether a flow is linked in its level's trees.
enum class Place : uint8_t {
    out,       // held back
    in,        // linked, the client counts as backlogged
    detached,  // counts as backlogged but is not linked while its head changes (detach, dequeue)
    moving,    // likewise while its counter changes (add_vt)
};

// (client, pool, effective priority). All derived. One cache line: the trees are walked through these.
struct alignas(64) Flow {
    double key_vt;  // keys under which it is linked
    uint64_t key_seq;
    uint32_t order_left;
    uint32_t order_right;
    uint32_t age_left;
    uint32_t age_right;
    uint32_t standing;
    uint32_t level;
    uint32_t head;
    uint32_t tail;
    uint32_t count;
    uint32_t next;  // of the standing
    uint32_t prev;
    int16_t priority;
    uint8_t used;
    Place place;
};
static_assert(sizeof(Flow) == 64 && kMaxPriority < 0x7fff);

// (pool, class): one queue, ordered twice: by (vt, seq) for service and by seq for aging. All derived.
struct Level {
    uint32_t used;
    uint32_t pool;
    int32_t level_class;
    uint32_t next;  // of the pool, next lower class
    uint32_t order_root;
    uint32_t order_min;
    uint32_t age_root;
    uint32_t age_min;
    uint32_t flows;    // all flows of the level, held back or not
    uint32_t waiting;  // requests in them
    uint32_t arrived;  // running number of arrivals, for queue_position()
    uint32_t domain;
    uint32_t domain_next;  // all levels of the domain
    uint32_t domain_prev;
};
static_assert(sizeof(Level) == 56);

struct Pool {
    // facts
    uint32_t used;
    uint32_t model;
    uint32_t org;              // kNone = any engine of the model
    uint32_t shunned[kTried];  // of a temporary one: engines its requests have failed on; ascending, then kNone
    double drain_rate;  // dispatches per second, exponentially smoothed; valid at drain_us
    int64_t drain_us;
    int64_t promised_us;  // end of the retries promised by Retry-After
    uint32_t temporary;   // 1 = for requests that wait again: goes with the last of them
    // derived
    uint32_t next;  // of the model
    uint32_t levels_head;
    uint32_t waiting;
};
static_assert(sizeof(Pool) == 72);

struct RememberedClass {
    int32_t level_class;
    uint32_t stamp;  // 0 = unused; the smallest is replaced
    double vlast;    // largest vt that left the backlog
};

struct Domain {
    // facts
    uint32_t used;
    uint32_t since_aged;  // dispatches since one passed a stricter class
    RememberedClass classes[kRememberedClasses];
    // derived
    uint32_t levels_head;
    uint32_t reserved;
};

struct Histogram {
    uint64_t buckets[kMaxBuckets];
    uint64_t sum_us;
};

// Counters of one model; entry 0 is model="". Written with relaxed atomics.
struct ModelCounters {
    uint64_t outcomes[kOutcomes];
    uint64_t prompt_tokens;
    uint64_t completion_tokens;
    uint64_t cached_tokens;  // of prompt_tokens
    Histogram wait[kWaitPriorities];
    Histogram first_token;
    Histogram inter_token;
    Histogram duration;
};

struct Model {
    // facts; immutable once `used`, so that find_model() needs no lock
    uint32_t used;
    uint32_t name_bytes;
    uint64_t name_hash;
    uint32_t hash_next;
    uint32_t domain;
    int64_t created_us;
    float predicted;  // mean completion tokens; 0 = none yet
    float seat_s;     // mean seat-seconds of its requests; 0 = none has ended yet
    double minimum;  // llm_min_throughput for this model
    char name[kMaxModelBytes + 1];
    // derived
    uint32_t engines;  // registered
    uint32_t waiting;
    uint32_t held;  // seats
    uint32_t pools_head;
};

struct Org {
    uint32_t used;
    uint32_t bytes;
    uint64_t hash;
    char name[kMaxOrgBytes + 1];
};

struct ClassHeld {
    int32_t level_class;
    uint32_t held;
};

// What the choice of an engine reads of each stands first, in one cache line.
struct alignas(64) Engine {
    // facts: identity
    uint32_t used;
    uint32_t generation;
    uint8_t is_static;      // an llm_engine line
    uint8_t announced;      // has sent reports
    uint8_t state;          // EngineState
    uint8_t static_listed;  // still in the configuration (scratch of apply_static_engines)
    uint8_t backup;
    uint8_t drained;
    uint8_t leaving;
    uint8_t tls;
    uint8_t preempts;
    uint8_t slow_start;
    uint8_t below_minimum;
    uint8_t has_baseline;  // counters of a report of this boot are stored
    uint8_t stale_hold;    // L was cut to 0.8 once because nothing measures the engine any more
    Breaker breaker;
    uint8_t probe_out;     // derived
    uint8_t slow_reports;  // reports that spoke against more growth in slow start
    uint8_t org_listed;    // `org` comes from the configuration
    uint32_t max_running;
    uint32_t held;     // derived
    uint32_t foreign;  // seats that others have taken, as it reports
    double limit;      // L (admission.cpp)
    double kv_usage;
    EngineAddress address;

    uint32_t org;
    uint32_t config_max_running;  // of the llm_engine line; 0 = not said
    uint32_t model_count;
    uint32_t static_model_count;  // the first ones come from the configuration
    uint32_t models[kMaxEngineModels];
    char id[kMaxEngineIdBytes + 1];
    char url[kMaxEngineUrlBytes + 1];
    char host[kMaxEngineHostBytes + 1];
    char key[kMaxEngineKeyBytes + 1];
    uint64_t listed_place;   // hash of the place that the configuration gave it; 0 = it is not listed
    uint32_t place_version;  // grows whenever what engine_target() copies as text, or the address, may change

    // facts: reports
    uint64_t boot;
    uint64_t seq;
    int64_t report_us;  // last newer report; 0 = never
    int64_t seen_us;    // last sign of the key's existence
    int64_t ttl_us;
    uint64_t refused_boot;  // of the last report that was older than the one we have
    uint64_t refused_seq;
    int64_t refused_us;
    int64_t success_us;  // last request that succeeded
    double uptime_s;
    double decode_tokens;
    double user_seconds;
    double completed;
    double tokens_per_second;
    double tokens_per_second_per_user;
    uint32_t reported_running;
    uint32_t reported_waiting;
    uint32_t own_answers;  // since own_us: complete, with a prompt and too few tokens to tell a speed (embeddings)

    // facts: admission law (admission.cpp)
    double et;  // decoded tokens per second, filtered
    double eu;  // users, filtered
    double slow_user_seconds;
    double own_tokens;  // the gateway's own measurement since own_us: of streams
    double own_user_seconds;
    double whole_tokens;  // of answers that came in one piece: a lower bound, the prompt is in the time
    double whole_user_seconds;
    int64_t whole_us;  // when they last were the measure; 0 = never
    int64_t own_us;
    int64_t recover_us;  // last step back towards max_running without a minimum

    // facts: breaker
    int64_t open_until_us;
    int64_t closed_us;  // when it last closed
    int64_t failed_us;  // the last failure that nothing has made good yet; 0 = none
    uint32_t failures_in_row;
    uint32_t backoff;  // n of 5 s·2^n
    uint64_t served;
    uint64_t failures;

    // derived
    uint32_t held_high;  // largest since the last report: what that report may still have seen
    ClassHeld by_class[kClassSlots];
};
static_assert(offsetof(Engine, address) + offsetof(EngineAddress, length) + sizeof(EngineAddress::length) <=
              64);

// One row of the token table. It says where in the index it stands: an entry of the index counts only while
// the row that it names exists and names it back. So a load can begin on whatever an earlier one left there.
struct Row {
    TokenHash hash;
    int64_t row_id;
    int64_t expires_at;
    uint32_t name;  // offsets into the arena: two bytes of length, then the text; 0 = empty
    uint32_t organisation;
    uint32_t models;
    float weight;
    int16_t priority;
    int16_t band;
    uint32_t slot;  // its entry of the index
    int32_t threshold;
    uint32_t max_running;
    uint32_t tokens_per_minute;
    uint32_t flags;  // kRowDisabled …
};
static_assert(sizeof(Row) == 88 && kMaxPriority <= 0x7fff && kMaxBand <= 0x7fff);
constexpr uint32_t kRowDisabled = 1;
constexpr uint32_t kRowChat = 2;
constexpr uint32_t kRowRemoved = 4;  // keeps its entry of the index: other rows were put behind it
constexpr uint32_t kRowModeShift = 8;

// One generation of the token table.
struct ClientTable {
    uint32_t version;  // odd while a row is changed in place; readers retry
    uint32_t rows;
    uint32_t live;
    uint32_t arena_used;
};

struct ClientSeries {
    uint32_t name_hash;
    char name[kMaxNameBytes + 1];
    TokenTotals tokens;
};

enum SettingsPending : uint32_t { kNothingPending = 0, kSettingsPending = 1, kReorderPending = 2 };

// Where each array starts, bytes from the header.
struct Offsets {
    uint64_t processes, requests, accounts, account_buckets, standings, flows, levels, pools, domains, models;
    uint64_t model_buckets, orgs, engines, model_counters, scratch, model_engines, request_prefixes, prefixes;
    uint64_t index[2], rows[2], arena[2];
    uint64_t end;
};

struct alignas(64) ZoneHeader {
    // facts
    uint64_t magic;
    uint32_t layout;
    uint32_t header_bytes;
    ZonePlan plan;
    Offsets offset;
    uint32_t dirty;          // somebody is inside the lock (or died there)
    uint32_t clients_epoch;  // lowest bit: the current generation of the token table
    uint64_t clients_claim;  // newest loader
    ClientTable tables[2];
    uint32_t ever_loaded;
    uint32_t source_up;
    int64_t source_up_us;
    uint64_t bad_rows;
    uint64_t skipped_rows;
    uint64_t next_seq;
    uint32_t model_count;
    uint32_t org_count;
    uint32_t client_series;
    uint32_t redis_up;
    int64_t redis_up_us;
    int64_t swept_us;          // the last sweep, at first the first process's start; 0 = neither yet
    int64_t awaited_until_us;  // start_up.hpp
    uint32_t awaited_sources;
    uint32_t round_robin;
    uint32_t class_stamp;
    // Nothing was ever at or behind these indexes: what walks a table ends there. Each is written before the
    // first use of the entry that it lets in.
    uint32_t engine_end, process_end, request_end, account_end, standing_end, pool_end, domain_end;
    uint64_t engines_version;   // grows when an engine comes, goes or changes its name (EngineMemo)
    uint32_t settings_pending;  // SettingsPending: their consequences have not all been drawn yet
    Settings settings;
    int64_t grace_us;      // of `settings`, for readers without the lock
    uint32_t open_access;  // likewise
    uint32_t pools_reclaimed;  // 1 = idle pools were looked for since the last sweep

    // derived
    uint32_t free_requests, free_accounts, free_standings, free_flows, free_levels;  // given back
    uint32_t flow_end, level_end;     // entries from here on are free too
    uint32_t idle_head, idle_tail;    // LRU of idle accounts
    uint32_t grant_head, grant_tail;  // GRANTED requests, oldest grant first (linked by flow_next/flow_prev)
    uint32_t held_head, held_tail;    // accounts held back by tokens_per_minute, the next to be looked at first
    uint32_t queued, granted, running, held;
    uint32_t refresh_cursor;  // next account of an unfinished refresh; kNone = finished
    int64_t next_expiry_s;    // wall clock; nobody who waits expires before. 0 = nobody who waits expires
    uint32_t run_pending;  // a rebuild happened: run the dispatcher everywhere at the next chance

    // counters
    ZoneCounters counters;
    Histogram dispatch;
    ClientSeries series[kClientSeries + 1];

    // history.hpp: a ring of samples, and what the counters said when the last one was taken
    int64_t history_us;  // 0 = counting has not begun
    uint64_t history_count;
    HistoryTotals history_totals;
    HistorySample history[kHistorySamples];
};

// Nothing here may need a constructor: the zone is mapped by processes that did not make it.
template <class T>
constexpr bool kShareable = std::is_standard_layout_v<T>&& std::is_trivially_copyable_v<T>;
static_assert(kShareable<Process> && kShareable<Request> && kShareable<Account> && kShareable<Standing>);
static_assert(kShareable<Flow> && kShareable<Level> && kShareable<Pool> && kShareable<Domain>);
static_assert(kShareable<PrefixKeys> && kShareable<PrefixSet>);
static_assert(kShareable<HistoryTotals> && kShareable<HistorySample>);
static_assert(kShareable<Model> && kShareable<Engine> && kShareable<Row> && kShareable<ZoneHeader>);

}  // namespace llm::core
