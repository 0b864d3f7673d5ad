// The engine report: how an engine tells gateways who it is, what it serves and how fast it is.
//
// Wire form: one JSON object (docs/engine-report.md), the value of the Redis key `<prefix>engine:<id>` and, with
// the same text, a message on the channel `<prefix>engines`. Written by llm-engine and llm-reporter, read by the
// nginx module. Built without exceptions: a malformed report is a value, never a crash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace llm {

enum class EngineState : uint8_t {
    loading,   // known, not serving yet: requests may wait for it
    ready,     // serves
    draining,  // finishes what runs, takes nothing new
    failed,    // broken until it says otherwise
    gone,      // left on purpose: forget it (published, never stored)
};

// The wire name of a state ("loading", "ready", …).
std::string_view to_string(EngineState state);

// Of a report's id and org.
inline constexpr size_t kMaxReportNameBytes = 127;
// Whether it may stand there: 1 to kMaxReportNameBytes bytes, no control characters.
bool is_report_name(std::string_view name);

// Whether it may stand there as the url: http(s)://host[:port], at most 255 bytes.
bool is_engine_url(std::string_view url);

// Of a report's models.
inline constexpr size_t kMaxModels = 64;
inline constexpr size_t kMaxModelBytes = 255;
// Whether it may stand there: 1 to kMaxModelBytes bytes, no control characters.
bool is_model_name(std::string_view name);

struct EngineReport {
    std::string id;                   // 1..127 bytes, no control characters; "gpu0@host-a"
    std::string url;                  // http(s)://host[:port], at most 255 bytes
    std::vector<std::string> models;  // 1..64 names of 1..255 bytes
    std::string org;                  // organisation that owns the engine; empty = nobody's, at most 127 bytes
    EngineState state = EngineState::loading;
    uint64_t boot = 0;      // start of this process, milliseconds since 1970; a higher one replaces a lower one
    uint64_t seq = 0;       // grows by one with every report of a boot
    uint32_t ttl_ms = 0;    // life of the Redis key, 1..3'600'000
    uint32_t max_running = 64;  // sequences the engine can run at once, 1..1'000'000
    uint32_t max_context = 0;   // tokens; 0 = not said
    bool preempts = false;      // makes room for a higher class by itself (header x-llm-priority)
    uint32_t running = 0;       // sequences being generated
    uint32_t waiting = 0;       // in the engine's own queue for longer than 1 s
    double kv_usage = 0;        // live KV blocks over all, 0..1

    // Cumulative since `boot`. All finite and ≥ 0.
    double uptime_s = 0;
    double tokens_in = 0;       // prompt tokens
    double tokens_out = 0;      // completion tokens
    double decode_tokens = 0;   // completion tokens but each sequence's first; absent: tokens_out
    double user_seconds = 0;    // per sequence from its first token to its end, preempted time excluded
    double completed = 0;       // requests finished
    bool has_counters = false;  // user_seconds and a token counter are there: speed can be measured. Without,
                                // decode_tokens and user_seconds are not written

    // Over the last 2 s, for people; the gateway's control law uses the counters.
    double tokens_per_second = 0;
    double tokens_per_second_per_user = 0;
};

// Parses one report. Returns an empty string and fills `out`, or a one-line reason naming the field ("\"seq\": not
// an unsigned integer"); `out` is then unspecified. Unknown fields are ignored; a missing optional field keeps its
// default; a present one of the wrong type or not finite is an error. O(text); at most 64 KiB are accepted.
std::string parse_engine_report(std::string_view text, EngineReport& out);

// The wire form of a report, one line.
std::string to_json(const EngineReport& report);

}  // namespace llm
