// The clock of the core's benchmarks.
#pragma once

#include <time.h>

#include <cstdint>

namespace llm::core {

// CPU time of this thread, ns: what others do on a busy machine is not in it.
inline int64_t cpu_ns() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

}  // namespace llm::core
