// Hands the configuration over to the core.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include "ngx_module/core/dispatcher.hpp"

namespace llm::nginx {

struct MainConf;

// Writes settings and static engines into the zone. Each worker does so at its start; doing it again changes
// nothing. Problems (more engines than the zone holds) are logged: a worker that refuses to start would be
// worse.
void apply_configuration(const MainConf& conf, core::Zone& zone, ngx_log_t* log, core::WakeSet& wakes);

// The key for an announced engine: of the first `llm_engine_key` whose glob matches its id, else empty.
std::string_view announced_engine_key(const MainConf& conf, std::string_view engine_id);

}  // namespace llm::nginx
