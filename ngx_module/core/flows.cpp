// Flows and their queues: the order of service.
//
// A flow is a FIFO of one client's requests for one pool at one priority. Flows with waiting requests that
// are not held back stand in their level (pool × class), ordered by the client's virtual counter (VTC, Sheng
// et al., OSDI'24) and, for aging, by the arrival of their oldest request.
#include <algorithm>
#include <cmath>

#include "ngx_module/core/core.hpp"
#include "ngx_module/core/treap.hpp"

namespace llm::core {
namespace {

struct ByOrder {
    Flow* flows;
    uint32_t& left(uint32_t i) const { return flows[i].order_left; }
    uint32_t& right(uint32_t i) const { return flows[i].order_right; }
    bool before(uint32_t a, uint32_t b) const { return served_before(flows[a], flows[b]); }
};

struct ByAge {
    Flow* flows;
    uint32_t& left(uint32_t i) const { return flows[i].age_left; }
    uint32_t& right(uint32_t i) const { return flows[i].age_right; }
    bool before(uint32_t a, uint32_t b) const { return flows[a].key_seq < flows[b].key_seq; }
};

bool is_strict(const Tables& t) {
    return t.header.settings.scheduler == Scheduler::strict;
}

// Links and unlinks a flow in its level's trees, with no effect on who counts as backlogged.
void link_flow(Core& c, uint32_t flow) {
    Flow& f = c.flows[flow];
    Level& level = c.levels[f.level];
    f.key_vt = is_strict(c) ? 0 : c.standings[f.standing].vt;
    f.key_seq = c.requests[f.head].seq;
    treap_insert(ByOrder{c.flows}, level.order_root, level.order_min, flow);
    treap_insert(ByAge{c.flows}, level.age_root, level.age_min, flow);
    f.place = Place::in;
}

// The same for the order of service alone, while the client's counter changes: nobody's arrival does.
void link_order(Core& c, uint32_t flow) {
    Flow& f = c.flows[flow];
    Level& level = c.levels[f.level];
    f.key_vt = c.standings[f.standing].vt;
    treap_insert(ByOrder{c.flows}, level.order_root, level.order_min, flow);
    f.place = Place::in;
}

void unlink_order(Core& c, uint32_t flow) {
    Level& level = c.levels[c.flows[flow].level];
    treap_remove(ByOrder{c.flows}, level.order_root, level.order_min, flow);
    c.flows[flow].place = Place::moving;
}

void unlink_flow(Core& c, uint32_t flow) {
    Flow& f = c.flows[flow];
    Level& level = c.levels[f.level];
    treap_remove(ByOrder{c.flows}, level.order_root, level.order_min, flow);
    treap_remove(ByAge{c.flows}, level.age_root, level.age_min, flow);
    f.place = Place::out;
}

RememberedClass& remembered(Core& c, uint32_t domain, int32_t level_class) {
    c.header.class_stamp += c.header.class_stamp == 0xffffffffu ? 2 : 1;  // 0 says unused
    RememberedClass* oldest = nullptr;
    for (RememberedClass& entry : c.domains[domain].classes) {
        if (entry.stamp != 0 && entry.level_class == level_class) {
            entry.stamp = c.header.class_stamp;
            return entry;
        }
        if (oldest == nullptr || entry.stamp < oldest->stamp) {
            oldest = &entry;
        }
    }
    *oldest = RememberedClass{level_class, c.header.class_stamp, 0};
    return *oldest;
}

// Where a client that becomes backlogged in this domain and class starts (docs/scheduler.md, "Coming back").
double lift_level(Core& c, uint32_t domain, int32_t level_class) {
    double smallest = INFINITY;
    for (uint32_t i = c.domains[domain].levels_head; i != kNone; i = c.levels[i].domain_next) {
        const Level& level = c.levels[i];
        if (level.level_class == level_class && level.order_min != kNone &&
            c.flows[level.order_min].key_vt < smallest) {
            smallest = c.flows[level.order_min].key_vt;
        }
    }
    return std::isfinite(smallest) ? smallest : remembered(c, domain, level_class).vlast;
}

uint32_t open_level(Core& c, uint32_t pool, int32_t level_class) {
    Pool& p = c.pools[pool];
    uint32_t* link = &p.levels_head;
    while (*link != kNone && c.levels[*link].level_class > level_class) {
        link = &c.levels[*link].next;
    }
    if (*link != kNone && c.levels[*link].level_class == level_class) {
        return *link;
    }
    if (!has_slot(c.header.free_levels, c.header.level_end, c.header.plan.levels)) {
        return kNone;
    }
    const uint32_t i = take_slot(c.levels, c.header.free_levels, c.header.level_end, &Level::next);
    Level& level = c.levels[i];
    level = Level{};
    level.used = 1;
    level.pool = pool;
    level.level_class = level_class;
    level.order_root = level.order_min = level.age_root = level.age_min = kNone;
    level.next = *link;
    *link = i;
    level.domain = domain_of(c, p);
    Domain& d = c.domains[level.domain];
    level.domain_prev = kNone;
    level.domain_next = d.levels_head;
    if (d.levels_head != kNone) {
        c.levels[d.levels_head].domain_prev = i;
    }
    d.levels_head = i;
    return i;
}

void close_level(Core& c, uint32_t index) {
    Level& level = c.levels[index];
    uint32_t* link = &c.pools[level.pool].levels_head;
    while (*link != index) {
        link = &c.levels[*link].next;
    }
    *link = level.next;
    (level.domain_prev != kNone ? c.levels[level.domain_prev].domain_next
                                : c.domains[level.domain].levels_head) = level.domain_next;
    if (level.domain_next != kNone) {
        c.levels[level.domain_next].domain_prev = level.domain_prev;
    }
    level.used = 0;
    level.next = c.header.free_levels;
    c.header.free_levels = index;
}

uint32_t open_flow(Core& c, const Request& r, uint32_t standing) {
    const int32_t level_class = class_of(c, c.accounts[r.account], r.priority);
    Standing& s = c.standings[standing];
    for (uint32_t i = s.flows_head; i != kNone; i = c.flows[i].next) {
        const Flow& f = c.flows[i];
        if (f.priority == r.priority && c.levels[f.level].pool == r.pool &&
            c.levels[f.level].level_class == level_class) {
            return i;
        }
    }
    if (!has_slot(c.header.free_flows, c.header.flow_end, c.header.plan.flows)) {
        return kNone;
    }
    const uint32_t level = open_level(c, r.pool, level_class);
    if (level == kNone) {
        return kNone;
    }
    const uint32_t i = take_slot(c.flows, c.header.free_flows, c.header.flow_end, &Flow::next);
    Flow& f = c.flows[i];
    f = Flow{};
    f.used = 1;
    f.standing = standing;
    f.level = level;
    f.priority = static_cast<int16_t>(r.priority);
    f.head = f.tail = kNone;
    f.prev = kNone;
    f.next = s.flows_head;
    if (s.flows_head != kNone) {
        c.flows[s.flows_head].prev = i;
    }
    s.flows_head = i;
    c.levels[level].flows++;
    return i;
}

void close_flow(Core& c, uint32_t index) {
    Flow& f = c.flows[index];
    (f.prev != kNone ? c.flows[f.prev].next : c.standings[f.standing].flows_head) = f.next;
    if (f.next != kNone) {
        c.flows[f.next].prev = f.prev;
    }
    if (--c.levels[f.level].flows == 0) {
        close_level(c, f.level);
    }
    f.used = 0;
    f.next = c.header.free_flows;
    c.header.free_flows = index;
}

void remember_leaving(Core& c, const Standing& s, int32_t level_class) {
    RememberedClass& entry = remembered(c, s.domain, level_class);
    entry.vlast = s.vt > entry.vlast ? s.vt : entry.vlast;
}

void lift(Core& c, Standing& s, int32_t level_class) {
    const double level = lift_level(c, s.domain, level_class);
    s.vt = level > s.vt ? level : s.vt;
}

// What the request goes behind in its flow; kNone: it becomes the head. The newest goes to the tail and what was
// granted back to the head; where many rejoin one after the other, the way from one place to the next is short.
uint32_t place_in(Core& c, uint32_t flow, const Request& r) {
    const Flow& f = c.flows[flow];
    if (f.tail == kNone || c.requests[f.tail].seq < r.seq) {
        return f.tail;
    }
    if (c.requests[f.head].seq > r.seq) {
        return kNone;
    }
    uint32_t& last = c.scratch[flow];  // who was put between others last, if it still waits there
    const bool holds = last < c.header.request_end && c.requests[last].flow == flow &&
                       state_of(c.requests[last]) == RequestState::queued;
    uint32_t at = holds ? last : f.head;
    while (c.requests[at].seq > r.seq) {
        at = c.requests[at].flow_prev;
    }
    for (uint32_t next = c.requests[at].flow_next; next != kNone && c.requests[next].seq < r.seq;
         next = c.requests[next].flow_next) {
        at = next;
    }
    last = index_of(c, r);
    return at;
}

}  // namespace

int32_t class_of(const Tables& t, const Account& a, int32_t priority) {
    if (is_strict(t)) {
        return priority;
    }
    return priority == 0 ? kBackground : a.band;
}

double weight_of(const Tables& t, const Account& a, int32_t priority) {
    if (priority == 0 || a.priority == 0) {
        return 1;
    }
    const double own = a.weight > 0 ? static_cast<double>(a.weight) : a.priority;
    return own * priority / a.priority;
}

uint32_t first_flows(const Core& c, const Level& level, uint32_t* out, uint32_t most, uint32_t limit) {
    const auto counts = [&](uint32_t flow) {
        return limit == kNone || served_before(c.flows[flow], c.flows[limit]);
    };
    if (level.order_min == kNone || !counts(level.order_min)) {
        return 0;
    }
    uint32_t count = 0;
    treap_visit(ByOrder{c.flows}, level.order_root, [&](uint32_t flow) {
        if (!counts(flow)) {
            return false;
        }
        out[count++] = flow;
        return count < most;
    });
    return count;
}

void put_in_queue(Core& c, uint32_t flow, bool lifted) {
    Flow& f = c.flows[flow];
    Standing& s = c.standings[f.standing];
    if (lifted && s.backlogged == 0 && !is_strict(c)) {
        lift(c, s, c.levels[f.level].level_class);
    }
    s.backlogged++;
    link_flow(c, flow);
}

void take_from_queue(Core& c, uint32_t flow) {
    Flow& f = c.flows[flow];
    unlink_flow(c, flow);
    if (--c.standings[f.standing].backlogged == 0 && !is_strict(c)) {
        remember_leaving(c, c.standings[f.standing], c.levels[f.level].level_class);
    }
}

bool enqueue(Core& c, Request& r, bool lifted) {
    const uint32_t standing = open_standing(c, r.account, domain_of(c, c.pools[r.pool]));
    if (standing == kNone) {
        return false;
    }
    const uint32_t flow = open_flow(c, r, standing);
    if (flow == kNone) {
        return false;
    }
    const uint32_t i = index_of(c, r);
    Flow& f = c.flows[flow];
    const uint32_t before = place_in(c, flow, r);
    r.standing = standing;
    r.flow = flow;
    r.arrival_no = ++c.levels[f.level].arrived;
    r.flow_prev = before;
    r.flow_next = before != kNone ? c.requests[before].flow_next : f.head;
    (before != kNone ? c.requests[before].flow_next : f.head) = i;
    (r.flow_next != kNone ? c.requests[r.flow_next].flow_prev : f.tail) = i;
    f.count++;
    c.levels[f.level].waiting++;
    if (f.place == Place::in) {
        if (f.head == i) {
            unlink_flow(c, flow);
            link_flow(c, flow);
        }
    } else if (!held_back(c.accounts[r.account])) {
        put_in_queue(c, flow, lifted);
    }
    LLM_TRACE(c, TraceKind::queued, r);
    return true;
}

void enter_for_a_moment(Core& c, const Request& r) {
    Standing& s = c.standings[r.standing];
    if (s.backlogged == 0 && !is_strict(c)) {
        lift(c, s, r.level_class);
    }
}

void leave_after_a_moment(Core& c, const Request& r) {
    const Standing& s = c.standings[r.standing];
    if (s.backlogged == 0 && !is_strict(c)) {
        remember_leaving(c, s, r.level_class);
    }
}

void detach(Core& c, Request& r) {
    if (r.flow == kNone) {
        return;
    }
    Flow& f = c.flows[r.flow];
    if (f.place == Place::in && f.head == index_of(c, r)) {
        unlink_flow(c, r.flow);
        f.place = Place::detached;
    }
}

void dequeue(Core& c, Request& r) {
    if (r.flow == kNone) {
        return;
    }
    const uint32_t flow = r.flow;
    const uint32_t i = index_of(c, r);
    Flow& f = c.flows[flow];
    const bool was_head = f.head == i;
    if (was_head) {
        detach(c, r);  // before its key changes; linked again below
    }
    (r.flow_prev != kNone ? c.requests[r.flow_prev].flow_next : f.head) = r.flow_next;
    (r.flow_next != kNone ? c.requests[r.flow_next].flow_prev : f.tail) = r.flow_prev;
    r.flow = kNone;
    LLM_TRACE(c, TraceKind::unqueued, r);
    f.count--;
    c.levels[f.level].waiting--;
    if (f.count == 0) {
        if (f.place != Place::out) {
            if (f.place == Place::in) {
                unlink_flow(c, flow);
            }
            f.place = Place::out;
            if (--c.standings[f.standing].backlogged == 0 && !is_strict(c)) {
                remember_leaving(c, c.standings[f.standing], c.levels[f.level].level_class);
            }
        }
        close_flow(c, flow);
    } else if (f.place == Place::detached) {
        link_flow(c, flow);
    }
}

void add_vt(Core& c, uint32_t standing, double vt) {
    if (standing == kNone || !std::isfinite(vt)) {
        return;
    }
    Standing& s = c.standings[standing];
    if (is_strict(c) || s.backlogged == 0) {
        s.vt += vt;
        return;
    }
    // Flows leave their places before the key changes and take new ones after it. One that is detached
    // already is somebody else's to link again.
    for (uint32_t f = s.flows_head; f != kNone; f = c.flows[f].next) {
        if (c.flows[f].place == Place::in) {
            unlink_order(c, f);
        }
    }
    s.vt += vt;
    for (uint32_t f = s.flows_head; f != kNone; f = c.flows[f].next) {
        if (c.flows[f].place == Place::moving) {
            link_order(c, f);
        }
    }
}

uint32_t waiting_of(const Tables& t, const Account& a, uint32_t model) {
    uint32_t waiting = 0;
    for (uint32_t s = a.standings_head; s != kNone; s = t.standings[s].next) {
        for (uint32_t f = t.standings[s].flows_head; f != kNone; f = t.flows[f].next) {
            waiting += t.pools[t.levels[t.flows[f].level].pool].model == model ? t.flows[f].count : 0;
        }
    }
    return waiting;
}

QueueRoom queue_room(const Tables& t, int32_t threshold, uint32_t waiting) {
    const uint32_t asked = t.header.settings.queue_size;
    const uint32_t most = asked != 0 ? asked : t.header.plan.requests;
    const uint32_t room = most > t.header.queued ? most - t.header.queued : 0;
    if (threshold == kUnlimited) {
        return {most, room};
    }
    const auto limit = static_cast<uint32_t>(std::max(threshold, 0));
    return {limit, limit > waiting ? std::min(limit - waiting, room) : 0};
}

}  // namespace llm::core
