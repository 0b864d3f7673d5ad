// A small world for the simulator: a trace, engines that batch continuously, and a clock.
//
// Engine model (docs/internals/simulation): one step of an engine takes
//   12 ms + 0.15 ms · sequences + 0.06 µs · context tokens + 0.05 ms · prefill tokens,
// prefill in chunks of at most 2048 tokens per step; a sequence makes its first token in the step that ends
// its prefill and one token in each step after that.
#pragma once

#include <cstdint>
#include <functional>
#include <queue>
#include <string>
#include <vector>

namespace llm::sim {

struct Job {
    uint32_t id = 0;
    uint32_t client = 0;
    int64_t arrival_us = 0;
    uint32_t prompt = 0;
    uint32_t output = 0;

    // what became of it
    int64_t started_us = -1;
    int64_t first_token_us = -1;
    int64_t end_us = -1;
    bool timed_out = false;
    uint32_t engine = 0;
    uint32_t generated = 0;
    uint32_t prefilled = 0;
};

// Cumulative counters as an engine reports them.
struct Counters {
    double decode_tokens = 0;  // without each sequence's first
    double user_seconds = 0;
    double completed = 0;
    uint32_t running = 0;
};

class World;

// What decides who runs where: our dispatcher or a baseline.
class Gateway {
  public:
    virtual ~Gateway() = default;
    virtual void arrive(Job& job) = 0;
    virtual void token(Job& job) = 0;  // after each step in which it made one
    virtual void finished(Job& job) = 0;
    virtual void report(uint32_t engine, const Counters& counters) = 0;
    virtual void expire(Job& job) = 0;  // its queue timeout has passed and it has not started
    virtual void tick() {}              // each 100 ms
    World* world = nullptr;
};

class World {
  public:
    World(std::vector<Job> jobs, uint32_t engines, double report_s, double queue_timeout_s, Gateway& gateway);

    // Runs until everything has ended or `until_s`.
    void run(double until_s);

    // A gateway starts a job.
    void start(Job& job, uint32_t engine);

    int64_t now() const { return now_; }
    uint32_t engines() const { return static_cast<uint32_t>(engines_.size()); }
    uint32_t running(uint32_t engine) const { return static_cast<uint32_t>(engines_[engine].jobs.size()); }
    const std::vector<Job>& jobs() const { return jobs_; }
    std::vector<Job>& jobs() { return jobs_; }
    uint32_t largest_batch() const { return largest_; }
    // Output tokens made in [from, to).
    double tokens_between(double from_s, double to_s) const;
    // Share of 5 s windows (per engine, with ≥ 1 user-second) whose mean speed per user was below `minimum`.
    double slow_windows(double minimum, double from_s, double to_s) const;
    // Share of finished requests with two tokens or more that ran slower than `minimum` tokens/s.
    double slow_requests(double minimum) const;

    // Adds a job while the world runs (closed loops).
    Job& add(Job job);
    // Called after each end; may add jobs.
    std::function<void(Job&)> on_end;

  private:
    enum class Kind : uint8_t { arrival, step, report, timeout, tick };
    struct Event {
        int64_t at;
        uint64_t order;
        Kind kind;
        uint32_t index;
        bool operator>(const Event& other) const {
            return at != other.at ? at > other.at : order > other.order;
        }
    };
    struct Engine {
        std::vector<uint32_t> jobs;
        Counters counters;
        bool stepping = false;
        int64_t step_began = 0;
        uint32_t prefill_budget = 0;
        std::vector<double> window_tokens;
        std::vector<double> window_seconds;
    };

    void push(int64_t at, Kind kind, uint32_t index) { events_.push({at, order_++, kind, index}); }
    void begin_step(uint32_t engine);
    void end_step(uint32_t engine);

    std::vector<Job> jobs_;
    std::vector<Engine> engines_;
    int64_t report_us_;
    int64_t timeout_us_;
    Gateway& gateway_;
    int64_t now_ = 0;
    uint64_t order_ = 0;
    uint32_t largest_ = 0;
    std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
    std::vector<uint32_t> tokens_per_100ms_;
};

// arrival_s,[client,]prompt_tokens,output_tokens. Arrivals `speed` times as fast. Empty when the file is
// missing.
std::vector<Job> read_trace(const std::string& path, double speed);

}  // namespace llm::sim
