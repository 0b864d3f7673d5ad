// Among the flows that may go next without anybody losing more than a bounded amount of service, the one
// whose prompt the engine has most of (docs/scheduler.md, "Which request").
#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr uint32_t kWindow = 16;    // flows that are looked at
constexpr double kSlack = 4096;     // cost, in prompt tokens, by which one may go ahead of its turn
constexpr double kPerRank = 0.002;  // of a whole prompt: what a place in the order is worth
constexpr double kPatience = 0.7;   // of its queue timeout: whoever has waited so long goes first

struct Window {
    uint32_t flows[kWindow];
    uint32_t count = 0;

    // Keeps the order of service; those beyond the last place are left out.
    void add(const Core& c, uint32_t flow) {
        uint32_t at = count < kWindow ? count++ : kWindow;
        for (; at > 0 && served_before(c.flows[flow], c.flows[flows[at - 1]]); --at) {
            if (at < kWindow) {
                flows[at] = flows[at - 1];
            }
        }
        if (at < kWindow) {
            flows[at] = flow;
        }
    }
    // What does not come before this one has no place; kNone: there is room.
    uint32_t limit() const { return count == kWindow ? flows[kWindow - 1] : kNone; }
};

Window window_of(const Core& c, uint32_t engine, int32_t level_class) {
    Window window;
    for_pools_of(c, engine, [&](const Pool& p) {
        uint32_t l = p.levels_head;
        while (l != kNone && c.levels[l].level_class > level_class) {
            l = c.levels[l].next;
        }
        if (l == kNone || c.levels[l].level_class != level_class) {
            return;
        }
        uint32_t flows[kWindow];
        const uint32_t count = first_flows(c, c.levels[l], flows, kWindow, window.limit());
        for (uint32_t i = 0; i < count; ++i) {
            window.add(c, flows[i]);
        }
    });
    return window;
}

bool is_impatient(const Core& c, const Request& r) {
    return static_cast<double>(r.deadline_us - c.now) < (1 - kPatience) * 1000 * r.timeout_ms;
}

}  // namespace

uint32_t choose_in_window(const Core& c, uint32_t engine, uint32_t first, int32_t level_class) {
    const Window window = window_of(c, engine, level_class);
    const double smallest = c.flows[first].key_vt;
    uint32_t impatient = kNone;
    uint32_t best = first;
    double best_score = -1;
    for (uint32_t rank = 0; rank < window.count; ++rank) {
        const uint32_t flow = window.flows[rank];
        const Flow& f = c.flows[flow];
        const Account& account = c.accounts[c.standings[f.standing].account];
        if (f.key_vt > smallest + kSlack / weight_of(c, account, f.priority)) {
            continue;
        }
        const Request& head = c.requests[f.head];
        if (is_impatient(c, head) && (impatient == kNone || f.key_seq < c.flows[impatient].key_seq)) {
            impatient = flow;
        }
        const double score = prefix_part(c, prompt_of(c, head).keys, engine) - kPerRank * rank;
        if (score > best_score) {
            best = flow;
            best_score = score;
        }
    }
    return impatient != kNone ? impatient : best;
}

}  // namespace llm::core
