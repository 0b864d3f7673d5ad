// Charging: what a request costs its client, in virtual time.
//
// cost = 1·prompt + 0.1·cached prompt + 2·completion tokens; vt grows by cost / weight. Output is charged
// ahead: a quarter of what is predicted for a stream (the rest is seen as it flows), all of it for other
// requests (nothing of them is visible before the end). Each charge is remembered in vt units on the request,
// so that a refund gives back exactly what was taken whatever became of the weight.
#include <algorithm>
#include <cmath>

#include "ngx_module/core/core.hpp"

namespace llm::core {
namespace {

constexpr double kCachedCost = 0.1;
constexpr double kOutputCost = 2;
constexpr double kStreamAhead = 0.25;
constexpr float kPredictGain = 0.2f;
constexpr uint32_t kFirstPrediction = 256;  // completion tokens, before anything was seen
constexpr uint32_t kMaxTokens = 100'000'000;
constexpr double kDefaultSpeed = 30;  // tokens/s, where the engine's is not known

void charge_cost(Core& c, Request& r, double cost) {
    const double vt = cost / weight_of(c, c.accounts[r.account], r.priority);
    r.charged_cost += cost;
    r.charged_vt += vt;
    add_vt(c, r.standing, vt);
    LLM_TRACE(c, TraceKind::charged, r, vt);
}

// Gives part of what was charged back; what remains is `cost`.
void reduce_to(Core& c, Request& r, double cost) {
    if (r.charged_cost <= 0) {
        return;
    }
    const double vt = r.charged_vt * (1 - cost / r.charged_cost);
    r.charged_cost = cost;
    r.charged_vt -= vt;
    add_vt(c, r.standing, -vt);
    LLM_TRACE(c, TraceKind::charged, r, -vt);
}

void settle(Core& c, Request& r, double cost) {
    if (cost > r.charged_cost) {
        charge_cost(c, r, cost - r.charged_cost);
    } else {
        reduce_to(c, r, cost);
    }
    r.precharge_left = 0;
}

// What tokens_per_minute counts for the request becomes `prompt` + `completion`. More than before is counted now;
// fewer are taken from where they were counted, and only as far as that lies within the minute still.
void set_window(Core& c, Request& r, uint64_t prompt, uint64_t completion) {
    const auto capped = [](uint64_t tokens) {
        return int64_t{tokens < kMaxTokens ? static_cast<uint32_t>(tokens) : kMaxTokens};
    };
    const int64_t old_prompt = r.window_prompt;
    const int64_t old_completion = r.window_completion;
    const int64_t dispatched = r.dispatched_us != 0 ? r.dispatched_us : c.now;
    if (const int64_t more = capped(prompt) - old_prompt; more < 0) {
        take_from_window(c, r.account, dispatched, dispatched, -more);
    } else if (more > 0) {
        count_window(c, r.account, more);
    }
    if (const int64_t more = capped(completion) - old_completion; more < 0) {
        take_from_window(c, r.account, dispatched, c.now, -more);
    } else if (more > 0) {
        count_window(c, r.account, more);
    }
    r.window_prompt = static_cast<uint32_t>(capped(prompt));
    r.window_completion = static_cast<uint32_t>(capped(completion));
}

void learn(float& mean, uint32_t tokens) {
    const auto value = static_cast<float>(tokens < kMaxTokens ? tokens : kMaxTokens);
    mean = mean > 0 ? mean + kPredictGain * (value - mean) : value;
}

}  // namespace

void charge_dispatch(Core& c, Request& r) {
    Account& a = c.accounts[r.account];
    const float mean = a.predicted > 0 ? a.predicted : c.models[r.model].predicted;
    auto predicted = mean > 0 ? static_cast<uint32_t>(mean) : kFirstPrediction;
    if (r.predicted != 0 && predicted > r.predicted) {
        predicted = r.predicted;  // until here it holds the request's max_output_tokens
    }
    r.predicted = predicted;
    r.precharge_left = kOutputCost * predicted * r.seats * (r.stream != 0 ? kStreamAhead : 1.0);
    charge_cost(c, r, r.prompt_tokens + r.precharge_left);
    set_window(c, r, r.prompt_tokens, 0);
}

void charge_output(Core& c, Request& r, uint32_t completion_tokens) {
    if (completion_tokens <= r.completion_tokens || completion_tokens > kMaxTokens) {
        return;
    }
    const uint32_t fresh = completion_tokens - r.completion_tokens;
    r.completion_tokens = completion_tokens;
    const double cost = kOutputCost * fresh;
    const double ahead = cost < r.precharge_left ? cost : r.precharge_left;
    r.precharge_left -= ahead;
    if (cost > ahead) {
        charge_cost(c, r, cost - ahead);
    }
    set_window(c, r, r.window_prompt, completion_tokens);
}

void true_up(Core& c, Request& r, const Usage& usage) {
    uint32_t completion = usage.completion_tokens < kMaxTokens ? usage.completion_tokens : kMaxTokens;
    if (!usage.exact && completion < r.completion_tokens) {
        completion = r.completion_tokens;
    }
    uint32_t prompt = usage.exact ? usage.prompt_tokens : r.prompt_tokens;
    prompt = prompt < kMaxTokens ? prompt : kMaxTokens;
    const uint32_t cached = usage.cached_tokens < prompt ? usage.cached_tokens : prompt;
    r.prompt_tokens = prompt;
    r.completion_tokens = completion;
    settle(c, r, (prompt - cached) + kCachedCost * cached + kOutputCost * completion);
    set_window(c, r, prompt, completion);
    count_tokens(c, r, prompt, completion);
    bump(counters_of(c, r.model).cached_tokens, uint64_t{cached});
    if (!usage.exact) {
        bump(c.header.counters.tokens_estimated, uint64_t{completion});
    }
    if (prompt != 0 || completion != 0) {  // not an engine's refusal, which says nothing of answers
        learn(c.accounts[r.account].predicted, completion / r.seats);
        learn(c.models[r.model].predicted, completion / r.seats);
    }
}

void refund(Core& c, Request& r) {
    add_vt(c, r.standing, -r.charged_vt);
    LLM_TRACE(c, TraceKind::charged, r, -r.charged_vt);
    r.charged_cost = r.charged_vt = r.precharge_left = 0;
    set_window(c, r, 0, 0);
}

void settle_cancelled(Core& c, Request& r, const Usage& usage) {
    if (usage.exact) {
        return true_up(c, r, usage);  // all of it was there, its client did not wait for the end
    }
    uint32_t completion = std::max(r.completion_tokens, std::min(usage.completion_tokens, kMaxTokens));
    if (r.stream == 0) {
        // Nothing of it was seen: what the engine must have generated since it was sent.
        const Engine& e = c.engines[r.engine];
        const double speed = e.eu > 0 && e.et > 0 ? e.et / e.eu : kDefaultSpeed;
        const double made = speed * static_cast<double>(c.now - r.granted_us) / 1e6 * r.seats;
        const double most = static_cast<double>(r.predicted) * r.seats;
        completion = static_cast<uint32_t>(made < most ? made : most);
    }
    r.completion_tokens = completion;
    settle(c, r, r.prompt_tokens + kOutputCost * completion);
    set_window(c, r, r.prompt_tokens, completion);
    count_tokens(c, r, r.prompt_tokens, completion);
    bump(c.header.counters.tokens_estimated, uint64_t{completion});
}

}  // namespace llm::core
