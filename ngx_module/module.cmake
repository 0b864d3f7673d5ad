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

# The same module with the faults and the grant log of the tests (LLM_TEST_HOOKS), and with a check of every call that
# leaves it: none may happen inside the zone's lock. Beside the release, so that tests have both; not optimized across
# files, so that each call is where the check can see it.
if(LLM_TESTS AND NOT LLM_SANITIZE AND CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  file(GLOB core_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/core/*.cpp)
  set(lock_check "${CMAKE_CURRENT_SOURCE_DIR}/core/lock_check.cpp")
  list(REMOVE_ITEM core_sources "${lock_check}")
  file(GLOB text_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/core/text/*.cpp)
  get_target_property(shared_sources llm_shared SOURCES)
  list(TRANSFORM shared_sources PREPEND ${CMAKE_SOURCE_DIR}/shared/)

  add_library(llm_checked_objects OBJECT
    ${module_sources} ${core_sources} ${text_sources} ${shared_sources})
  target_link_libraries(llm_checked_objects PRIVATE llm_noexcept nginx_headers)
  target_include_directories(llm_checked_objects PRIVATE "${HIREDIS_INCLUDE}" ${PostgreSQL_INCLUDE_DIRS})
  target_compile_definitions(llm_checked_objects PRIVATE LLM_TEST_HOOKS=1)
  target_compile_options(llm_checked_objects PRIVATE -O1 -g1 -fno-lto)

  set(wrappers "${CMAKE_CURRENT_BINARY_DIR}/lock_wrappers")
  add_custom_command(OUTPUT ${wrappers}.s ${wrappers}.rsp
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/scripts/lock_check.py --nm ${CMAKE_NM} --objdump ${CMAKE_OBJDUMP}
            --source ${wrappers}.s --options ${wrappers}.rsp $<TARGET_OBJECTS:llm_checked_objects>
    DEPENDS ${CMAKE_SOURCE_DIR}/scripts/lock_check.py llm_checked_objects $<TARGET_OBJECTS:llm_checked_objects>
    COMMAND_EXPAND_LISTS VERBATIM)
  # assembled by the compiler driver: the project itself needs no assembler language
  add_custom_command(OUTPUT ${wrappers}.o
    COMMAND ${CMAKE_C_COMPILER} -c ${wrappers}.s -o ${wrappers}.o
    DEPENDS ${wrappers}.s VERBATIM)

  add_library(ngx_http_llm_dispatch_module_checked MODULE
    ${lock_check} $<TARGET_OBJECTS:llm_checked_objects> ${wrappers}.o)
  set_target_properties(ngx_http_llm_dispatch_module_checked PROPERTIES PREFIX "")
  target_compile_definitions(ngx_http_llm_dispatch_module_checked PRIVATE LLM_TEST_HOOKS=1)
  target_link_libraries(ngx_http_llm_dispatch_module_checked PRIVATE
    llm_noexcept "${HIREDIS_LIBRARY}" PostgreSQL::PostgreSQL OpenSSL::SSL OpenSSL::Crypto)
  target_link_options(ngx_http_llm_dispatch_module_checked PRIVATE
    -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/nginx/exports.ver
    -Wl,-z,now,-z,relro,-z,undefs -fno-lto @${wrappers}.rsp)
endif()
