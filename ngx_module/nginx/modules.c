/*
 * What nginx's loader looks for in a dynamic module. Kept in C: nginx's own build generates the same three arrays.
 *
 * Order. Handlers of a phase run in reverse order of registration, so to run after allow/deny, auth_basic and
 * auth_request the first module must stand before them; standing there, it also merges its configuration before
 * ngx_http_proxy_module, whose unset values it fills (proxy_defaults.cpp). The filter must see memory buffers, hence
 * stands before the copy filter. A second module is needed because one module has one place only.
 */
#include <ngx_config.h>
#include <ngx_core.h>

extern ngx_module_t ngx_http_llm_dispatch_module;
extern ngx_module_t ngx_http_llm_dispatch_filter_module;

ngx_module_t *ngx_modules[] = {
    &ngx_http_llm_dispatch_module,
    &ngx_http_llm_dispatch_filter_module,
    NULL
};

char *ngx_module_names[] = {
    "ngx_http_llm_dispatch_module",
    "ngx_http_llm_dispatch_filter_module",
    NULL
};

char *ngx_module_order[] = {
    "ngx_http_llm_dispatch_module",
    "ngx_http_auth_request_module",
    "ngx_http_auth_basic_module",
    "ngx_http_access_module",
    "ngx_http_proxy_module",
    "ngx_http_llm_dispatch_filter_module",
    "ngx_http_copy_filter_module",
    NULL
};
