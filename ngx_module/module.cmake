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

# The few that are compiled anew for the tests, with their hooks (below); the others know nothing of hooks.
set(hooked_sources ${module_sources})
list(FILTER hooked_sources INCLUDE REGEX "/nginx/(directives|queue|test_faults|worker)\\.cpp$")
list(REMOVE_ITEM module_sources ${hooked_sources})
foreach(source ${module_sources})
  file(STRINGS ${source} hooks REGEX "LLM_TEST_HOOKS|LLM_LABEL|LLM_TRACE|test_faults\\.hpp")
  if(hooks)
    message(FATAL_ERROR "${source} has hooks of the tests: name it among hooked_sources in ngx_module/module.cmake")
  endif()
endforeach()

# A library has some of them (sources/CMakeLists.txt).
get_target_property(pure_sources llm_sources_pure SOURCES)
list(TRANSFORM pure_sources PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/sources/")
list(REMOVE_ITEM module_sources ${pure_sources})

# What every file of the module is compiled with.
add_library(llm_module_options INTERFACE)
target_link_libraries(llm_module_options INTERFACE llm_noexcept nginx_headers)
target_include_directories(llm_module_options INTERFACE "${HIREDIS_INCLUDE}" ${PostgreSQL_INCLUDE_DIRS})

add_library(llm_module_objects OBJECT ${module_sources})
target_link_libraries(llm_module_objects PRIVATE llm_module_options llm_hot)
llm_precompile(llm_module_objects hot)

add_library(ngx_http_llm_dispatch_module MODULE ${hooked_sources} $<TARGET_OBJECTS:llm_module_objects>)
set_target_properties(ngx_http_llm_dispatch_module PROPERTIES PREFIX "")
target_link_libraries(ngx_http_llm_dispatch_module PRIVATE
  llm_core llm_sources_pure llm_text llm_shared llm_module_options llm_hot "${HIREDIS_LIBRARY}" PostgreSQL::PostgreSQL OpenSSL::SSL
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
set_property(SOURCE nginx/modules.c PROPERTY SKIP_PRECOMPILE_HEADERS ON)  # C

# The same module with the faults and the grant log of the tests (LLM_TEST_HOOKS), and with a check of every call that
# leaves it: none may happen inside the zone's lock. Beside the release, so that tests have both; not optimized across
# files, so that each call is where the check can see it. What has no hooks is the release's machine code.
if(LLM_TESTS AND NOT LLM_SANITIZE AND CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|aarch64)$")
  find_package(Python3 REQUIRED COMPONENTS Interpreter)
  file(GLOB core_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/core/*.cpp)
  set(lock_check "${CMAKE_CURRENT_SOURCE_DIR}/core/lock_check.cpp")
  list(REMOVE_ITEM core_sources "${lock_check}")

  add_library(llm_hooked_objects OBJECT ${hooked_sources} ${core_sources})
  target_link_libraries(llm_hooked_objects PRIVATE llm_module_options)
  target_compile_definitions(llm_hooked_objects PRIVATE LLM_TEST_HOOKS=1)
  target_compile_options(llm_hooked_objects PRIVATE -O1 -g1 -fno-lto)
  set(checked $<TARGET_OBJECTS:llm_hooked_objects> $<TARGET_OBJECTS:llm_module_objects>
    $<TARGET_FILE:llm_sources_pure> $<TARGET_FILE:llm_text> $<TARGET_FILE:llm_shared>)

  set(wrappers "${CMAKE_CURRENT_BINARY_DIR}/lock_wrappers")
  add_custom_command(OUTPUT ${wrappers}.s ${wrappers}.rsp
    COMMAND ${Python3_EXECUTABLE} ${CMAKE_SOURCE_DIR}/scripts/lock_check.py --objdump ${CMAKE_OBJDUMP} --machine ${CMAKE_SYSTEM_PROCESSOR} --source ${wrappers}.s
            --options ${wrappers}.rsp ${checked}
    DEPENDS ${CMAKE_SOURCE_DIR}/scripts/lock_check.py llm_hooked_objects llm_module_objects llm_sources_pure llm_text llm_shared ${checked}
    COMMAND_EXPAND_LISTS VERBATIM)
  # assembled by the compiler driver: the project itself needs no assembler language
  add_custom_command(OUTPUT ${wrappers}.o
    COMMAND ${CMAKE_C_COMPILER} -c ${wrappers}.s -o ${wrappers}.o
    DEPENDS ${wrappers}.s VERBATIM)

  add_library(ngx_http_llm_dispatch_module_checked MODULE
    ${lock_check} $<TARGET_OBJECTS:llm_hooked_objects> $<TARGET_OBJECTS:llm_module_objects> ${wrappers}.o)
  set_target_properties(ngx_http_llm_dispatch_module_checked PROPERTIES PREFIX "")
  target_compile_definitions(ngx_http_llm_dispatch_module_checked PRIVATE LLM_TEST_HOOKS=1)
  target_link_libraries(ngx_http_llm_dispatch_module_checked PRIVATE
    llm_sources_pure llm_text llm_shared llm_noexcept "${HIREDIS_LIBRARY}" PostgreSQL::PostgreSQL OpenSSL::SSL OpenSSL::Crypto)
  target_link_options(ngx_http_llm_dispatch_module_checked PRIVATE
    -Wl,--version-script=${CMAKE_CURRENT_SOURCE_DIR}/nginx/exports.ver
    -Wl,-z,now,-z,relro,-z,undefs -Wl,--exclude-libs,ALL -fno-lto @${wrappers}.rsp)
endif()
