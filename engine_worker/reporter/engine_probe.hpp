// Asks one engine what an adapter says, and reads its answers.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine_worker/reporter/adapter.hpp"
#include "engine_worker/reporter/metrics_text.hpp"
#include "shared/http_client.hpp"

namespace llm::reporter {

enum class Health : uint8_t {
    up,
    not_ready,  // it answers that it does not serve: starting, or broken
    silent,     // no answer in time: may be busy
    absent,     // nobody listens there
    strange,    // it answers something else than this engine would
};

// What one round of questions has shown.
struct Observation {
    Health health = Health::silent;
    std::string why;  // of anything but `up`, one line
    std::array<std::optional<double>, kFieldCount> values{};
    std::vector<std::string> models;
    std::string note;  // what is left out of `models`, one line; empty = nothing

    std::optional<double>& operator[](Field field) { return values[static_cast<size_t>(field)]; }
    const std::optional<double>& operator[](Field field) const { return values[static_cast<size_t>(field)]; }
};

// Fills `out` from a metrics text by the adapter's rules. Series of one metric are added up over engines and
// models (kv_usage: averaged), but the ranks of one engine, which all tell the same, count once. A metric
// that is missing, negative or not finite gives no value. Returns an empty string, or why the text is not
// this engine's.
std::string read_metrics(const Adapter& adapter, std::string_view text, Observation& out);

// The ids of an OpenAI model list. Empty reason = good.
std::string read_models(std::string_view text, std::vector<std::string>& out);

// Takes from `models` what no report can hold: names that are too long, and all behind the first 64. Returns a line
// that says so, empty = all are left.
std::string leave_out_models(std::vector<std::string>& models);

// Fills `out` from a JSON document at `path`; what is not there or no number above 0 is left alone.
void read_facts(const Adapter& adapter, std::string_view path, std::string_view text, Observation& out);

struct ProbeOptions {
    std::string url;                  // http://host:port, no slash at its end
    std::string metrics_url;          // empty = url and the adapter's path
    std::string api_key;              // sent as a bearer token, empty = none
    std::string ca_file;              // certificates to trust for https, empty = the system's
    std::vector<std::string> models;  // empty = asked for
    double timeout_s = 2;
    double facts_every_s = 10;  // model list, limits, costly health
};

class EngineProbe {
  public:
    EngineProbe(const Adapter& adapter, const ProbeOptions& options);

    // One round; `now` in seconds of any monotonic clock. Blocks for a few time limits at most.
    Observation ask(double now);

  private:
    bool get(const std::string& url, Observation& out, HttpReply& reply);
    bool ask_health(Observation& out);
    bool ask_metrics(Observation& out);
    bool ask_facts(Observation& out);

    const Adapter& adapter_;
    ProbeOptions options_;
    HttpClient client_;
    double next_facts_ = -1;
    Observation facts_;  // models and facts as last seen
};

}  // namespace llm::reporter
