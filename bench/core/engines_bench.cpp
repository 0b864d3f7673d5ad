// engines_bench: what each call under the lock costs when one model has many engines.
//
//   engines_bench
//
// Thread CPU time, so that a busy machine does not spoil the figures. Every engine reports in turn; requests begin and end while
// half of the seats are taken. Exits 1 when a report costs more than five times as much with 2,000 engines as with 20 (memory that no
// cache holds may cost so much, looking for one engine among all may not).
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "bench/core/cpu_time.hpp"
#include "ngx_module/core/dispatcher.hpp"
#include "ngx_module/core/layout.hpp"

namespace llm::core {
namespace {

constexpr size_t kZoneBytes = size_t{512} << 20;
constexpr uint32_t kSeats = 4;  // of each engine
constexpr uint32_t kFew = 20, kMany = 2000;
constexpr double kMostTimes = 5;

struct Costs {
    double report;   // ns
    double request;  // ns, submitted and finished
};

class Bench {
  public:
    explicit Bench(uint32_t engines) : memos_(engines) {
        if (memory_ == nullptr || !format_zone(memory_, kZoneBytes) ||
            !zone_.attach(memory_, kZoneBytes, LockOps{[](void*) {}, [](void*) {}, nullptr})) {
            std::exit(2);
        }
        ClientLoad loader = ClientLoad::begin(zone_);
        ClientRow row;
        row.hash = hash_token("client");
        row.name = "client";
        row.threshold = kUnlimited;
        loader.add(row);
        {
            ZoneLock lock(zone_);
            process_ = attach_process(lock, 1, 1, now_);
            apply_settings(lock, Settings(), now_, wakes_);
            loader.commit(lock, now_);
        }
        lookup_client(zone_, hash_token("client"), now_, 0, client_);
        for (uint32_t i = 0; i < engines; ++i) {
            EngineReport report;
            report.id = "gpu" + std::to_string(i % 8) + "@host-" + std::to_string(i / 8);
            report.url = "http://10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250 + 1) + ":8000";
            report.models = {"m"};
            report.state = EngineState::ready;
            report.boot = 1;
            report.ttl_ms = 3000;
            report.max_running = kSeats;
            report.has_counters = true;
            reports_.push_back(report);
            apply(i);
        }
    }
    ~Bench() { std::free(memory_); }
    Bench(const Bench&) = delete;
    Bench& operator=(const Bench&) = delete;

    Costs run(uint32_t rounds) {
        const auto engines = static_cast<uint32_t>(reports_.size());
        int64_t began = cpu_ns();
        for (uint32_t i = 0; i < rounds; ++i) {
            apply(i % engines);
        }
        Costs costs{};
        costs.report = static_cast<double>(cpu_ns() - began) / rounds;
        std::vector<Ticket> running;
        while (running.size() < engines * kSeats / 2) {
            running.push_back(submit_one());
        }
        began = cpu_ns();
        for (uint32_t i = 0; i < rounds; ++i) {
            Ticket& slot = running[i % running.size()];
            now_ += 10;
            {
                ZoneLock lock(zone_);
                finish(lock, slot, Outcome::completed, Usage(), now_, wakes_);
            }
            slot = submit_one();
        }
        costs.request = static_cast<double>(cpu_ns() - began) / rounds;
        return costs;
    }

  private:
    void apply(uint32_t engine) {
        EngineReport& report = reports_[engine];
        report.seq++;
        report.uptime_s += 1;
        report.decode_tokens += 100;
        report.user_seconds += 2;
        EnginePlace place;
        place.host = "engine";
        place.address.length = 16;
        now_ += 10;
        ZoneLock lock(zone_);
        memos_[engine] = apply_report(lock, report, report.seq == 1 ? &place : nullptr, now_, wakes_, memos_[engine]).memo;
        if (memos_[engine].engine == kNone) {
            std::exit(2);
        }
    }

    Ticket submit_one() {
        RequestArgs args;
        args.client = &client_;
        args.model = "m";
        args.prompt_tokens = 500;
        args.process = process_;
        args.random = random_ = random_ * 1664525u + 1013904223u;
        ZoneLock lock(zone_);
        const Verdict verdict = submit(lock, args, now_, 0, wakes_);
        if (verdict.decision != Decision::granted) {
            std::exit(2);
        }
        return verdict.ticket;
    }

    void* memory_ = std::aligned_alloc(64, kZoneBytes);
    Zone zone_;
    WakeSet wakes_;
    uint32_t process_ = 0;
    int64_t now_ = 1'000'000;
    uint32_t random_ = 1;
    ClientView client_;
    std::vector<EngineReport> reports_;
    std::vector<EngineMemo> memos_;
};

}  // namespace
}  // namespace llm::core

int main() {
    using namespace llm::core;
    std::printf("%8s %12s %12s\n", "engines", "report", "request");
    Costs few{}, many{};
    for (const uint32_t engines : {1u, kFew, 200u, kMany}) {
        const Costs costs = Bench(engines).run(100'000);
        std::printf("%8u %9.2f us %9.2f us\n", engines, costs.report / 1e3, costs.request / 1e3);
        (engines == kFew ? few : many) = costs;
    }
    const bool ok = many.report <= kMostTimes * few.report;
    std::printf("%s\n", ok ? "within its bounds" : "OUT OF BOUNDS");
    return ok ? 0 : 1;
}
