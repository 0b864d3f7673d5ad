// Copies of what is in the zone, for handlers that show it. The lock is taken for one bounded batch at a
// time.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <vector>

#include "ngx_module/core/dispatcher.hpp"

namespace llm::nginx::web {

std::vector<core::ModelView> all_models();
std::vector<core::EngineSnapshot> all_engines();

// Clients with requests or a recent past, those that used most in the last minute first, at most `limit`.
std::vector<core::AccountSnapshot> busiest_accounts(size_t limit);

// Waiting requests (granted ones too), highest class first, oldest first within it; then running ones, oldest
// first. Up to `limit` of each kind; the lock is taken O(requests / 32) times.
std::vector<core::RequestSnapshot> live_requests(size_t limit);

// The last fifteen minutes, oldest first.
std::vector<core::HistorySample> history();

}  // namespace llm::nginx::web
