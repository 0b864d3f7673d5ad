// queue_bench: what the queue costs, and how long the lock is held.
//
//   queue_bench [WAITING]      default 10,000
//
// Thread CPU time, so that a busy machine does not spoil the figures. Exits 1 when a round (a request ends,
// the next one is dispatched and taken up, a new one is queued) costs more than 2 µs (8 µs with llm_routing
// prefix) on average, or the lock is held for longer than 20 µs in the 99th percentile of the calls.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/core/cpu_time.hpp"
#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/core/layout.hpp"

namespace llm::core {
namespace {

constexpr size_t kZoneBytes = size_t{64} << 20;
constexpr uint32_t kRounds = 200'000;

struct Bench {
    void* memory = std::aligned_alloc(64, kZoneBytes);
    Zone zone;
    WakeSet wakes;
    uint32_t process = 0;
    int64_t now = 1'000'000;
    std::vector<ClientView> clients;
    uint32_t random = 1;
    bool by_prefix;

    Bench(uint32_t client_count, Scheduler scheduler, RoutingPolicy routing)
        : by_prefix(routing == RoutingPolicy::prefix) {
        if (memory == nullptr || !format_zone(memory, kZoneBytes) ||
            !zone.attach(memory, kZoneBytes, LockOps{[](void*) {}, [](void*) {}, nullptr})) {
            std::exit(2);
        }
        ClientLoad loader = ClientLoad::begin(zone);
        for (uint32_t i = 0; i < client_count; ++i) {
            ClientRow row;
            const std::string name = "client" + std::to_string(i);
            row.hash = hash_token(name);
            row.name = name;
            row.priority = static_cast<int32_t>(1 + i % 5);
            row.threshold = kUnlimited;
            loader.add(row);
        }
        EngineSpec spec;
        const std::string_view model = "m";
        spec.url = "http://a";
        spec.models = &model;
        spec.model_count = 1;
        spec.max_running = 64;
        spec.address.length = 16;
        Settings settings;
        settings.scheduler = scheduler;
        settings.routing = routing;
        {
            ZoneLock lock(zone);
            process = attach_process(lock, 1, 1, now);
            apply_settings(lock, settings, now, wakes);
            loader.commit(lock, now);
            apply_static_engines(lock, &spec, 1, now, wakes);
        }
        clients.resize(client_count);
        for (uint32_t i = 0; i < client_count; ++i) {
            lookup_client(zone, hash_token("client" + std::to_string(i)), now, 0, clients[i]);
        }
    }
    ~Bench() { std::free(memory); }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    uint32_t draw(uint32_t n) {
        random = random * 1664525u + 1013904223u;
        return static_cast<uint32_t>(uint64_t{random} * n >> 32);
    }

