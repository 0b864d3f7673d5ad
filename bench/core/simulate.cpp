// simulate: the scheduler with a fake clock, on recorded traces, beside simpler ones.
//
//   simulate [TRACE_DIRECTORY]
//
// Prints the tables of bench/RESULTS.md (order of service; admission law; the arena trace; shared beginnings)
// and exits 1 when ours misses what it promises: share error ≤ .01, Jain ≥ .99, service difference within its
// bound, ≤ 4 % of requests slow and ≤ 1 % of 5 s windows below the minimum with reports every ≤ 1 s, ≥ 5,200
// tokens/s, and `prefix` finding more in caches than `throughput` and answering no later.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>

#include "bench/core/gateways.hpp"

namespace llm::sim {
namespace {

constexpr uint32_t kEngines = 4;
constexpr double kMinimum = 25;  // tokens/s per user
constexpr double kQueueTimeoutS = 60;
constexpr double kAzureSpeed = 6;  // 1.3 times what four engines carry
constexpr double kWarmUpS = 30;

int failures = 0;

void expect(bool holds, const char* what) {
    if (!holds) {
        std::printf("  ** missed: %s\n", what);
        failures++;
    }
}

double percentile(std::vector<double> values, double p) {
    if (values.empty()) {
        return 0;
    }
    std::sort(values.begin(), values.end());
    return values[std::min(values.size() - 1, static_cast<size_t>(p * static_cast<double>(values.size())))];
}

// Wait of each job of the clients that `which` accepts, seconds; jobs still waiting count with their age.
std::vector<double> waits(const World& world, double from_s, const std::function<bool(uint32_t)>& which) {
    std::vector<double> all;
    for (const Job& job : world.jobs()) {
        if (which(job.client) && static_cast<double>(job.arrival_us) >= from_s * 1e6 &&
            job.arrival_us <= world.now()) {
            const int64_t end = job.started_us >= 0 ? job.started_us : world.now();
            all.push_back(static_cast<double>(end - job.arrival_us) / 1e6);
        }
    }
    return all;
}

// ---- the admission law ------------------------------------------------------------------------------------

void law_row(const char* name, const std::vector<Job>& trace, double report_s, bool ours, Law law,
             double cap) {
    std::map<uint32_t, double> weights = {{0, 1.0}};
    Ledger ledger(weights);
    std::unique_ptr<Gateway> gateway;
    CoreGateway* core = nullptr;
    if (ours) {
        auto made = std::make_unique<CoreGateway>(ledger, 1e9, weights, kEngines, kMinimum);
        core = made.get();
        gateway = std::move(made);
    } else {
        gateway =
            std::make_unique<Baseline>(ledger, 1e9, weights, Discipline::fifo, law, cap, kEngines, kMinimum);
    }
    World world(trace, kEngines, report_s, kQueueTimeoutS, *gateway);
    const double end_s = static_cast<double>(trace.back().arrival_us) / 1e6;
    world.run(end_s);
    const double tokens = world.tokens_between(kWarmUpS, end_s) / (end_s - kWarmUpS);
    world.run(end_s + 300);
    const double slow = world.slow_requests(kMinimum);
    const double windows = world.slow_windows(kMinimum, kWarmUpS, end_s);
    uint32_t timed_out = 0;
    for (const Job& job : world.jobs()) {
        timed_out += job.timed_out ? 1 : 0;
    }
    std::printf("  %-46s %8.0f %10.1f %% %10.1f %% %9u %10.1f %%\n", name, tokens, 100 * slow, 100 * windows,
                world.largest_batch(), 100.0 * timed_out / static_cast<double>(world.jobs().size()));
    if (core != nullptr) {
        if (report_s <= 1) {
            expect(slow <= 0.04, "at most 4 % of requests slower than the minimum");
            expect(windows <= 0.01, "at most 1 % of an engine's 5 s windows below the minimum");
        }
        expect(tokens >= 5200, "at least 5,200 tokens/s");
        const char* wrong = core->check();
        expect(wrong == nullptr, wrong != nullptr ? wrong : "");
    }
}

void law_table(const std::vector<Job>& trace) {
    std::printf(
        "\nAdmission law: %u engines, Azure 2023 conversation x%.0f, minimum %.0f tokens/s per user\n",
        kEngines, kAzureSpeed, kMinimum);
    std::printf("  %-46s %8s %12s %12s %9s %12s\n", "law", "tokens/s", "slow requests", "slow 5 s", "batch",
                "timed out");
    law_row("none", trace, 0.5, false, Law::none, 0);
    law_row("wait while the reported average is low", trace, 0.5, false, Law::reported_average, 0);
    law_row("fixed cap 36", trace, 0.5, false, Law::cap, 36);
    law_row("fixed cap 44", trace, 0.5, false, Law::cap, 44);
    law_row("fixed cap 52", trace, 0.5, false, Law::cap, 52);
    law_row("AIMD", trace, 0.5, false, Law::aimd, 0);
    law_row("ours, reports every 0.25 s", trace, 0.25, true, Law::none, 0);
    law_row("ours, reports every 0.5 s", trace, 0.5, true, Law::none, 0);
    law_row("ours, reports every 1 s", trace, 1, true, Law::none, 0);
    law_row("ours, reports every 2 s", trace, 2, true, Law::none, 0);
}

// ---- the order of service ---------------------------------------------------------------------------------

constexpr uint32_t kLight = 5;

// Four clients of weights 1, 1, 2, 4 keep different numbers of requests waiting; a light one sends one
// request every two seconds.
void order_row(const char* name, const std::vector<Job>& sizes, bool ours, Discipline discipline) {
    const std::map<uint32_t, double> weights = {{1, 1.0}, {2, 1.0}, {3, 2.0}, {4, 4.0}, {kLight, 1.0}};
    const std::map<uint32_t, uint32_t> backlog = {{1, 600}, {2, 300}, {3, 200}, {4, 250}};
    Ledger ledger(weights);
    ledger.saturated = {1, 2, 3, 4};
    for (const Job& job : sizes) {
        ledger.prompt_max = std::max(ledger.prompt_max, double{1.0} * job.prompt);
        ledger.output_max = std::max(ledger.output_max, double{1.0} * job.output);
    }
    std::unique_ptr<Gateway> gateway;
    CoreGateway* core = nullptr;
    if (ours) {
        auto made = std::make_unique<CoreGateway>(ledger, kWarmUpS, weights, kEngines, kMinimum);
        core = made.get();
        gateway = std::move(made);
    } else {
        gateway = std::make_unique<Baseline>(ledger, kWarmUpS, weights, discipline, Law::cap, 44, kEngines,
                                             kMinimum);
    }
    size_t next = 0;
    auto make = [&](uint32_t client, int64_t at) {
        Job job = sizes[next++ % sizes.size()];
        job.client = client;
        job.arrival_us = at;
        return job;
    };
    std::vector<Job> jobs;
    for (auto [client, count] : backlog) {
        for (uint32_t i = 0; i < count; ++i) {
            jobs.push_back(make(client, i));
        }
    }
    for (int64_t at = 1'000'000; at < 630'000'000; at += 2'000'000) {
        jobs.push_back(make(kLight, at));
    }
    World world(jobs, kEngines, 0.5, 1e9, *gateway);
    world.on_end = [&](Job& job) {
        if (job.client != kLight) {
            world.add(make(job.client, world.now()));
        }
    };
    world.run(kWarmUpS + 600);
    const double light =
        percentile(waits(world, kWarmUpS, [](uint32_t client) { return client == kLight; }), 0.99);
    std::printf("  %-34s %12.4f %10.3f %16.0f %14.2f %18.1f s\n", name, ledger.share_error(), ledger.jain(),
                ledger.largest_difference(), ledger.worst_over_bound(), light);
    if (core != nullptr) {
        expect(ledger.share_error() <= 0.01, "share error at most .01");
        expect(ledger.jain() >= 0.99, "Jain at least .99");
        expect(ledger.worst_over_bound() <= 1, "service difference within its bound");
        const char* wrong = core->check();
        expect(wrong == nullptr, wrong != nullptr ? wrong : "");
    }
}

void order_table(const std::vector<Job>& sizes) {
    std::printf("\nOrder of service: 4 clients saturated, weights 1, 1, 2, 4, and a light one; 600 s\n");
    std::printf("  %-34s %12s %10s %16s %14s %20s\n", "discipline", "share error", "Jain(W/w)",
                "max difference", "of its bound", "light client p99");
    order_row("FIFO", sizes, false, Discipline::fifo);
    order_row("strict", sizes, false, Discipline::strict);
    order_row("round robin by request", sizes, false, Discipline::round_robin);
    order_row("charge max_tokens, refund later", sizes, false, Discipline::charge_max);
    order_row("ours: VTC, charged as generated", sizes, true, Discipline::fifo);
}

// ---- the arena trace --------------------------------------------------------------------------------------

void arena_row(const char* name, const std::vector<Job>& trace, bool ours) {
    std::map<uint32_t, double> weights;
    std::map<uint32_t, uint32_t> count;
    Ledger* ledger = nullptr;
    for (const Job& job : trace) {
        weights[job.client] = 1;
        count[job.client]++;
    }
    Ledger made_ledger(weights);
    ledger = &made_ledger;
    for (const Job& job : trace) {
        ledger->prompt_max = std::max(ledger->prompt_max, double{1.0} * job.prompt);
        ledger->output_max = std::max(ledger->output_max, double{1.0} * job.output);
    }
    std::unique_ptr<Gateway> gateway;
    CoreGateway* core = nullptr;
    if (ours) {
        auto made = std::make_unique<CoreGateway>(*ledger, 0, weights, 1, kMinimum);
        core = made.get();
        gateway = std::move(made);
    } else {
        gateway =
            std::make_unique<Baseline>(*ledger, 0, weights, Discipline::fifo, Law::cap, 44, 1, kMinimum);
    }
    World world(trace, 1, 0.5, 1e9, *gateway);
    world.run(1e6 / 1e3 * 2);
    auto light = [&](uint32_t client) { return count[client] * 4 <= trace.size() / count.size(); };
    auto heavy = [&](uint32_t client) { return count[client] >= 3 * trace.size() / count.size(); };
    std::printf("  %-34s %14.1f s %14.1f s %16.0f %14.2f\n", name, percentile(waits(world, 0, light), 0.99),
                percentile(waits(world, 0, heavy), 0.99), ledger->largest_difference(),
                ledger->worst_over_bound());
    if (core != nullptr) {
        expect(ledger->worst_over_bound() <= 1, "service difference within its bound");
        const char* wrong = core->check();
        expect(wrong == nullptr, wrong != nullptr ? wrong : "");
    }
}

void arena_table(const std::vector<Job>& trace) {
    std::printf("\nArena trace x10 on one engine: 27 clients of very different rates, equal weights\n");
    std::printf("  %-34s %16s %16s %16s %14s\n", "discipline", "light p99 wait", "heavy p99 wait",
                "max difference", "of its bound");
    arena_row("FIFO", trace, false);
    arena_row("ours", trace, true);
}

// ---- shared beginnings ------------------------------------------------------------------------------------

// Conversations, each of several turns on one of a few system prompts: every turn sends all that was said
// before.
class Conversations {
  public:
    static constexpr uint32_t kClients = 20;
    static constexpr uint32_t kOpenings = 40;
    static constexpr double kLengthS = 900;

