#include "ngx_module/core/zone.hpp"

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr size_t kAlign = 64;
constexpr uint32_t kMinRequests = 64;
constexpr uint32_t kMinClients = 256;
constexpr uint32_t kMaxRows = 1u << 28;
constexpr size_t kArenaPerClient = 44;  // bytes: a name of 30 and some; lists and organisations are often shared

constexpr size_t align_up(size_t bytes) {
    return (bytes + kAlign - 1) / kAlign * kAlign;
}

// Bytes per client, both generations: row, two index entries, text.
constexpr size_t kClientBytes = 2 * (sizeof(Row) + 2 * sizeof(uint32_t) + kArenaPerClient);
static_assert(kClientBytes <= 2 * 150);

// Bytes per request with all that one request can need: an account and its bucket, two standings, a flow, a
// level, the keys of its prompt, a word of scratch.
constexpr size_t kRequestBytes = sizeof(Request) + sizeof(Account) + sizeof(uint32_t) + 2 * sizeof(Standing) +
                                 sizeof(Flow) + sizeof(Level) + sizeof(PrefixKeys) + sizeof(uint32_t);

template <class T>
constexpr T clamp(T value, T low, T high) {
    return value < low ? low : value > high ? high : value;
}

// Carves the arrays in order; returns the end.
size_t lay_out(const ZonePlan& p, Offsets& o) {
    size_t at = align_up(sizeof(ZoneHeader));
    auto place = [&at](uint64_t& offset, size_t count, size_t bytes) {
        offset = at;
        at = align_up(at + count * bytes);
    };
    place(o.processes, p.processes, sizeof(Process));
    place(o.requests, p.requests, sizeof(Request));
    place(o.accounts, p.accounts, sizeof(Account));
    place(o.account_buckets, p.accounts, sizeof(uint32_t));
    place(o.standings, p.standings, sizeof(Standing));
    place(o.flows, p.flows, sizeof(Flow));
    place(o.levels, p.levels, sizeof(Level));
    place(o.pools, p.pools, sizeof(Pool));
    place(o.domains, p.domains, sizeof(Domain));
    place(o.models, p.models, sizeof(Model));
    place(o.model_buckets, p.models, sizeof(uint32_t));
    place(o.orgs, p.orgs, sizeof(Org));
    place(o.engines, p.engines, sizeof(Engine));
    place(o.model_counters, size_t{p.models} + 1, sizeof(ModelCounters));
    place(o.scratch, p.requests, sizeof(uint32_t));
    place(o.model_engines, size_t{p.models} * ((p.engines + 63) / 64), sizeof(uint64_t));
    place(o.request_prefixes, p.requests, sizeof(PrefixKeys));
    place(o.prefixes, p.prefix_sets, sizeof(PrefixSet));
    for (int g = 0; g < 2; ++g) {
        place(o.index[g], 2 * size_t{p.clients}, sizeof(uint32_t));
        place(o.rows[g], p.clients, sizeof(Row));
        place(o.arena[g], p.arena_bytes, 1);
    }
    o.end = at;
    return at;
}

// The tables whose number does not follow clients and requests.
ZonePlan fixed_part(size_t bytes) {
    ZonePlan p;
    p.bytes = bytes;
    p.processes = kMaxProcesses;
    p.engines = static_cast<uint32_t>(clamp<size_t>(bytes >> 17, 16, kMaxZoneEngines));
    p.models = static_cast<uint32_t>(clamp<size_t>(bytes >> 17, 32, kMaxZoneModels));
    p.domains = p.models;
    p.pools = kPoolsPerModel * p.models;
    p.orgs = p.models;
    p.prefix_sets = static_cast<uint32_t>(clamp<size_t>(bytes / 64 / sizeof(PrefixSet), 512, 1u << 24));
    return p;
}

void size_tables(ZonePlan& p, size_t clients, size_t requests) {
    p.clients = static_cast<uint32_t>(clamp<size_t>(clients, kMinClients, kMaxRows));
    p.arena_bytes =
        p.clients >= kMaxRows / 4 ? 0xffffffc0u : static_cast<uint32_t>(p.clients * kArenaPerClient);
    p.requests = static_cast<uint32_t>(clamp<size_t>(requests, kMinRequests, 1u << 22));
    p.accounts = p.requests + 1;
    p.standings = 2 * p.requests;
    p.flows = p.requests;
    p.levels = p.requests;
}

}  // namespace

ZonePlan plan_zone(size_t bytes) {
    Offsets offsets;
    ZonePlan smallest = fixed_part(1);
    size_tables(smallest, 0, 0);
    const size_t min_bytes = lay_out(smallest, offsets);

    ZonePlan plan = fixed_part(bytes);
    size_tables(plan, 0, 0);
    plan.min_bytes = min_bytes;
    plan.ok = false;
    const size_t base = lay_out(plan, offsets) + 64 * kAlign;  // each array may lose some bytes to its alignment
    if (bytes < base) {
        plan.ok = bytes >= min_bytes;
        return plan;
    }
    // What is left goes to clients and requests, three to two.
    const size_t rest = bytes - base;
    size_tables(plan, kMinClients + rest / 5 * 3 / kClientBytes, kMinRequests + rest / 5 * 2 / kRequestBytes);
    plan.ok = lay_out(plan, offsets) <= bytes;
    return plan;
}

