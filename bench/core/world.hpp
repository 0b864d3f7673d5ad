// A small world for the simulator: a trace, engines that batch continuously, and a clock.
//
// Engine model (docs/internals/simulation): one step of an engine takes
//   12 ms + 0.15 ms · sequences + 0.06 µs · context tokens + 0.05 ms · prefill tokens,
// prefill in chunks of at most 2048 tokens per step; a sequence makes its first token in the step that ends
// its prefill and one token in each step after that. An engine keeps the beginnings that it has computed, the
// least recently used of them dropped first, up to so many tokens in all.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
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
    // What its prompt begins with: `opening_tokens` that all jobs of this opening share (a system prompt),
    // then a conversation. 0 = nothing that another one shares.
    uint32_t opening = 0;
    uint32_t opening_tokens = 0;
    uint32_t conversation = 0;
    uint32_t turn = 0;

    // what became of it
    int64_t started_us = -1;
    int64_t first_token_us = -1;
    int64_t end_us = -1;
    bool timed_out = false;
    uint32_t engine = 0;
    uint32_t generated = 0;
    uint32_t prefilled = 0;
    uint32_t cached = 0;  // of its prompt, by the engine's prefix cache
};

// Cumulative counters as an engine reports them.
struct Counters {
    double decode_tokens = 0;  // without each sequence's first
    double user_seconds = 0;
    double completed = 0;
    uint32_t running = 0;
};

// An engine's prefix cache, by conversations and openings instead of blocks.
class PrefixCache {
  public:
    static constexpr uint64_t kTokens = 400'000;

    // How many tokens of the job's prompt need not be computed.
    uint32_t find(const Job& job, int64_t now);
    // `tokens` of the job's context have been computed.
    void keep(const Job& job, uint32_t tokens, int64_t now);

  private:
    struct Entry {
        uint32_t tokens = 0;
        int64_t used_at = 0;
    };
    static uint64_t conversation_of(const Job& job) { return uint64_t{job.conversation} << 1 | 1; }
    static uint64_t opening_of(const Job& job) { return uint64_t{job.opening} << 1; }
    void put(uint64_t what, uint32_t tokens, int64_t now);

    std::map<uint64_t, Entry> entries_;
    std::map<std::pair<int64_t, uint64_t>, uint64_t> by_use_;
    uint64_t tokens_ = 0;
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
        PrefixCache cache;
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
