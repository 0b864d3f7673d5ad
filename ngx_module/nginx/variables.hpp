// The $llm_* variables.
#pragma once

#include "ngx_module/nginx/ngx.hpp"

namespace llm::nginx {

// Declares them (preconfiguration).
ngx_int_t add_variables(ngx_conf_t* cf);

}  // namespace llm::nginx
