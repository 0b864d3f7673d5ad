// A running request: retries, streamed tokens, the end.
#include <cmath>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

// Another engine for a retry: with room, else one seat over its limit. `backups`: one of those, whether
// others are usable or not.
uint32_t other_engine(Core& c, const Request& r, bool backups, uint32_t random) {
    const Pool& p = c.pools[r.pool];
    uint32_t with_room = kNone;
    uint32_t over = kNone;
    const int32_t level_class = r.level_class;
    for (int preferred = r.prefer_org != kNone ? 1 : 0; preferred >= 0; --preferred) {
        for_engines_of(c, p.model, [&](uint32_t i) {
            const Engine& e = c.engines[i];
            const bool serves = backups ? e.backup != 0 && pool_admits(p, e, i) : engine_serves(c, e, p);
            if (was_tried(r, i) || !engine_usable(e) || !serves ||
                (preferred != 0 && e.org != r.prefer_org)) {
                return true;
            }
            const double load = load_with_one_more(e);
            if (room_for(c, e, level_class).open) {
                const double least = with_room == kNone ? INFINITY : load_with_one_more(c.engines[with_room]);
                if (load < least || (load == least && mix32(random + i) < mix32(random + with_room))) {
                    with_room = i;
                }
            } else if (uint64_t{e.held} + e.foreign < static_cast<uint64_t>(e.limit) + 1) {
                over = over == kNone ? i : over;
            }
            return true;
        });
    }
    return with_room != kNone ? with_room : over;
}

// The probe has an outcome: the breaker may send another one.
void end_probe(Engine& e, Request& r) {
    e.probe_out = r.probe != 0 ? 0 : e.probe_out;
    r.probe = 0;
}

RequestSummary summarise(const Core& c, const Request& r) {
    RequestSummary s;
    s.valid = true;
    s.engine = r.engine;
    s.model = r.model;
    s.priority = r.priority;
    s.attempts = r.attempts;
    s.arrived_us = r.arrived_us;
    s.dispatched_us = r.dispatched_us;
    s.first_token_us = r.first_token_us;
    s.ended_us = c.now;
    return s;
}

// The tokens of a stream that came after the last charge(): it is told of them in batches.
void observe_rest(Core& c, const Request& r, const Usage& usage) {
    if (r.first_token_us == 0 || usage.streamed_tokens <= r.completion_tokens) {
        return;
    }
    const uint32_t fresh = usage.streamed_tokens - r.completion_tokens;
    const int64_t elapsed = usage.last_token_us - r.last_token_us;
    observe_many(counters_of(c, r.model).inter_token, kInterTokenBounds, std::size(kInterTokenBounds), elapsed / fresh,
                 fresh);
}

// Ends a RUNNING request. `counts` false: another one will be counted in its place.
RequestSummary end(Core& c, Ticket ticket, Outcome outcome, const Usage& usage, bool counts) {
    Request* found = find_request(c, ticket);
    if (found == nullptr || state_of(*found) != RequestState::running) {
        return {};
    }
    Request& r = *found;
    const uint32_t account = r.account;
    observe_rest(c, r, usage);
    // All but answers and clients that left, whose engine may have worked: also what the gateway could not send.
    const bool failed = outcome != Outcome::completed && outcome != Outcome::cancelled_running;
    if (failed && r.head_us == 0 && r.completion_tokens == 0) {
        if (outcome == Outcome::timeout && r.lease != 0) {
            engine_failed(c, c.engines[r.engine], mix32(static_cast<uint64_t>(c.now) ^ r.seq));
        }
        refund(c, r);
        r.prompt_tokens = 0;
    } else if (outcome == Outcome::cancelled_running) {
        settle_cancelled(c, r, usage);
    } else {
        true_up(c, r, usage);
    }
    if (outcome == Outcome::completed && r.engine != kNone && c.engines[r.engine].used != 0) {
        Engine& e = c.engines[r.engine];
        e.served++;
        e.success_us = c.now;
        measure_answer(c, e, r, usage);
    }
    if (counts) {
        ModelCounters& m = counters_of(c, r.model);
        bump(m.outcomes[static_cast<size_t>(outcome)]);
        observe(m.duration, kDurationBounds, std::size(kDurationBounds), c.now - r.arrived_us);
    }
    RequestSummary summary = summarise(c, r);
    summary.usage = usage;
    summary.usage.prompt_tokens = r.prompt_tokens;
    summary.usage.completion_tokens = r.completion_tokens;
    learn_seat_time(c, r);
    const uint32_t engine = drop_lease(c, r);
    free_request(c, r);
    after_release(c, account, engine);
    return summary;
}

}  // namespace

