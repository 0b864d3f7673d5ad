// The directive llm_test_faults: faults that cannot be caused from outside. Only in test builds (LLM_TEST_HOOKS).
//
//   die=N [deaths=K]     a worker that passes label N inside the lock kills itself there, K times in all (1)
//   delay_grant=MS       a worker that is told of a grant sleeps before it takes it up, once
//   log=PATH             what happens to requests is recorded there (core/test_hooks.hpp, TraceLog)
//   breach=log|alloc     a worker logs, or allocates, inside the lock: the lock check must end it
#pragma once

#include "ngx_module/nginx/ngx.hpp"

#if LLM_TEST_HOOKS
namespace llm::core {
class Zone;
}
namespace llm::nginx {

char* set_test_faults(ngx_conf_t* cf, ngx_command_t* cmd, void* conf);

// In a worker, once it is up.
void start_test_faults(core::Zone& zone);

// Before a grant is taken up, outside the lock.
void delay_grant();

}  // namespace llm::nginx

#define LLM_TEST_DIRECTIVES                                                                                  \
    {ngx_string("llm_test_faults"), NGX_HTTP_MAIN_CONF | NGX_CONF_1MORE, ::llm::nginx::set_test_faults,       \
     NGX_HTTP_MAIN_CONF_OFFSET, 0, nullptr},
#define LLM_START_TEST_FAULTS(zone) ::llm::nginx::start_test_faults(zone)
#define LLM_DELAY_GRANT() ::llm::nginx::delay_grant()
#else
#define LLM_TEST_DIRECTIVES
#define LLM_START_TEST_FAULTS(zone) static_cast<void>(0)
#define LLM_DELAY_GRANT() static_cast<void>(0)
#endif
