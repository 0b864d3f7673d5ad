// The clocks that main() hands to everything that needs one.
#pragma once

#include <chrono>
#include <cstdint>

namespace llm {

// Never jumps; for differences only.
inline double steady_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Since 1970, as the `boot` of a report.
inline uint64_t unix_milliseconds() {
    return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::milliseconds>(
                                     std::chrono::system_clock::now().time_since_epoch())
                                     .count());
}

}  // namespace llm
