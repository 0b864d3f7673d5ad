// What an engine counts. One thread writes, others read copies.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace llm::engine {

// Upper bounds in seconds, fine where people feel it; the last bucket (+Inf) is implied.
inline constexpr std::array<double, 18> kLatencyBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                                          0.075, 0.1,    0.15,  0.25, 0.5,   0.75,
                                                          1.0,   2.5,    5.0,   10.0, 30.0,  60.0};

struct Histogram {
    std::array<uint64_t, kLatencyBounds.size() + 1> count{};  // per bucket, not cumulative
    double sum = 0;

    void observe(double seconds) {
        size_t i = 0;
        while (i < kLatencyBounds.size() && seconds > kLatencyBounds[i]) {
            ++i;
        }
        ++count[i];
        sum += seconds;
    }
};

struct EngineStats {
    // Now.
    uint32_t running = 0;       // sequences that hold a seat
    uint32_t waiting = 0;       // sequences in line
    uint32_t waiting_long = 0;  // of these, for more than a second
    double kv_usage = 0;        // live blocks over all, 0..1

    // Since the start; the definitions are those of the engine report.
    uint64_t tokens_in = 0;  // prompt tokens, each prompt once, when its first token came
    uint64_t tokens_out = 0;
    uint64_t decode_tokens = 0;  // tokens_out but each sequence's first
    double user_seconds = 0;     // per sequence from first token to end, without the time it was preempted
    uint64_t completed = 0;      // requests whose every choice ended by itself
    uint64_t cancelled = 0;      // requests whose client went away
    uint64_t finished_stop = 0;  // sequences, by reason
    uint64_t finished_length = 0;
    uint64_t preemptions = 0;
    uint64_t prefix_queries = 0;  // prompt tokens looked up in the prefix cache
    uint64_t prefix_hits = 0;     // and found
    uint64_t steps = 0;
    double busy_seconds = 0;  // in the backend

    Histogram time_to_first_token;
    Histogram inter_token;
    Histogram request_duration;
    Histogram queue_time;
};

}  // namespace llm::engine
