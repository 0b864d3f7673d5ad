// The gateways that the simulator compares: our dispatcher, run as in production but for the clock, and
// baselines.
#pragma once

#include <deque>
#include <map>
#include <memory>

#include "bench/core/world.hpp"
#include "ngx_module/core/dispatcher.hpp"

namespace llm::sim {

// What each client got and how long it waited; pairs of clients that wait together are compared.
class Ledger {
  public:
    explicit Ledger(std::map<uint32_t, double> weights) : weights_(std::move(weights)) {}

    void waiting(uint32_t client, int change) { accounts_[client].waiting += change; }
    void running(uint32_t client, int change);
    void serve(uint32_t client, double cost) { accounts_[client].service += cost; }
    // Compares all pairs that have waited since the last call too. After `from_us` only.
    void sample(int64_t now_us, int64_t from_us);

    double share_error() const;  // largest |share − weight share| since `from_us`
    double jain() const;         // of service/weight
    double largest_difference() const { return largest_; }
    // Ui + Uj + S/wi + S/wj of the pair with the largest excess; > 1 = out of bounds.
    double worst_over_bound() const { return worst_over_bound_; }

    double prompt_max = 0;
    double output_max = 0;
    double prompt_error = 0;
    std::vector<uint32_t> saturated;  // those that share_error and jain look at

  private:
    struct Account {
        double service = 0;
        double base = 0;
        int waiting = 0;
        int running = 0;
        int running_max = 0;
    };
    struct Pair {
        bool together = false;
        double low = 0;
        double high = 0;
    };
    double weight(uint32_t client) const { return weights_.at(client); }

    std::map<uint32_t, double> weights_;
    std::map<uint32_t, Account> accounts_;
    std::map<std::pair<uint32_t, uint32_t>, Pair> pairs_;
    bool based_ = false;
    double largest_ = 0;
    double worst_over_bound_ = 0;
};

// A gateway that keeps a ledger.
class CountingGateway : public Gateway {
  public:
    CountingGateway(Ledger& ledger, double sample_from_s)
        : ledger_(ledger), sample_from_us_(static_cast<int64_t>(sample_from_s * 1e6)) {}

  protected:
    void note_wait(const Job& job) { ledger_.waiting(job.client, 1); }
    void note_start(const Job& job, bool waited);
    void note_end(const Job& job) { ledger_.running(job.client, -1); }
    void note_token(const Job& job) { ledger_.serve(job.client, 2); }
    void note_expiry(const Job& job) { ledger_.waiting(job.client, -1); }
    void sample() { ledger_.sample(world->now(), sample_from_us_); }

    Ledger& ledger_;

  private:
    int64_t sample_from_us_;
};

class CoreGateway : public CountingGateway {
  public:
    CoreGateway(Ledger& ledger, double sample_from_s, const std::map<uint32_t, double>& weights,
                uint32_t engines, double minimum,
                core::RoutingPolicy routing = core::RoutingPolicy::throughput);
    ~CoreGateway() override;
    void arrive(Job& job) override;
    void token(Job& job) override;
    void finished(Job& job) override;
    void report(uint32_t engine, const Counters& counters) override;
    void expire(Job& job) override;
    void tick() override;
    // 0, or the first broken invariant when idle.
    const char* check();

  private:
    int64_t now() const { return world->now() + 1'000'000; }
    void take_up_all();
    EngineReport make_report(uint32_t engine) const;

    void* memory_;
    core::Zone zone_;
    uint32_t process_ = 0;
    core::WakeSet wakes_;
    std::map<uint32_t, core::ClientView> clients_;
    std::vector<core::Ticket> tickets_;
    std::vector<uint32_t> index_to_engine_;
    std::vector<uint64_t> seq_;
    uint32_t random_ = 1;
};

enum class Discipline : uint8_t { fifo, strict, round_robin, charge_max };
enum class Law : uint8_t { none, reported_average, cap, aimd };

class Baseline : public CountingGateway {
  public:
    Baseline(Ledger& ledger, double sample_from_s, const std::map<uint32_t, double>& weights,
             Discipline discipline, Law law, double cap, uint32_t engines, double minimum);
    void arrive(Job& job) override;
    void token(Job& job) override { note_token(job); }
    void finished(Job& job) override;
    void report(uint32_t engine, const Counters& counters) override;
    void expire(Job& job) override;
    void tick() override { sample(); }

  private:
    struct Place {
        Counters before;
        double limit = 0;
        bool slow = false;
        uint32_t held = 0;
    };
    bool has_room(const Place& place) const;
    // The queue to serve next; nothing when all are empty.
    std::deque<uint32_t>* next_queue(uint32_t& client);
    void run();

    std::map<uint32_t, double> weights_;
    Discipline discipline_;
    Law law_;
    double minimum_;
    std::vector<Place> places_;
    std::map<uint32_t, std::deque<uint32_t>> queues_;
    std::map<uint32_t, double> charged_;
    uint32_t last_client_ = 0;
};

}  // namespace llm::sim
