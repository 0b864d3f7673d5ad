# ngx_http_llm_dispatch_module.so: the core, its nginx adapters, sources and handlers in one dynamic module.
include(Nginx)
find_package(OpenSSL REQUIRED)
find_path(HIREDIS_INCLUDE hiredis/hiredis.h REQUIRED)
find_library(HIREDIS_LIBRARY hiredis REQUIRED)
find_package(PostgreSQL REQUIRED)

file(GLOB module_sources CONFIGURE_DEPENDS
  ${CMAKE_CURRENT_SOURCE_DIR}/nginx/*.cpp
  ${CMAKE_CURRENT_SOURCE_DIR}/nginx/modules.c
  ${CMAKE_CURRENT_SOURCE_DIR}/sources/*.cpp
  ${CMAKE_CURRENT_SOURCE_DIR}/web/*.cpp)

add_library(ngx_http_llm_dispatch_module MODULE ${module_sources})
set_target_properties(ngx_http_llm_dispatch_module PROPERTIES PREFIX "")
target_include_directories(ngx_http_llm_dispatch_module PRIVATE "${HIREDIS_INCLUDE}" ${PostgreSQL_INCLUDE_DIRS})
target_link_libraries(ngx_http_llm_dispatch_module PRIVATE
  llm_core llm_text llm_shared llm_noexcept llm_hot nginx_headers "${HIREDIS_LIBRARY}" PostgreSQL::PostgreSQL OpenSSL::SSL
  OpenSSL::Crypto)
# Only what nginx's loader looks for is exported; a library linked in statically must not meet another copy of itself.
target_link_options(ngx_http_llm_dispatch_module PRIVATE
  -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/nginx/exports.ver
  -Wl,-z,now,-z,relro -Wl,--exclude-libs,ALL)
set_property(TARGET ngx_http_llm_dispatch_module APPEND PROPERTY
  LINK_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/nginx/exports.ver)
# nginx's own symbols (and a sanitizer's) are resolved when nginx loads the module.
target_link_options(ngx_http_llm_dispatch_module PRIVATE -Wl,-z,undefs)
target_link_options(ngx_http_llm_dispatch_module PRIVATE $<TARGET_PROPERTY:llm_hot,INTERFACE_COMPILE_OPTIONS>)
# the dashboard is part of the module
set(dashboard "${CMAKE_CURRENT_SOURCE_DIR}/web/dashboard")
set_property(SOURCE web/dashboard.cpp PROPERTY COMPILE_DEFINITIONS "LLM_DASHBOARD=\"${dashboard}\"")
set_property(SOURCE web/dashboard.cpp PROPERTY OBJECT_DEPENDS
  "${dashboard}.html;${dashboard}.css;${dashboard}_charts.js;${dashboard}.js")
# nginx's loader looks these names up
set_property(SOURCE nginx/modules.c PROPERTY COMPILE_OPTIONS -fvisibility=default)
