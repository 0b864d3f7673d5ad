// The command line of llm-reporter.
#pragma once

#include <string>
#include <vector>

#include "engine_worker/reporter/adapter.hpp"
#include "shared/redis_url.hpp"

namespace llm::reporter {

struct Options {
    const Adapter* adapter = nullptr;
    std::string url;          // http://host:port, no slash at its end
    std::string metrics_url;  // empty = the adapter's
    std::string api_key;      // for the engine
    std::string ca_file;      // certificates to trust for https, empty = the system's
    RedisUrl redis;
    std::string prefix = "llm:";
    std::string id;             // empty = HOST:PORT of the url
    std::string advertise_url;  // empty = url
    std::string org;
    std::vector<std::string> models;  // empty = asked for
    uint32_t max_running = 0;         // 0 = the engine's, else the adapter's
    uint32_t max_context = 0;         // 0 = the engine's
    double interval_s = 0.5;
    double timeout_s = 2;
    double fail_after_s = 5;
    bool once = false;  // print one report and end
    bool help = false, version = false;
};

// Returns an empty string and fills `out`, or one sentence that names the option and what is allowed.
std::string parse_options(const std::vector<std::string>& arguments, Options& out);

std::string usage_text();

}  // namespace llm::reporter