    Conversations(double per_second, uint32_t opening_tokens, uint32_t document_tokens)
        : opening_tokens_(opening_tokens), document_tokens_(document_tokens) {
        for (double at = 0; at < kLengthS; at += exponential(1 / per_second)) {
            Job job;
            job.conversation = ++last_;
            job.client = 1 + draw() % kClients;
            job.opening = 1 + draw() % kOpenings;
            job.opening_tokens = opening_tokens_;
            job.prompt = opening_tokens_ + draw() % (2 * document_tokens_ + 1) + 50;
            job.output = 20 + draw() % 400;
            job.arrival_us = static_cast<int64_t>(at * 1e6);
            jobs.push_back(job);
        }
    }

    // The next turn, after the user has read and thought; false when that was the last one.
    bool next_turn(const Job& last, int64_t now, Job& next) {
        if (last.timed_out || draw() % 5 == 0) {
            return false;
        }
        next = Job();
        next.client = last.client;
        next.opening = last.opening;
        next.opening_tokens = last.opening_tokens;
        next.conversation = last.conversation;
        next.turn = last.turn + 1;
        next.prompt = last.prompt + last.generated + 20 + draw() % 200;
        next.output = 20 + draw() % 400;
        next.arrival_us = now + static_cast<int64_t>((5 + exponential(20)) * 1e6);
        return true;
    }

