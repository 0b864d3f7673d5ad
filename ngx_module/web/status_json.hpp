// Everything the dashboard shows, as one JSON document (docs/status-json.md).
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#include <string>

namespace llm::nginx {
struct MainConf;
}

namespace llm::nginx::web {

// `admin`: whether whoever asks may change things there.
std::string status_json(const MainConf& conf, bool admin);

}  // namespace llm::nginx::web
