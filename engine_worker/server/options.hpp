// The command line of llm-engine.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "engine_worker/backend/backend.hpp"
#include "engine_worker/backend/sim/sim_backend.hpp"
#include "engine_worker/server/allowed_origins.hpp"
#include "engine_worker/server/api_keys.hpp"
#include "shared/redis_url.hpp"

namespace llm::engine {

inline constexpr int kDefaultRunning = 64;

struct Options {
    std::string model;  // directory; with the sim backend a name
    std::string chat_template;  // a file; empty = the model's own
    std::vector<std::string> served_names;
    std::string generation_config = "auto";  // or none: GenerationDefaults as they are
    std::string listen = "127.0.0.1:8000";
    std::string advertise;  // URL in reports; empty = from `listen`
    std::string redis;      // URL; empty = no reports
    RedisUrl redis_url;
    std::string prefix = "llm:";
    std::string id;  // empty = HOST:PORT or the socket's path, at the host's name
    std::string org;
    std::string backend = "auto";  // auto, cuda, cpu, sim
    BackendOptions compute = [] {
        BackendOptions defaults;
        defaults.max_step_tokens = 0;  // that of the backend that is chosen
        return defaults;
    }();
    SimOptions sim;
    int max_running = 0;  // 0 = kDefaultRunning, more on a GPU
    int max_waiting = 256;
    double step_target_ms = 0;
    double drain_timeout = 120;
    std::optional<double> drain_grace;  // absent: kDrainGrace where gateways hear of it, else none
    size_t max_body = 32u << 20;
    ApiKeys api_keys;
    AllowedOrigins origins;
    bool help = false, version = false;
};

// Returns an empty string and fills `out`, or one sentence that names the option and what is allowed.
std::string parse_options(const std::vector<std::string>& arguments, Options& out);

std::string usage_text();

}  // namespace llm::engine
