// Clients: the token table, who may call, and with what rights.
//
// The table is double-buffered: a loader fills the inactive generation at leisure, commit swaps. Readers take
// no lock and never block. What a client *does* (virtual counters, running, waiting, token window) lives in
// accounts keyed by the same hash and survives swaps.
//
// Who calls what: sources/ loads (one loader process at a time, see begin_load); nginx/ looks up.
#pragma once

#include <cstdint>
#include <string_view>

#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

// One row as its source has it. Views need to live only during the call.
struct ClientRow {
    TokenHash hash{};
    int64_t row_id = 0;     // the source's primary key; lets a notification about a row find its token
    std::string_view name;  // ≤ kMaxNameBytes; cut at that length
    std::string_view organisation;  // ≤ kMaxOrgBytes
    std::string_view models;        // comma separated, blanks around commas ignored; empty = all
    int32_t priority = 0;           // 0..kMaxPriority
    double weight = 0;              // ≤ 0 or not finite = NULL: the priority is the weight
    int32_t band = 0;
    int32_t threshold = 0;           // < 0 counts as 0; kUnlimited never refuses
    uint32_t max_running = 0;        // seats at once; 0 = no limit
    uint32_t tokens_per_minute = 0;  // 0 = no limit
    int64_t expires_at = 0;          // seconds since 1970; 0 = never
    bool disabled = false;
    bool chat = false;  // client_type = 'chat' (llm_compat answers some refusals with 200)
    RoutingMode default_mode = RoutingMode::any;
};

// A client as the request path sees it: a private copy, valid as long as the caller keeps it.
struct ClientView {
    TokenHash hash{};
    uint32_t epoch = 0;    // of the table when it was copied; submit() looks again when it has moved
    uint32_t version = 1;  // likewise: grows with every row that is changed in place; odd = never copied
    int32_t priority = 1;
    float weight = 0;  // 0 = none given: the priority
    int32_t band = 0;
    int32_t threshold = kUnlimited;
    uint32_t max_running = 0;
    uint32_t tokens_per_minute = 0;
    int64_t expires_at = 0;
    bool disabled = false;
    bool chat = false;
    bool anonymous = false;  // open access
    RoutingMode default_mode = RoutingMode::any;
    char name[kMaxNameBytes + 1] = {};
    char organisation[kMaxOrgBytes + 1] = {};
    uint32_t models_bytes = 0;  // 0 = all models
    char models[kMaxModelListBytes + 1];
};

enum class Auth : uint8_t {
    ok,
    unknown,      // 401: no such token (or it expired, or is disabled: the client is not told which)
    unavailable,  // 503: clients were never loaded; or the source is down and the token unknown, or past
                  // `grace`
};

// Looks a token up. Takes no lock, unless a writer has died in the middle of a row; then the lock, to repair it. Its
// time tells nothing of the token: the whole probe sequence is walked, found or not, and hashes are compared in
// constant time. With Settings::open_access everybody is the anonymous client (hash of zeros, priority 1). Must not be
// called while holding the ZoneLock.
// `out` may be a view that an earlier call filled: if it is this client's and the table has not changed
// since, it is left as it is.
Auth lookup_client(Zone& zone, const TokenHash& hash, int64_t now_us, int64_t wall_s, ClientView& out);

// The anonymous client of open access, also used where another module satisfied authentication without a
// token.
ClientView anonymous_client();

// Whether `client` may use `model`. O(its list).
bool client_may_use(const ClientView& client, std::string_view model);

enum class RowResult : uint8_t {
    added,
    bad,        // hash of zeros, name or list too long: skip, log, count
    duplicate,  // this hash is in the table already; the first row stays
    full,       // more rows or text than the zone holds: abort the load
    lost,       // another loader has begun since: stop
};

// Loads a whole table: begin, then add() each row, then commit() or abort(). The zone's readers are not
// disturbed. Several processes may try; the latest begin wins and the others' add/commit answer `lost`/false.
// A loader that dies needs no cleaning up. begin() and add() take the zone's lock themselves, for one row: they
// must be called without it.
class ClientLoad {
  public:
    // Claims the inactive generation. O(1): what an earlier load left there is told apart row by row.
    static ClientLoad begin(Zone& zone);

    // Adds one row. O(1), O(text).
    RowResult add(const ClientRow& row);

    // Makes the new table the current one and records a good load at `now_us`. False when the load was lost.
    // Afterwards call refresh_accounts() until it says true: queued requests of clients that have gone end,
    // and changed rights take effect for those that stay.
    bool commit(const ZoneLock& lock, int64_t now_us);

    // Forgets what was added; the current table stays.
    void abort() { zone_ = nullptr; }

    uint32_t rows() const { return rows_; }

  private:
    bool current() const;

    Zone* zone_ = nullptr;
    uint64_t claim_ = 0;
    uint32_t generation_ = 0;
    uint32_t rows_ = 0;
};

// Walks up to `batch` accounts after a commit, upsert or removal: revokes the queued requests of clients that
// are gone, expired or disabled (their owners get Event::revoked) and applies changed rights. Returns true
// when the walk is complete. sweep() continues an unfinished walk as well.
bool refresh_accounts(const ZoneLock& lock, uint32_t batch, int64_t now_us, int64_t wall_s, WakeSet& wakes);

// Changes one row of the current table (LISTEN/NOTIFY). Takes effect at once for queued requests too.
RowResult upsert_client(const ZoneLock& lock, const ClientRow& row, int64_t now_us, int64_t wall_s,
                        WakeSet& wakes);
// Removes one row; queued requests end. False when there is none, or when the token has become another row's since.
bool remove_client(const ZoneLock& lock, const TokenHash& hash, int64_t row_id, int64_t now_us, int64_t wall_s,
                   WakeSet& wakes);

// Whether the current table has this token, of a client that is disabled or expired too. O(1).
bool has_client(const ZoneLock& lock, const TokenHash& hash);

// The source answered (true) or cannot be reached (false). Lock-free. A successful refresh counts as up.
void set_source_state(Zone& zone, bool up, int64_t now_us);

struct ClientTableView {
    bool ever_loaded = false;
    bool source_up = false;
    uint32_t clients = 0;
    uint64_t bad_rows = 0;      // counted by count_bad_row(): a row that stays bad counts with every load
    uint64_t skipped_rows = 0;  // of the last load
};
ClientTableView client_table(const Zone& zone);
void count_bad_row(Zone& zone);
void set_skipped_rows(Zone& zone, uint64_t rows);

}  // namespace llm::core