    // Of 64 KiB, all keys: an opening that one in forty has, then a conversation that one in ten thousand
    // has.
    PrefixKeys draw_keys() {
        const uint32_t opening = 1 + draw(40);
        const uint32_t conversation = 1000 + draw(10'000);
        PrefixKeys keys;
        keys.bytes = 1u << 16;
        for (uint32_t i = 0; i < keys.count(); ++i) {
            keys.key[i] = (i < 3 ? opening : conversation) * 8 + i;
        }
        return keys;
    }

    Ticket send() {
        RequestArgs args;
        args.client = &clients[draw(static_cast<uint32_t>(clients.size()))];
        args.model = "m";
        args.stream = true;
        args.prompt_tokens = 200 + draw(1000);
        args.process = process;
        args.random = random;
        const PrefixKeys keys = by_prefix ? draw_keys() : PrefixKeys();
        args.prefix = by_prefix ? &keys : nullptr;
        ZoneLock lock(zone);
        return submit(lock, args, now, 0, wakes).ticket;
    }
};

struct Costs {
    std::vector<int64_t> ns;
    void add(int64_t began) { ns.push_back(cpu_ns() - began); }
    double mean() const {
        double sum = 0;
        for (int64_t value : ns) {
            sum += static_cast<double>(value);
        }
        return sum / static_cast<double>(ns.size());
    }
    int64_t at(double p) {
        std::sort(ns.begin(), ns.end());
        return ns[std::min(ns.size() - 1, static_cast<size_t>(p * static_cast<double>(ns.size())))];
    }
};

bool run(const char* name, uint32_t waiting, uint32_t client_count, Scheduler scheduler,
         RoutingPolicy routing = RoutingPolicy::throughput) {
    Bench bench(client_count, scheduler, routing);
    std::vector<Ticket> running;
    for (uint32_t i = 0; i < waiting + 64; ++i) {
        const Ticket ticket = bench.send();
        if (i < 64) {
            running.push_back(ticket);
        }
    }
    // Each round: one request ends, the next one is dispatched and taken up, a new one is queued. The whole
    // loop is timed for the mean; single calls are timed in a second pass, whose clock reads would spoil the
    // mean.
    Costs held;
    Event event;
    Usage usage;
    usage.exact = true;
    auto round = [&](uint32_t i, bool timed) {
        bench.now += 1000;
        Ticket& slot = running[i % 64];
        int64_t began = timed ? cpu_ns() : 0;
        {
            ZoneLock lock(bench.zone);
            usage.prompt_tokens = 500;
            usage.completion_tokens = 100 + bench.draw(200);
            finish(lock, slot, Outcome::completed, usage, bench.now, bench.wakes);
        }
        if (timed) {
            held.add(began);
            began = cpu_ns();
        }
        uint32_t engine;
        {
            ZoneLock lock(bench.zone);
            if (drain_events(lock, bench.process, &event, 1, bench.now) != 1 ||
                !take_up(lock, event.ticket, bench.now, engine, bench.wakes)) {
                std::exit(2);
            }
            drain_events(lock, bench.process, &event, 0, bench.now);
        }
        slot = event.ticket;
        if (timed) {
            held.add(began);
            began = cpu_ns();
        }
        bench.send();
        if (timed) {
            held.add(began);
        }
    };
    for (uint32_t i = 0; i < 20'000; ++i) {
        round(i, false);
    }
    const int64_t began = cpu_ns();
    for (uint32_t i = 0; i < kRounds; ++i) {
        round(i, false);
    }
    const double mean = static_cast<double>(cpu_ns() - began) / kRounds;
    for (uint32_t i = 0; i < kRounds / 4; ++i) {
        round(i, true);
    }
    Costs sweeps;
    for (uint32_t i = 0; i < 1000; ++i) {
        bench.now += 100'000;
        const int64_t start = cpu_ns();
        ZoneLock lock(bench.zone);
        heartbeat(lock, bench.process, bench.now, bench.wakes);
        sweep(lock, bench.now, 0, i, bench.wakes);
        sweeps.add(start);
    }
    Costs rebuilds;
    for (int i = 0; i < 10; ++i) {
        bench.zone.header()->dirty = 1;
        const int64_t start = cpu_ns();
        { ZoneLock lock(bench.zone); }
        rebuilds.add(start);
    }
    std::printf("%-34s %8u %8u %12.2f us %10.2f us %10.2f us %10.2f us %10.2f ms\n", name, waiting,
                client_count, mean / 1e3, static_cast<double>(held.at(0.5)) / 1e3,
                static_cast<double>(held.at(0.99)) / 1e3, static_cast<double>(sweeps.at(0.5)) / 1e3,
                static_cast<double>(rebuilds.at(0.5)) / 1e6);
    return mean <= (routing == RoutingPolicy::prefix ? 8000 : 2000) && held.at(0.99) <= 20'000;
}

}  // namespace
}  // namespace llm::core

int main(int argc, char** argv) {
    using namespace llm::core;
    constexpr long kMost = 100'000;
    char* end = nullptr;
    const long given = argc > 1 ? std::strtol(argv[1], &end, 10) : 10'000;
    if (argc > 2 || given < 1 || given > kMost || (end != nullptr && *end != '\0')) {
        std::fprintf(stderr, "usage: queue_bench [WAITING], 1 to %ld\n", kMost);
        return 2;
    }
    const auto waiting = static_cast<uint32_t>(given);
    std::printf("%-34s %8s %8s %15s %13s %13s %13s %13s\n", "queue", "waiting", "clients", "finish+dispatch+",
                "call p50", "call p99", "sweep", "rebuild");
    std::printf("%-34s %8s %8s %15s\n", "", "", "", "take up+enqueue");
    bool ok = run("weighted, few clients", waiting, 20, Scheduler::weighted);
    ok = run("weighted, each waits once or twice", waiting, waiting, Scheduler::weighted) && ok;
    ok = run("strict", waiting, waiting, Scheduler::strict) && ok;
    ok = run("weighted, by prefix", waiting, waiting, Scheduler::weighted, RoutingPolicy::prefix) && ok;
    std::printf("%s\n", ok ? "within its bounds" : "OUT OF BOUNDS");
    return ok ? 0 : 1;
}
