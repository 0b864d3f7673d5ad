// Models, organisations, pools and domains: the map from what is asked for to who can serve it.
//
// Entries are made by engines only, never by a client's words, and are never removed: an index stays good for
// the zone's life and find_model() needs no lock.
#include <algorithm>
#include <bitset>
#include <cmath>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

uint32_t root_of(uint32_t* parent, uint32_t i) {
    while (parent[i] != i) {
        parent[i] = parent[parent[i]];
        i = parent[i];
    }
    return i;
}

// Where service in a domain stands: the smallest counter that waits there, else the largest that left.
double base_of(const Core& c, uint32_t domain) {
    double base = INFINITY;
    for (uint32_t i = 0; i < c.header.standing_end; ++i) {
        const Standing& s = c.standings[i];
        if (s.used != 0 && s.domain == domain && s.backlogged != 0 && s.vt < base) {
            base = s.vt;
        }
    }
    if (std::isfinite(base)) {
        return base;
    }
    base = 0;
    for (const RememberedClass& entry : c.domains[domain].classes) {
        base = entry.stamp != 0 && entry.vlast > base ? entry.vlast : base;
    }
    return base;
}

// Carries virtual counters from a domain to another one: a client's lead over its old neighbours stays a lead
// over its new ones.
void carry_standings(Core& c, uint32_t from, uint32_t to, bool fresh) {
    const double shift = fresh ? 0 : base_of(c, to) - base_of(c, from);
    if (fresh) {
        std::memcpy(c.domains[to].classes, c.domains[from].classes, sizeof c.domains[to].classes);
    }
    const uint32_t end = c.header.standing_end;
    for (uint32_t i = 0; i < end; ++i) {
        if (c.standings[i].used == 0 || c.standings[i].domain != from) {
            continue;
        }
        const double vt = c.standings[i].vt + shift;
        const uint32_t target = open_standing(c, c.standings[i].account, to);
        if (target != kNone && (c.standings[target].vt < vt || c.standings[target].vt == 0)) {
            c.standings[target].vt = vt;
        }
    }
}

// Counters that an earlier domain in this place has left. Zero: its client begins where service stands.
void forget_standings(Core& c, uint32_t domain) {
    for (uint32_t i = 0; i < c.header.standing_end; ++i) {
        if (c.standings[i].domain == domain) {
            c.standings[i].vt = 0;
        }
    }
}

uint32_t fresh_domain(Core& c, const bool* claimed) {
    for (uint32_t d = 0; d < c.header.plan.domains; ++d) {
        bool used = claimed != nullptr && claimed[d];
        for (uint32_t m = 0; m < c.header.model_count && !used; ++m) {
            used = c.models[m].domain == d;
        }
        if (!used) {
            c.header.domain_end = d >= c.header.domain_end ? d + 1 : c.header.domain_end;
            c.domains[d] = Domain{};
            c.domains[d].used = 1;
            c.domains[d].levels_head = kNone;
            forget_standings(c, d);
            return d;
        }
    }
    return 0;  // cannot be: there are as many domains as models
}

double minimum_for(const Tables& t, const Model& m) {
    const Settings& s = t.header.settings;
    for (uint32_t i = 0; i < s.throughput_rules; ++i) {
        if (std::string_view(s.throughput[i].model) == std::string_view(m.name, m.name_bytes)) {
            return s.throughput[i].tokens_per_second;
        }
    }
    return s.min_throughput;
}

// A pool stays when nobody waits in it: it knows how fast its queue goes. Ends those that no request is in, was in or
// may come back to, so that others can be made: models and organisations come and go. O(requests), hence once per sweep.
void reclaim_pools(Core& c) {
    if (c.header.pools_reclaimed != 0) {
        return;
    }
    c.header.pools_reclaimed = 1;
    std::bitset<kPoolsPerModel * kMaxZoneModels> wanted;
    for (uint32_t i = 0; i < c.header.request_end; ++i) {
        const Request& r = c.requests[i];
        if (state_of(r) != RequestState::free) {
            wanted.set(r.pool);
            wanted.set(lasting_pool(c, r.pool));
        }
    }
    for (uint32_t i = 0; i < c.header.pool_end; ++i) {
        if (c.pools[i].used != 0 && c.pools[i].levels_head == kNone && !wanted[i]) {
            close_pool(c, i);
        }
    }
}

uint32_t free_pool(const Tables& t) {
    uint32_t i = 0;
    while (i < t.header.plan.pools && t.pools[i].used != 0) {
        ++i;
    }
    return i < t.header.plan.pools ? i : kNone;
}

