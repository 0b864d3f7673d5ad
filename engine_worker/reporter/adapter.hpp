// What an adapter says of one kind of engine: where it is asked, and which of its numbers is which of the
// report's. Data only; engine_probe.cpp asks and reads.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace llm::reporter {

enum class Field : uint8_t {
    running,
    waiting,
    kv_usage,  // 0..1
    max_running,
    max_context,
    tokens_in,
    tokens_out,
    decode_tokens,
    user_seconds,
    completed,
    started,  // of the process, seconds since 1970
};
inline constexpr size_t kFieldCount = 11;

// One way to get a field from the metrics. Several rules for a field: the first whose metric is there counts.
struct MetricRule {
    Field field;
    std::string_view metric;
    std::string_view minus{};  // another metric, taken off: "tokens but each request's first"
    std::string_view label{};  // only series in which this label …
    std::string_view value{};  // … has this value
};

// A field from a JSON document: `pointer` as in RFC 6901, the first that is there counts. A "*" in it stands for every
// element of an array, whose numbers are added up.
struct JsonRule {
    Field field;
    std::string_view path;
    std::string_view pointer;
};

struct Adapter {
    std::string_view kind;   // of --engine
    std::string_view title;  // for people
    std::string_view health_path;
    std::string_view metrics_path;  // empty: the engine has none
    std::string_view metrics_hint;  // what to do when there are no metrics
    std::string_view signature;     // a metric that this engine has from its start (but see late_metrics); without it
                                    // the text is another's
    std::span<const MetricRule> metrics;
    std::span<const JsonRule> facts;  // asked for now and then, in this order, for as long as something is not known
    uint32_t max_running = 64;        // where neither the operator nor the engine says
    std::string_view replica_label{};  // of the signature: every value is a replica, with max_running of its own
    bool late_metrics = false;        // they come into being with its first requests, the signature too
    bool rare_health = false;         // its health costs an inference: asked for now and then only
    std::string_view models_path = "/v1/models";  // OpenAI's list
};

extern const Adapter kVllm, kSglang, kLlamaCpp, kTgi, kTensorRtLlm, kTriton, kLmdeploy, kLightllm, kOllama;

// All of them, in the order of the help.
std::span<const Adapter* const> adapters();

// Null for an unknown kind.
const Adapter* find_adapter(std::string_view kind);

// "vllm, sglang, …"
std::string_view adapter_names();

}  // namespace llm::reporter
