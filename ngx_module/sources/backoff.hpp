// Waiting times between attempts to reach a server that does not answer.
#pragma once

#include <algorithm>
#include <cstdint>

namespace llm::nginx::sources {

// Exponential back-off with jitter: attempt n waits between half and all of min(first·2^n, cap). The jitter
// keeps many gateways from coming back in step; the low cap keeps recovery after an outage within the cap
// plus one connect.
class Backoff {
  public:
    constexpr Backoff(uint32_t first_ms, uint32_t cap_ms) : first_ms_(first_ms), cap_ms_(cap_ms) {}

    // The next waiting time in milliseconds, ≥ 1. `random` is any 32-bit random number.
    uint32_t next(uint32_t random) {
        const uint64_t full = std::min<uint64_t>(uint64_t{first_ms_} << std::min(attempts_, 20u), cap_ms_);
        ++attempts_;
        const uint64_t half = full / 2;
        return static_cast<uint32_t>(std::max<uint64_t>(1, half + random % (full - half + 1)));
    }

    void reset() { attempts_ = 0; }

  private:
    uint32_t first_ms_;
    uint32_t cap_ms_;
    uint32_t attempts_ = 0;
};

}  // namespace llm::nginx::sources