RetryAnswer retry(const ZoneLock& lock, Ticket ticket, Failure cause, uint32_t retries, WhenFull full,
                  int64_t now_us, uint32_t random, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    RetryAnswer answer;
    Request* found = find_request(c, ticket);
    if (found == nullptr || state_of(*found) != RequestState::running || found->lease == 0) {
        return answer;
    }
    Request& r = *found;
    answer.attempts = r.attempts;
    if (cause == Failure::stale_connection) {
        answer.action = RetryAction::again;
        answer.engine = r.engine;
        return answer;
    }
    const bool saturated = cause == Failure::status_429 || cause == Failure::status_503;
    const bool lost = !saturated && cause != Failure::status_4xx;
    const uint32_t failed = r.engine;
    Engine& e = c.engines[failed];
    end_probe(e, r);
    if (saturated) {
        engine_saturated(c, e);
    } else if (cause == Failure::status_4xx) {
        engine_succeeded(c, e, r.granted_us);
    } else {
        engine_failed(c, e, random);
    }
    r.tried[(r.attempts - 1) % kTried] = failed;
    r.failed = r.attempts;
    uint32_t next = kNone;
    if (r.attempts <= retries) {
        next = other_engine(c, r, false, random);
        if (next == kNone && !saturated) {
            // its breaker may still be closed, but for this request nobody else is usable
            next = other_engine(c, r, true, random);
        }
        if (next == kNone && saturated && engine_is_placed(e)) {
            next = failed;
        }
    }
    if (next == kNone && full == WhenFull::wait && lost && r.attempts <= retries && wait_again(c, r)) {
        answer.action = RetryAction::wait;
        answer.wait_ms = static_cast<uint32_t>((r.deadline_us - c.now) / 1000);
        return answer;
    }
    if (next == kNone) {
        answer.action = saturated ? RetryAction::pass : RetryAction::fail;
        return answer;
    }
    const uint32_t account = r.account;
    drop_lease(c, r);
    take_lease(c, r, next);
    r.attempts++;
    r.head_us = 0;
    answer.action = RetryAction::again;
    answer.engine = next;
    answer.attempts = r.attempts;
    after_release(c, account, failed);
    return answer;
}

void response_head(const ZoneLock& lock, Ticket ticket, uint32_t status, int64_t now_us, uint32_t random,
                   WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* r = find_request(c, ticket);
    if (r == nullptr || state_of(*r) != RequestState::running || r->head_us != 0 || r->engine == kNone) {
        return;
    }
    r->head_us = now_us;
    if (r->lease == 0) {
        return;
    }
    Engine& e = c.engines[r->engine];
    end_probe(e, *r);
    if (status == 500 || status == 502 || status == 504) {
        engine_failed(c, e, random);
    } else if (status == 429 || status == 503) {
        engine_saturated(c, e);
    } else {
        engine_succeeded(c, e, r->granted_us);
    }
}

void charge(const ZoneLock& lock, Ticket ticket, uint32_t completion_tokens, bool blocked, int64_t now_us,
            WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* found = find_request(c, ticket);
    if (found == nullptr || state_of(*found) != RequestState::running ||
        found->completion_tokens >= completion_tokens) {
        return;
    }
    Request& r = *found;
    const uint32_t before = r.completion_tokens;
    ModelCounters& m = counters_of(c, r.model);
    if (r.first_token_us == 0) {
        r.first_token_us = now_us;
        observe(m.first_token, kFirstTokenBounds, std::size(kFirstTokenBounds), now_us - r.arrived_us);
        observe_many(m.inter_token, kInterTokenBounds, std::size(kInterTokenBounds), 0, completion_tokens - 1);
    } else {
        const uint32_t fresh = completion_tokens - before;
        const int64_t elapsed = now_us - r.last_token_us;
        observe_many(m.inter_token, kInterTokenBounds, std::size(kInterTokenBounds), elapsed / fresh, fresh);
        if (!blocked && r.lease != 0) {
            c.engines[r.engine].own_tokens += fresh;
            c.engines[r.engine].own_user_seconds += static_cast<double>(elapsed) / 1e6 * r.seats;
        }
    }
    r.last_token_us = now_us;
    charge_output(c, r, completion_tokens);
    refresh_hold(c, r.account);
}

void release_lease(const ZoneLock& lock, Ticket ticket, int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    Request* r = find_request(c, ticket);
    if (r == nullptr || state_of(*r) != RequestState::running || r->lease == 0) {
        return;
    }
    if (r->stream == 0) {
        r->last_token_us = c.now;
    }
    const uint32_t account = r->account;
    learn_seat_time(c, *r);
    const uint32_t engine = drop_lease(c, *r);
    after_release(c, account, engine);
}

RequestSummary finish(const ZoneLock& lock, Ticket ticket, Outcome outcome, const Usage& usage,
                      int64_t now_us, WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    return end(c, ticket, outcome, usage, true);
}

void abandon(const ZoneLock& lock, Ticket ticket, Outcome outcome, const Usage& usage, int64_t now_us,
             WakeSet& wakes) {
    Core c(lock, now_us, wakes);
    end(c, ticket, outcome, usage, false);
}

}  // namespace llm::core