// Temporary where there is something to shun.
uint32_t make_pool(Core& c, uint32_t model, uint32_t org, const uint32_t* shunned) {
    uint32_t i = free_pool(c);
    if (i == kNone) {
        reclaim_pools(c);
        i = free_pool(c);
    }
    if (i == kNone) {
        return kNone;
    }
    Pool& p = c.pools[i];
    p = Pool{};
    p.model = model;
    p.org = org;
    if (shunned != nullptr) {
        p.temporary = 1;
        std::copy(shunned, shunned + kTried, p.shunned);
    }
    p.levels_head = kNone;
    p.next = c.models[model].pools_head;
    c.header.pool_end = i >= c.header.pool_end ? i + 1 : c.header.pool_end;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    LLM_LABEL();
    p.used = 1;
    c.models[model].pools_head = i;
    return i;
}

}  // namespace

uint32_t find_model_locked(const Tables& t, std::string_view name) {
    const uint64_t hash = hash_bytes(name);
    uint32_t i = std::atomic_ref<uint32_t>(t.model_buckets[hash % t.header.plan.models])
                     .load(std::memory_order_acquire);
    for (; i != kNone; i = t.models[i].hash_next) {
        const Model& m = t.models[i];
        if (m.name_hash == hash && std::string_view(m.name, m.name_bytes) == name) {
            return i;
        }
    }
    return kNone;
}

uint32_t find_model(const Zone& zone, std::string_view name) {
    return find_model_locked(Tables(zone), name);
}

uint32_t model_count(const Zone& zone) {
    return std::atomic_ref<uint32_t>(zone.header()->model_count).load(std::memory_order_acquire);
}

const char* model_name(const Zone& zone, uint32_t model) {
    return model < model_count(zone) ? Tables(zone).models[model].name : "";
}

uint32_t open_model(Core& c, std::string_view name) {
    const uint32_t known = find_model_locked(c, name);
    if (known != kNone || name.empty() || name.size() > kMaxModelBytes) {
        return known;
    }
    const uint32_t i = c.header.model_count;
    if (i >= c.header.plan.models) {
        return kNone;
    }
    Model& m = c.models[i];
    m = Model{};
    copy_text(m.name, name);
    m.name_bytes = static_cast<uint32_t>(name.size());
    m.name_hash = hash_bytes(name);
    m.created_us = c.now;
    m.pools_head = kNone;
    m.domain = fresh_domain(c, nullptr);
    m.minimum = minimum_for(c, m);
    uint32_t& bucket = c.model_buckets[m.name_hash % c.header.plan.models];
    m.hash_next = bucket;
    m.used = 1;
    std::memset(c.engines_of(i), 0, c.engine_words() * sizeof(uint64_t));
    LLM_LABEL();
    std::atomic_ref<uint32_t>(c.header.model_count).store(i + 1, std::memory_order_release);
    LLM_LABEL();
    std::atomic_ref<uint32_t>(bucket).store(i, std::memory_order_release);
    return i;
}

uint32_t find_org(const Tables& t, std::string_view name) {
    const uint64_t hash = hash_bytes(name);
    for (uint32_t i = 0; i < t.header.org_count; ++i) {
        if (t.orgs[i].hash == hash && std::string_view(t.orgs[i].name, t.orgs[i].bytes) == name) {
            return i;
        }
    }
    return kNone;
}

uint32_t open_org(Core& c, std::string_view name) {
    if (name.empty() || name.size() > kMaxOrgBytes) {
        return kNone;
    }
    const uint32_t known = find_org(c, name);
    if (known != kNone || c.header.org_count >= c.header.plan.orgs) {
        return known;
    }
    Org& org = c.orgs[c.header.org_count];
    copy_text(org.name, name);
    org.bytes = static_cast<uint32_t>(name.size());
    org.hash = hash_bytes(name);
    org.used = 1;
    return c.header.org_count++;
}

uint32_t find_pool(Core& c, uint32_t model, uint32_t org) {
    for (uint32_t i = c.models[model].pools_head; i != kNone; i = c.pools[i].next) {
        if (c.pools[i].org == org && c.pools[i].temporary == 0) {
            return i;
        }
    }
    return kNone;
}

uint32_t open_pool(Core& c, uint32_t model, uint32_t org) {
    const uint32_t known = find_pool(c, model, org);
    return known != kNone ? known : make_pool(c, model, org, nullptr);
}

uint32_t make_temporary_pool(Core& c, uint32_t model, uint32_t org, const uint32_t (&shunned)[kTried]) {
    return make_pool(c, model, org, shunned);
}

void close_pool(Core& c, uint32_t pool) {
    Pool& p = c.pools[pool];
    uint32_t* link = &c.models[p.model].pools_head;
    while (*link != pool) {
        link = &c.pools[*link].next;
    }
    *link = p.next;
    p.used = 0;
}

