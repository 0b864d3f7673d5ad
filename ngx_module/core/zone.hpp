// The zone: one region of shared memory that holds clients, queues, engines and counters.
//
// plan_zone() says what a region of a given size holds; format_zone() carves it, once; Zone is a process's
// handle on it; ZoneLock is the proof that the caller holds the zone's one lock.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ngx_module/core/types.hpp"

namespace llm::core {

// layout.hpp; callers need not know them
struct ZoneHeader;
struct Process;
struct Request;
struct Account;
struct Standing;
struct Flow;
struct Level;
struct Pool;
struct Domain;
struct Model;
struct Org;
struct Engine;
struct ModelCounters;
struct PrefixKeys;
struct PrefixSet;

// Grows with every change of the shared structures. Part of nginx's zone tag: a module of another layout gets
// a new zone instead of misreading the old one.
constexpr uint32_t kLayoutVersion = 22;

// What a region of `bytes` holds. The size alone decides, so that a reload never re-carves.
struct ZonePlan {
    size_t bytes = 0;
    size_t min_bytes = 0;    // the smallest size that works
    bool ok = false;         // false: `bytes` < `min_bytes`
    uint32_t clients = 0;    // rows of one generation of the token table (two are kept)
    uint32_t requests = 0;   // queued, granted and running together
    uint32_t accounts = 0;   // clients with live requests or a recent past
    uint32_t standings = 0;  // (client, domain): virtual counters
    uint32_t flows = 0;
    uint32_t levels = 0;  // (pool, class): queues
    uint32_t pools = 0;
    uint32_t domains = 0;
    uint32_t models = 0;
    uint32_t orgs = 0;
    uint32_t engines = 0;
    uint32_t processes = 0;
    uint32_t prefix_sets = 0;  // of 8 entries: which engine has computed which beginning of a prompt
    uint32_t arena_bytes = 0;  // names of the clients, per generation
};

// O(1). Never fails: look at `ok`; an error text is "zone too small: at least <min_bytes> bytes".
ZonePlan plan_zone(size_t bytes);

// Carves `bytes` at `memory` (any content; 64-byte aligned). Returns false when the plan is not ok. O(bytes).
bool format_zone(void* memory, size_t bytes);

// The zone's mutex, supplied by the caller: nginx passes its shpool mutex (the only one that the master
// force-unlocks when a worker dies), tests pass what they like. Neither function may fail.
struct LockOps {
    void (*lock)(void* context) = nullptr;
    void (*unlock)(void* context) = nullptr;
    void* context = nullptr;
};

// Where the zone's arrays lie in this process.
struct ZoneArrays {
    Process* processes;
    Request* requests;
    Account* accounts;
    uint32_t* account_buckets;
    Standing* standings;
    Flow* flows;
    Level* levels;
    Pool* pools;
    Domain* domains;
    Model* models;
    uint32_t* model_buckets;
    Org* orgs;
    Engine* engines;
    ModelCounters* model_counters;  // [0] is model=""
    uint32_t* scratch;              // plan.requests words
    uint64_t* model_engines;        // bitmap of engines per model: engine_words() each
    PrefixKeys* request_prefixes;   // of each request; facts, written with it
    PrefixSet* prefixes;
};

// A process's handle on a formatted zone: where its arrays lie in this process's address space. Cheap to
// make; copy it freely. Outlives nothing: the memory must stay mapped.
class Zone {
  public:
    Zone() = default;

    // Attaches to memory that format_zone() has carved, here or in another process. False when magic, layout
    // version or size do not fit; the handle is then unusable.
    bool attach(void* memory, size_t bytes, const LockOps& ops);

    const ZonePlan& plan() const { return plan_; }
    ZoneHeader* header() const { return header_; }
    const ZoneArrays& arrays() const { return arrays_; }
    const LockOps& lock_ops() const { return ops_; }

    // Start of the array at `offset` bytes from the header (layout.hpp: Tables).
    template <class T>
    T* at(size_t offset) const {
        return reinterpret_cast<T*>(reinterpret_cast<unsigned char*>(header_) + offset);
    }

  private:
    ZoneHeader* header_ = nullptr;
    ZoneArrays arrays_{};
    ZonePlan plan_;
    LockOps ops_;
};

// Holds the zone's lock from construction to destruction, and marks the zone dirty meanwhile. Finding it
// dirty means that an owner died inside: everything derived (queues, counts, indexes) is rebuilt from the
// request table before the constructor returns (O(entries ever used); ≤ 5 ms for 16,000 requests).
//
// While it lives: no system call, no logging, no allocation, no second zone's lock, no lookup_client().
class ZoneLock {
  public:
    explicit ZoneLock(Zone& zone);
    ~ZoneLock();
    ZoneLock(const ZoneLock&) = delete;
    ZoneLock& operator=(const ZoneLock&) = delete;

    Zone& zone() const { return zone_; }

  private:
    Zone& zone_;
};

}  // namespace llm::core