    std::vector<Job> jobs;

  private:
    uint32_t draw() {
        state_ = state_ * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<uint32_t>(state_ >> 33);
    }
    double exponential(double mean) { return -mean * std::log((draw() + 1.0) / 2147483649.0); }

    uint32_t opening_tokens_;
    uint32_t document_tokens_;
    uint32_t last_ = 0;
    uint64_t state_ = 1;
};

struct PrefixResult {
    double hits = 0;
    double first_token_p50 = 0;
};

PrefixResult prefix_row(const char* name, Conversations talk, core::RoutingPolicy routing) {
    std::map<uint32_t, double> weights;
    for (uint32_t client = 1; client <= Conversations::kClients; ++client) {
        weights[client] = 1;
    }
    Ledger ledger(weights);
    CoreGateway gateway(ledger, 1e9, weights, kEngines, kMinimum, routing);
    World world(talk.jobs, kEngines, 0.5, kQueueTimeoutS, gateway);
    world.on_end = [&](Job& job) {
        Job next;
        if (talk.next_turn(job, world.now(), next)) {
            world.add(next);
        }
    };
    world.run(Conversations::kLengthS);
    double prompt = 0;
    double cached = 0;
    double timed_out = 0;
    std::vector<double> first_token;
    for (const Job& job : world.jobs()) {
        if (static_cast<double>(job.arrival_us) < kWarmUpS * 1e6) {
            continue;
        }
        timed_out += job.timed_out ? 1 : 0;
        if (job.first_token_us >= 0) {
            prompt += job.prompt;
            cached += job.cached;
            first_token.push_back(static_cast<double>(job.first_token_us - job.arrival_us) / 1e6);
        }
    }
    const PrefixResult result{cached / prompt, percentile(first_token, 0.5)};
    std::printf(
        "  %-34s %10.3f %12.2f s %12.2f s %10zu %9.0f %10.1f %%\n", name, result.hits, result.first_token_p50,
        percentile(first_token, 0.99), first_token.size(),
        world.tokens_between(kWarmUpS, Conversations::kLengthS) / (Conversations::kLengthS - kWarmUpS),
        100 * timed_out / (timed_out + static_cast<double>(first_token.size())));
    const char* wrong = gateway.check();
    expect(wrong == nullptr, wrong != nullptr ? wrong : "");
    return result;
}

void prefix_table() {
    std::printf(
        "\nShared beginnings: conversations with 40 system prompts, %u engines that cache %lu tokens\n",
        kEngines, static_cast<unsigned long>(PrefixCache::kTokens));
    std::printf("  %-34s %10s %14s %14s %10s %9s %12s\n", "load, llm_routing", "cached", "first tok. p50",
                "p99", "answered", "tokens/s", "timed out");
    for (double load : {1.0, 2.0, 3.0}) {
        const Conversations talk(load, 1000, 2000);
        char name[64];
        std::snprintf(name, sizeof name, "%.1f/s, throughput", load);
        const PrefixResult without = prefix_row(name, talk, core::RoutingPolicy::throughput);
        std::snprintf(name, sizeof name, "%.1f/s, prefix", load);
        const PrefixResult with = prefix_row(name, talk, core::RoutingPolicy::prefix);
        expect(with.hits > without.hits && with.first_token_p50 <= without.first_token_p50,
               "prefix routing finds more and answers sooner");
    }
}

int main_(int argc, char** argv) {
    const std::string directory = argc > 1 ? argv[1] : LLM_TRACES;
    const std::vector<Job> azure = read_trace(directory + "/azure_2023_conversation.csv", kAzureSpeed);
    const std::vector<Job> arena = read_trace(directory + "/arena_27_clients.csv", 10);
    if (azure.empty() || arena.empty()) {
        std::fprintf(stderr, "simulate: no traces in %s\n", directory.c_str());
        return 2;
    }
    order_table(azure);
    law_table(azure);
    arena_table(arena);
    prefix_table();
    std::printf("\n%s\n", failures == 0 ? "all promises kept" : "PROMISES MISSED");
    return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace llm::sim

int main(int argc, char** argv) {
    return llm::sim::main_(argc, argv);
}
