// The balancer of `upstream { llm_balance; }`: connects to the engine on which the core has granted a lease,
// and moves to another one when an attempt fails before the response head.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// The directive `llm_balance`.
char* set_balance(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

}  // namespace llm::nginx
