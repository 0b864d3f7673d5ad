// The directives that say where clients and engines come from.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

char* set_priority_db(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* set_redis(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* add_engine(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);
char* add_engine_key(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

}  // namespace llm::nginx
