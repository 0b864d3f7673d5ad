// Copies of what is in the zone, for handlers that show it. The lock is taken for one bounded batch at a
// time.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <vector>

#include "ngx_module/core/dispatcher.hpp"

namespace llm::nginx::web {

std::vector<core::ModelView> all_models();
std::vector<core::EngineSnapshot> all_engines();
std::vector<core::AccountSnapshot> all_accounts();

// Up to `limit` requests, the walk's order being that of the table.
std::vector<core::RequestSnapshot> live_requests(size_t limit);

}  // namespace llm::nginx::web