bool format_zone(void* memory, size_t bytes) {
    const ZonePlan plan = plan_zone(bytes);
    if (!plan.ok) {
        return false;
    }
    Offsets offsets;
    lay_out(plan, offsets);
    std::memset(memory, 0, offsets.index[0]);  // what follows, the token table, needs no first value
    auto& h = *static_cast<ZoneHeader*>(memory);
    h.layout = kLayoutVersion;
    h.header_bytes = sizeof(ZoneHeader);
    h.plan = plan;
    h.offset = offsets;
    h.settings = Settings();
    h.grace_us = h.settings.grace_us;
    h.next_seq = 1;
    h.refresh_cursor = kNone;

    Zone zone;
    h.magic = kMagic;
    if (!zone.attach(memory, bytes, LockOps{[](void*) {}, [](void*) {}, nullptr})) {
        return false;
    }
    Tables t(zone);
    for (uint32_t i = 0; i < plan.models; ++i) {
        t.model_buckets[i] = kNone;
    }
    for (int g = 0; g < 2; ++g) {
        h.tables[g].arena_used = 2;  // offset 0 means "empty"
        // Not for its contents: a load touches the index here and there, and the first touch of a page costs
        // more than the row. Rows and text are filled in order.
        std::memset(zone.at<uint32_t>(offsets.index[g]), 0, 2 * size_t{plan.clients} * sizeof(uint32_t));
    }
    for (uint32_t i = 0; i < plan.accounts; ++i) {
        t.account_buckets[i] = kNone;
    }
    rebuild(zone);
    h.counters.rebuilds = 0;
    h.run_pending = 0;
    return true;
}

bool Zone::attach(void* memory, size_t bytes, const LockOps& ops) {
    auto* h = static_cast<ZoneHeader*>(memory);
    if (bytes < sizeof(ZoneHeader) || h->magic != kMagic || h->layout != kLayoutVersion ||
        h->header_bytes != sizeof(ZoneHeader) || h->plan.bytes != bytes || h->offset.end > bytes) {
        return false;
    }
    header_ = h;
    plan_ = h->plan;
    ops_ = ops;
    const Offsets& o = h->offset;
    arrays_ = {at<Process>(o.processes),
               at<Request>(o.requests),
               at<Account>(o.accounts),
               at<uint32_t>(o.account_buckets),
               at<Standing>(o.standings),
               at<Flow>(o.flows),
               at<Level>(o.levels),
               at<Pool>(o.pools),
               at<Domain>(o.domains),
               at<Model>(o.models),
               at<uint32_t>(o.model_buckets),
               at<Org>(o.orgs),
               at<Engine>(o.engines),
               at<ModelCounters>(o.model_counters),
               at<uint32_t>(o.scratch),
               at<uint64_t>(o.model_engines),
               at<PrefixKeys>(o.request_prefixes),
               at<PrefixSet>(o.prefixes)};
    return true;
}

ZoneLock::ZoneLock(Zone& zone) : zone_(zone) {
    zone_.lock_ops().lock(zone_.lock_ops().context);
    std::atomic_ref<uint32_t> dirty(zone_.header()->dirty);
    if (dirty.load(std::memory_order_relaxed) != 0) {
        rebuild(zone_);
    }
    dirty.store(1, std::memory_order_relaxed);
    // The compiler must not move a later store above this one. The processor may: what a process had executed
    // when it was killed is visible to whoever gets the lock afterwards, in whatever order it left the store
    // buffer.
    std::atomic_signal_fence(std::memory_order_seq_cst);
#if LLM_TEST_HOOKS
    ++lock_depth;
#endif
}

ZoneLock::~ZoneLock() {
#if LLM_TEST_HOOKS
    --lock_depth;
#endif
    std::atomic_signal_fence(std::memory_order_seq_cst);
    std::atomic_ref<uint32_t>(zone_.header()->dirty).store(0, std::memory_order_relaxed);
    zone_.lock_ops().unlock(zone_.lock_ops().context);
}

uint64_t hash_bytes(std::string_view text) {
    uint64_t hash = 0xcbf29ce484222325ull;
    for (unsigned char byte : text) {
        hash = (hash ^ byte) * 0x100000001b3ull;
    }
    return hash ^ (hash >> 29);
}

uint32_t mix32(uint64_t value) {
    value += 0x9e3779b97f4a7c15ull;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
    return static_cast<uint32_t>((value ^ (value >> 31)) >> 32);
}

}  // namespace llm::core