void register_models(Core& c, uint32_t engine) {
    const Engine& e = c.engines[engine];
    for (uint32_t i = 0; i < e.model_count; ++i) {
        uint64_t& word = c.engines_of(e.models[i])[engine / 64];
        const uint64_t bit = uint64_t{1} << (engine % 64);
        c.models[e.models[i]].engines += (word & bit) == 0 ? 1 : 0;
        word |= bit;
    }
}

void unregister_models(Core& c, uint32_t engine) {
    const Engine& e = c.engines[engine];
    for (uint32_t i = 0; i < e.model_count; ++i) {
        uint64_t& word = c.engines_of(e.models[i])[engine / 64];
        const uint64_t bit = uint64_t{1} << (engine % 64);
        c.models[e.models[i]].engines -= (word & bit) != 0 ? 1 : 0;
        word &= ~bit;
    }
}

void refresh_domains(Core& c) {
    const uint32_t count = c.header.model_count;
    uint32_t parent[kMaxZoneModels];
    uint32_t label[kMaxZoneModels];
    bool claimed[kMaxZoneModels] = {};
    for (uint32_t i = 0; i < count; ++i) {
        parent[i] = i;
        label[i] = kNone;
    }
    for (uint32_t i = 0; i < c.header.engine_end; ++i) {
        const Engine& e = c.engines[i];
        for (uint32_t m = 1; e.used != 0 && e.leaving == 0 && m < e.model_count; ++m) {
            parent[root_of(parent, e.models[m])] = root_of(parent, e.models[0]);
        }
    }
    // A component keeps the label of its first model that no other component has claimed; models that engines
    // serve choose first.
    for (int served = 1; served >= 0; --served) {
        for (uint32_t i = 0; i < count; ++i) {
            const uint32_t root = root_of(parent, i);
            const uint32_t old = c.models[i].domain;
            if ((c.models[i].engines != 0) == (served != 0) && label[root] == kNone && !claimed[old]) {
                label[root] = old;
                claimed[old] = true;
            }
        }
    }
    bool changed = false;
    for (uint32_t i = 0; i < count; ++i) {
        const uint32_t root = root_of(parent, i);
        bool fresh = false;
        if (label[root] == kNone) {
            label[root] = fresh_domain(c, claimed);
            claimed[label[root]] = true;
            fresh = true;
        }
        const uint32_t old = c.models[i].domain;
        if (old != label[root]) {
            carry_standings(c, old, label[root], fresh);
            LLM_LABEL();
            c.models[i].domain = label[root];
            changed = true;
        }
    }
    if (changed) {
        rebuild(c);
    }
}

void refresh_minimums(Core& c) {
    for (uint32_t i = 0; i < c.header.model_count; ++i) {
        c.models[i].minimum = minimum_for(c, c.models[i]);
    }
}

bool model_view(const ZoneLock& lock, uint32_t model, int64_t now_us, ModelView& out) {
    WakeSet none;
    Core c(lock, now_us, none);
    if (model >= c.header.model_count) {
        return false;
    }
    const Model& m = c.models[model];
    out = ModelView();
    std::memcpy(out.name, m.name, sizeof out.name);
    out.engines = m.engines;
    out.waiting = m.waiting;
    out.running = m.held;
    out.created_us = static_cast<uint64_t>(m.created_us);
    double room = 0;        // of usable engines
    double known_room = 0;  // of all that are registered
    for_engines_of(c, model, [&](uint32_t i) {
        const Engine& e = c.engines[i];
        known_room += e.limit;
        if (engine_usable(e)) {
            out.usable++;
            room += e.limit;
        }
        return true;
    });
    for (uint32_t i = m.pools_head; i != kNone; i = c.pools[i].next) {
        const Pool& p = c.pools[i];
        out.drain_per_s += drain_rate_of(p, now_us);
        for (uint32_t l = p.levels_head; l != kNone; l = c.levels[l].next) {
            const uint32_t oldest = c.levels[l].age_min;
            if (oldest != kNone) {
                const int64_t since = c.requests[c.flows[oldest].head].queued_us;
                out.oldest_us = out.oldest_us == 0 || since < out.oldest_us ? since : out.oldest_us;
            }
        }
    }
    // Enough engines of the present mean size for what runs and waits; while none is usable, of the size that
    // those have which will be again.
    const double mean = out.usable != 0 ? room / out.usable : m.engines != 0 ? known_room / m.engines : 1;
    const double wanted = std::ceil((m.held + m.waiting) / (mean >= 1 ? mean : 1));
    out.desired_engines = static_cast<uint32_t>(wanted);
    return true;
}

}  // namespace llm::core
