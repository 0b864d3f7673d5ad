// The seam between the sources and the module around them.
#pragma once

#include <cstdint>
#include <string_view>

#include "ngx_module/core/zone.hpp"

namespace llm::nginx::sources {

// What the sources need of the module that runs them.
struct Hooks {
    core::Zone* zone = nullptr;
    int64_t (*now_us)() = nullptr;  // monotonic
    int64_t (*wall_s)() = nullptr;  // seconds since 1970
    // Wakes these processes; called without the zone's lock.
    void (*wake)(const core::WakeSet& wakes) = nullptr;
    // The key to send to an announced engine (llm_engine_key); empty = none. The view must live as long as
    // the cycle.
    std::string_view (*engine_key)(std::string_view engine_id) = nullptr;
};

}  // namespace llm::nginx::sources
