// Requests whose engine failed before its first byte, while every other engine was full: they wait once more.
//
// Each waits in a pool that the engines do not serve which it has failed on, so that it goes to another one
// and blocks nobody who may go there. All else is as for those who wait for the first time: the charge is
// given back, so the client's counter stands where it stood, and the place within its flow follows from the
// arrival. Once it is granted, a request belongs to the pool that it came from, and with the last the pool
// goes.
#include <algorithm>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

// What its pool shuns: each engine once, ascending, then kNone, which is larger than all of them.
void failed_on(const Request& r, uint32_t (&engines)[kTried]) {
    std::copy(std::begin(r.tried), std::end(r.tried), engines);
    std::sort(std::begin(engines), std::end(engines));
    std::fill(std::unique(std::begin(engines), std::end(engines)), std::end(engines), kNone);
}

// Whether an engine that the request has not failed on will have room some day.
bool others_are_usable(const Core& c, const Request& r) {
    Pool wanted = c.pools[r.pool];
    wanted.temporary = 1;
    failed_on(r, wanted.shunned);
    bool found = false;
    for_engines_of(c, wanted.model, [&](uint32_t i) {
        const Engine& e = c.engines[i];
        found = engine_usable(e) && engine_serves(c, e, wanted);
        return !found;
    });
    return found;
}

}  // namespace

uint32_t lasting_pool(Core& c, uint32_t pool) {
    const Pool& p = c.pools[pool];
    return p.temporary != 0 ? find_pool(c, p.model, p.org) : pool;
}

uint32_t pool_to_wait_in(Core& c, const Request& r) {
    if (r.failed == 0) {
        return r.pool;
    }
    const Pool& own = c.pools[r.pool];
    uint32_t shunned[kTried];
    failed_on(r, shunned);
    for (uint32_t i = c.models[own.model].pools_head; i != kNone; i = c.pools[i].next) {
        const Pool& p = c.pools[i];
        if (p.org == own.org && p.temporary != 0 &&
            std::equal(std::begin(shunned), std::end(shunned), p.shunned)) {
            return i;
        }
    }
    return make_temporary_pool(c, own.model, own.org, shunned);
}

bool wait_again(Core& c, Request& r) {
    const int64_t most = int64_t{r.timeout_ms} * 1000;
    const int64_t waited = int64_t{r.waited_ms} * 1000;
    if (waited >= most || c.accounts[r.account].revoked != 0 || r.mailed != 0 || !others_are_usable(c, r)) {
        return false;
    }
    const uint32_t pool = pool_to_wait_in(c, r);
    if (pool == kNone) {
        return false;
    }
    r.head_us = 0;
    r.queued_us = c.now - waited;
    r.deadline_us = r.queued_us + most;
    r.parked = 0;
    c.header.running--;
    put_back(c, r, pool);
    return true;
}

void forgive_engine(Core& c, uint32_t engine) {
    for (uint32_t i = 0; i < c.header.pool_end; ++i) {
        Pool& p = c.pools[i];
        if (p.used != 0 && p.temporary != 0 && is_among(p.shunned, engine)) {
            std::replace(std::begin(p.shunned), std::end(p.shunned), engine, kNone);
            std::sort(std::begin(p.shunned), std::end(p.shunned));
        }
    }
}

}  // namespace llm::core
