// What a new zone does not know yet: it is made empty, at a start or by the new process of a binary upgrade,
// and its workers accept requests before the first clients and engines have been read.
#pragma once

#include <cstdint>

#include "ngx_module/core/types.hpp"
#include "ngx_module/core/zone.hpp"

namespace llm::core {

enum Source : uint32_t { kClientSource = 1, kEngineSource = 2 };

// For a zone that nobody uses yet: these sources (a sum of Source) are going to speak, by `until_us` at the
// latest.
void expect_sources(const ZoneLock& lock, uint32_t sources, int64_t until_us);

// The source has been read for the first time, or cannot be read. The last one wakes all processes. Cheap,
// and without the lock, once it was said.
void source_spoke(Zone& zone, Source source, WakeSet& wakes);

// Until when what is not known may become known; 0 = all sources have spoken. Without the lock.
int64_t sources_awaited_until(const Zone& zone);

}  // namespace llm::core
