// Everything the dashboard shows, as one JSON document (docs/status-json.md).
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <string>

namespace llm::nginx {
struct MainConf;
}

namespace llm::nginx::web {

std::string status_json(const MainConf& conf);

}  // namespace llm::nginx::web
