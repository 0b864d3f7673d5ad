// The dashboard: one static page, embedded at build time from dashboard.html.
#pragma once

#include <string_view>

namespace llm::nginx::web {

std::string_view dashboard_page();

}  // namespace llm::nginx::web
