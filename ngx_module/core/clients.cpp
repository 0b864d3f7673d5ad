// The token table: two generations, swapped by a bulk load; single rows change in place under the ZoneLock.
#include "ngx_module/core/clients.hpp"

#include <cmath>

#include "ngx_module/core/token_table.hpp"

namespace llm::core {
namespace {

constexpr int kReadTries = 64;

void fill_view(const Generation& g, const Row& row, uint32_t epoch, uint32_t version, ClientView& out) {
    out.hash = row.hash;
    out.epoch = epoch;
    out.version = version;
    out.priority = row.priority;
    out.weight = row.weight;
    out.band = row.band;
    out.threshold = row.threshold;
    out.max_running = row.max_running;
    out.tokens_per_minute = row.tokens_per_minute;
    out.expires_at = row.expires_at;
    out.disabled = (row.flags & kRowDisabled) != 0;
    out.chat = (row.flags & kRowChat) != 0;
    out.anonymous = false;
    out.default_mode = static_cast<RoutingMode>(row.flags >> kRowModeShift & 3);
    out.name[g.read_text(row.name, out.name, kMaxNameBytes)] = '\0';
    out.organisation[g.read_text(row.organisation, out.organisation, kMaxOrgBytes)] = '\0';
    out.models_bytes = g.read_text(row.models, out.models, kMaxModelListBytes);
    out.models[out.models_bytes] = '\0';
}

template <class T>
T clamp(T value, T low, T high) {
    return value < low ? low : value > high ? high : value;
}

// The shared form of a row, its text stored. `before`: the row that it replaces, or the one in front of it.
// False with the reason in `why`.
bool make_row(Generation& g, const ClientRow& row, const Row* before, bool replaced, Row& out, RowResult& why) {
    bool zero = true;
    for (uint8_t byte : row.hash) {
        zero = zero && byte == 0;
    }
    if (zero || row.models.size() > kMaxModelListBytes || row.organisation.size() > kMaxOrgBytes ||
        row.priority < 0) {
        why = RowResult::bad;
        return false;
    }
    out = Row{};
    out.hash = row.hash;
    out.row_id = row.row_id;
    out.expires_at = row.expires_at;
    out.weight =
        std::isfinite(row.weight) && row.weight > 0 ? static_cast<float>(clamp(row.weight, 1e-6, 1e9)) : 0;
    out.priority = static_cast<int16_t>(clamp(row.priority, 0, kMaxPriority));
    out.band = static_cast<int16_t>(clamp(row.band, -kMaxBand, kMaxBand));
    out.threshold = row.threshold < 0 ? 0 : row.threshold;
    out.max_running = row.max_running;
    out.tokens_per_minute = row.tokens_per_minute;
    out.flags = (row.disabled ? kRowDisabled : 0) | (row.chat ? kRowChat : 0) |
                static_cast<uint32_t>(row.default_mode) << kRowModeShift;
    // A row that is replaced mostly keeps its name: it can be revoked when there is no room for another text.
    out.name = g.intern(row.name.substr(0, kMaxNameBytes), replaced ? before->name : 0);
    out.organisation = g.intern(row.organisation, before != nullptr ? before->organisation : 0);
    out.models = g.intern(row.models, before != nullptr ? before->models : 0);
    if (out.name == kNone || out.organisation == kNone || out.models == kNone) {
        why = RowResult::full;
        return false;
    }
    return true;
}

// Adds or replaces; `replace` false = the first row of a hash stays.
RowResult put_row(Generation& g, const ClientRow& row, bool replace) {
    ClientTable& table = g.table;
    Row old;
    uint32_t slot = kNone;
    const uint32_t known = g.find(row.hash, old, &slot);
    if (known != kNone && !replace) {
        return RowResult::duplicate;
    }
    if (known == kNone && table.rows >= g.capacity) {
        return RowResult::full;
    }
    Row made;
    RowResult why = RowResult::added;
    const Row* before = known != kNone ? &old : table.rows != 0 ? &g.rows[table.rows - 1] : nullptr;
    if (!make_row(g, row, before, known != kNone, made, why)) {
        return why;
    }
    made.slot = known != kNone ? old.slot : slot;
    const uint32_t at = known != kNone ? known : table.rows;
    write_words(g.rows[at], made);
    LLM_LABEL();
    if (known == kNone) {
        std::atomic_ref<uint32_t>(table.rows).store(at + 1, std::memory_order_release);
        std::atomic_ref<uint32_t>(table.live).fetch_add(1, std::memory_order_relaxed);
        std::atomic_ref<uint32_t>(g.index[slot]).store(at, std::memory_order_release);
    }
    return RowResult::added;
}

uint32_t epoch_of(const Zone& zone) {
    return std::atomic_ref<uint32_t>(zone.header()->clients_epoch).load(std::memory_order_acquire);
}

// Marks the current table as changing in place for as long as it lives.
class InPlace {
  public:
    explicit InPlace(ClientTable& table) : version_(table.version) {
        version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    ~InPlace() { version_.store(version_.load(std::memory_order_relaxed) + 1, std::memory_order_release); }
    InPlace(const InPlace&) = delete;
    InPlace& operator=(const InPlace&) = delete;

  private:
    std::atomic_ref<uint32_t> version_;
};

// Same as the reader's side of the seqlock. Returns 1 found, 0 not found, -1 the table moved: try again.
int read_once(const Zone& zone, const TokenHash& hash, ClientView& out) {
    const uint32_t epoch = epoch_of(zone);
    const Generation g(zone, epoch & 1);
    std::atomic_ref<uint32_t> version(g.table.version);
    const uint32_t before = version.load(std::memory_order_acquire);
    if ((before & 1) != 0) {
        return -1;
    }
    Row row;
    const bool found = g.find(hash, row) != kNone;
    if (found) {
        fill_view(g, row, epoch, before, out);
    }
    return version.load(std::memory_order_relaxed) == before && epoch_of(zone) == epoch ? int{found} : -1;
}

// Whether a view of this client still says what the table says. A torn copy never passes: the version had
// moved on when it was made, and neither version nor epoch comes back.
bool is_current(const Zone& zone, const TokenHash& hash, const ClientView& view) {
    const uint32_t epoch = epoch_of(zone);
    const uint32_t version =
        std::atomic_ref<uint32_t>(zone.header()->tables[epoch & 1].version).load(std::memory_order_acquire);
    return view.epoch == epoch && view.version == version && (version & 1) == 0 &&
           equal_constant_time(view.hash, hash);
}

// After a change of rights of one client.
void apply_rights(Core& c, const TokenHash& hash, int64_t wall_s) {
    for (uint32_t i = c.account_buckets[account_bucket(c, hash)]; i != kNone; i = c.accounts[i].hash_next) {
        if (c.accounts[i].hash == hash) {
            refresh_account(c, i, wall_s);
            return;
        }
    }
}

}  // namespace

ClientView anonymous_client() {
    ClientView view;
    view.anonymous = true;
    view.models[0] = '\0';
    copy_text(view.name, "anonymous");
    return view;
}

bool view_is_valid(const ClientView& view, int64_t wall_s) {
    return view.anonymous || (!view.disabled && (view.expires_at == 0 || view.expires_at > wall_s));
}

Auth lookup_client(Zone& zone, const TokenHash& hash, int64_t now_us, int64_t wall_s, ClientView& out) {
    ZoneHeader& h = *zone.header();
    if (load32(h.open_access) != 0) {
        out = anonymous_client();
        return Auth::ok;
    }
    const bool loaded = std::atomic_ref<uint32_t>(h.ever_loaded).load(std::memory_order_acquire) != 0;
    if (!loaded) {
        return Auth::unavailable;
    }
    int found = is_current(zone, hash, out) ? 1 : -1;
    for (int i = 0; i < kReadTries && found < 0; ++i) {
        found = read_once(zone, hash, out);
    }
    if (found < 0) {
        // A writer was interrupted while it changed a row, or died there: wait for it, or clean up after it.
        ZoneLock lock(zone);
        WakeSet none;
        Core c(lock, now_us, none);
        found = lookup_row_locked(c, hash, out) ? 1 : 0;
    }
    const bool up = load32(h.source_up) != 0;
    const int64_t since = std::atomic_ref<int64_t>(h.source_up_us).load(std::memory_order_relaxed);
    const int64_t grace = std::atomic_ref<int64_t>(h.grace_us).load(std::memory_order_relaxed);
    if (!up && (found == 0 || now_us - since > grace)) {
        return Auth::unavailable;
    }
    return found != 0 && view_is_valid(out, wall_s) ? Auth::ok : Auth::unknown;
}

bool lookup_row_locked(Core& c, const TokenHash& hash, ClientView& out) {
    const uint32_t epoch = c.header.clients_epoch;
    const Generation g(c.zone, epoch & 1);
    Row row;
    if (g.find(hash, row) == kNone) {
        return false;
    }
    fill_view(g, row, epoch, g.table.version, out);
    return true;
}

bool client_may_use(const ClientView& client, std::string_view model) {
    std::string_view list(client.models, client.models_bytes);
    if (list.empty()) {
        return true;
    }
    while (!list.empty()) {
        const size_t comma = list.find(',');
        std::string_view entry = list.substr(0, comma);
        list = comma == std::string_view::npos ? std::string_view() : list.substr(comma + 1);
        while (!entry.empty() && entry.front() == ' ') {
            entry.remove_prefix(1);
        }
        while (!entry.empty() && entry.back() == ' ') {
            entry.remove_suffix(1);
        }
        if (entry == model) {
            return true;
        }
    }
    return false;
}

ClientLoad ClientLoad::begin(Zone& zone) {
    // Under the lock, here and for each row: of two loaders one may be in the middle of a row when the other
    // begins, and what it went on to write would lie in the other's table.
    const ZoneLock lock(zone);
    ClientLoad load;
    ZoneHeader& h = *zone.header();
    const uint64_t claim = std::atomic_ref<uint64_t>(h.clients_claim).fetch_add(1) + 1;
    load.zone_ = &zone;
    load.claim_ = claim;
    load.generation_ = ~epoch_of(zone) & 1;
    Generation g(zone, load.generation_);
    std::atomic_ref<uint32_t>(g.table.rows).store(0, std::memory_order_release);
    std::atomic_ref<uint32_t>(g.table.live).store(0, std::memory_order_relaxed);
    g.table.arena_used = 2;
    return load;
}

bool ClientLoad::current() const {
    return zone_ != nullptr && std::atomic_ref<uint64_t>(zone_->header()->clients_claim).load() == claim_ &&
           (~epoch_of(*zone_) & 1) == generation_;
}

RowResult ClientLoad::add(const ClientRow& row) {
    if (zone_ == nullptr) {
        return RowResult::lost;
    }
    const ZoneLock lock(*zone_);
    if (!current()) {
        return RowResult::lost;
    }
    Generation g(*zone_, generation_);
    const RowResult result = put_row(g, row, false);
    rows_ += result == RowResult::added ? 1 : 0;
    return result;
}

bool ClientLoad::commit(const ZoneLock& lock, int64_t now_us) {
    if (!current()) {
        return false;
    }
    ZoneHeader& h = *zone_->header();
    LLM_LABEL();
    std::atomic_ref<uint32_t>(h.clients_epoch).store(h.clients_epoch + 1, std::memory_order_release);
    LLM_LABEL();
    set_source_state(*zone_, true, now_us);
    std::atomic_ref<uint32_t>(h.ever_loaded).store(1, std::memory_order_release);
    h.refresh_cursor = 0;
    zone_ = nullptr;
    return true;
}

void refresh_account(Core& c, uint32_t account, int64_t wall_s) {
    Account& a = c.accounts[account];
    if (a.used == 0 || a.anonymous != 0) {
        return;
    }
    ClientView view;
    if (lookup_row_locked(c, a.hash, view) && view_is_valid(view, wall_s)) {
        set_rights(c, a, view);
        refresh_hold(c, account);
        return;
    }
    a.revoked = 1;
    end_all_waiting(c, account, Mail::revoked);
}

bool refresh_accounts(const ZoneLock& lock, uint32_t batch, int64_t now_us, int64_t wall_s, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    uint32_t& cursor = c.header.refresh_cursor;
    for (uint32_t i = 0; i < batch && cursor < c.header.account_end; ++i, ++cursor) {
        if (c.accounts[cursor].live != 0) {
            refresh_account(c, cursor, wall_s);
        }
    }
    if (cursor >= c.header.account_end) {
        cursor = kNone;
    }
    return cursor == kNone;
}

RowResult upsert_client(const ZoneLock& lock, const ClientRow& row, int64_t now_us, int64_t wall_s,
                        WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Generation g(lock.zone(), c.header.clients_epoch & 1);
    RowResult result;
    {
        InPlace changing(g.table);
        result = put_row(g, row, true);
    }
    if (result == RowResult::added) {
        apply_rights(c, row.hash, wall_s);
    }
    return result;
}

bool remove_client(const ZoneLock& lock, const TokenHash& hash, int64_t row_id, int64_t now_us, int64_t wall_s,
                   WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Generation g(lock.zone(), c.header.clients_epoch & 1);
    Row row;
    const uint32_t found = g.find(hash, row);
    if (found == kNone || row.row_id != row_id) {
        return false;
    }
    {
        InPlace changing(g.table);
        Row removed{};  // find() does not see it
        removed.slot = row.slot;
        removed.flags = kRowRemoved;
        write_words(g.rows[found], removed);
        std::atomic_ref<uint32_t>(g.table.live).fetch_sub(1, std::memory_order_relaxed);
    }
    apply_rights(c, hash, wall_s);
    return true;
}

bool has_client(const ZoneLock& lock, const TokenHash& hash) {
    Row row;
    return Generation(lock.zone(), epoch_of(lock.zone()) & 1).find(hash, row) != kNone;
}

void set_source_state(Zone& zone, bool up, int64_t now_us) {
    ZoneHeader& h = *zone.header();
    if (up) {
        std::atomic_ref<int64_t>(h.source_up_us).store(now_us, std::memory_order_relaxed);
    }
    // Who sees that it is down must see as well when it was up last.
    std::atomic_ref<uint32_t>(h.source_up).store(up ? 1 : 0, std::memory_order_release);
}

ClientTableView client_table(const Zone& zone) {
    const ZoneHeader& h = *zone.header();
    ClientTableView view;
    view.ever_loaded = load32(h.ever_loaded) != 0;
    view.source_up = load32(h.source_up) != 0;
    view.clients = view.ever_loaded ? load32(h.tables[epoch_of(zone) & 1].live) : 0;
    view.bad_rows = load64(h.bad_rows);
    view.skipped_rows = load64(h.skipped_rows);
    return view;
}

void count_bad_row(Zone& zone) {
    bump(zone.header()->bad_rows);
}

void set_skipped_rows(Zone& zone, uint64_t rows) {
    std::atomic_ref<uint64_t>(zone.header()->skipped_rows).store(rows, std::memory_order_relaxed);
}

}  // namespace llm::core
