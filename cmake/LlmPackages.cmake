# What is installed where, and the Debian packages (`make package`): the module, llm-engine, the tools.
#
# Each install rule names its component, and each component is a package. Paths are under CMAKE_INSTALL_PREFIX, /usr in
# packages. The module's package asks for the very nginx that the module was built for. Pages and conf/ lie to each other as
# in the sources: links hold, and the commands of the pages work as they stand.
include(GNUInstallDirs)

set(doc "${CMAKE_INSTALL_DATADIR}/doc/llm-dispatch")
set(units "lib/systemd/system")

if(TARGET ngx_http_llm_dispatch_module)
  install(TARGETS ngx_http_llm_dispatch_module LIBRARY DESTINATION lib/nginx/modules COMPONENT module)
  install(FILES packaging/mod-http-llm-dispatch.conf DESTINATION ${CMAKE_INSTALL_DATADIR}/nginx/modules-available COMPONENT module)
  install(PROGRAMS conf/samples/upgrade-module.sh conf/samples/scale-engines.sh
    DESTINATION ${CMAKE_INSTALL_DATADIR}/llm-dispatch COMPONENT module)
  install(FILES README.md DESTINATION ${doc} COMPONENT module)
  install(FILES docs/clients.md docs/directives.md docs/from-aristote-dispatcher.md docs/internals.md docs/metrics.md docs/operations.md
    docs/reliability.md docs/scheduler.md docs/security.md docs/status-json.md DESTINATION ${doc}/docs COMPONENT module)
  install(FILES conf/nginx.conf conf/schema.sql conf/llm_notify.sql conf/llm_usage.sql DESTINATION ${doc}/conf COMPONENT module)
  install(DIRECTORY conf/samples conf/prometheus conf/grafana DESTINATION ${doc}/conf COMPONENT module
    PATTERN "*.sh" EXCLUDE PATTERN "*.test.yml" EXCLUDE)
  install(DIRECTORY conf/systemd/nginx.service.d DESTINATION ${doc}/conf/systemd COMPONENT module)
endif()

if(TARGET llm-engine)
  install(TARGETS llm-engine RUNTIME DESTINATION bin COMPONENT engine)
  if(TARGET llm_backend_cuda)
    install(TARGETS llm_backend_cuda LIBRARY DESTINATION lib/llm-engine COMPONENT engine)
  endif()
  install(FILES conf/systemd/llm-engine@.service DESTINATION ${units} COMPONENT engine)
  install(FILES docs/engine.md docs/engine-cuda.md DESTINATION ${doc}/docs COMPONENT engine)
endif()

install(TARGETS llmctl RUNTIME DESTINATION bin COMPONENT tools)
install(FILES docs/llmctl.md docs/engine-report.md docs/llm-reporter.md DESTINATION ${doc}/docs COMPONENT tools)
if(TARGET llm-reporter)
  install(TARGETS llm-reporter RUNTIME DESTINATION bin COMPONENT tools)
  install(FILES conf/systemd/llm-reporter@.service DESTINATION ${units} COMPONENT tools)
endif()

# Debian's nginx says which modules fit it: nginx-abi-<version>-<number>. With a tree of one's own there is no such name.
set(nginx_abi "nginx")
if(NOT NGINX_BUILD_DIR)
  execute_process(COMMAND dpkg-query -W -f "\${Provides}" nginx OUTPUT_VARIABLE provides ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed AND provides MATCHES "nginx-abi-[^, ]+")
    set(nginx_abi "${CMAKE_MATCH_0}")
  endif()
endif()

# the programs that are packaged are built by whoever calls cpack (scripts/package.sh)
set(CMAKE_SKIP_INSTALL_ALL_DEPENDENCY ON)

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME llm-dispatch)
set(CPACK_PACKAGE_VERSION "${PROJECT_VERSION}")
set(CPACK_PACKAGE_VENDOR "llm-dispatch")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_THREADS 0)
set(CPACK_COMPONENTS_ALL module engine tools)
if(NOT TARGET ngx_http_llm_dispatch_module)
  list(REMOVE_ITEM CPACK_COMPONENTS_ALL module)
endif()
if(NOT TARGET llm-engine)
  list(REMOVE_ITEM CPACK_COMPONENTS_ALL engine)
endif()
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_MAINTAINER "llm-dispatch <root@localhost>" CACHE STRING "Maintainer named in the Debian packages")
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS "${CMAKE_BINARY_DIR}")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

# Maintainer scripts of a package with a systemd unit of instances; sets `out` to their paths.
function(llm_unit_scripts unit out)
  set(made "")
  foreach(script postinst prerm postrm)
    configure_file("packaging/units/${script}.in" "packaging/${unit}/${script}" @ONLY)
    list(APPEND made "${CMAKE_BINARY_DIR}/packaging/${unit}/${script}")
  endforeach()
  set(${out} "${made}" PARENT_SCOPE)
endfunction()

set(CPACK_DEBIAN_MODULE_PACKAGE_NAME libnginx-mod-http-llm-dispatch)
set(CPACK_DEBIAN_MODULE_PACKAGE_SECTION httpd)
set(CPACK_DEBIAN_MODULE_PACKAGE_DEPENDS "${nginx_abi}")
set(CPACK_DEBIAN_MODULE_PACKAGE_RECOMMENDS "llm-dispatch-tools, curl")  # curl: scale-engines.sh
set(CPACK_DEBIAN_MODULE_PACKAGE_CONTROL_EXTRA "${CMAKE_SOURCE_DIR}/packaging/postinst;${CMAKE_SOURCE_DIR}/packaging/prerm")
set(CPACK_COMPONENT_MODULE_DESCRIPTION "dispatcher of OpenAI API requests, module for nginx
Authenticates each request by its token, holds it in a weighted priority
queue in shared memory, and releases it to an inference engine at the moment
when that engine can still give every running user a pleasant speed.")

set(CPACK_DEBIAN_ENGINE_PACKAGE_NAME llm-engine)
set(CPACK_DEBIAN_ENGINE_PACKAGE_SECTION science)
llm_unit_scripts(llm-engine CPACK_DEBIAN_ENGINE_PACKAGE_CONTROL_EXTRA)
set(CPACK_COMPONENT_ENGINE_DESCRIPTION "batch inference server for language models
Serves Hugging Face models of the Llama family through the OpenAI API, with
continuous batching, a paged cache, and priorities that preempt; on the CPU
and, where its CUDA backend was built, on NVIDIA GPUs.")

set(CPACK_DEBIAN_TOOLS_PACKAGE_NAME llm-dispatch-tools)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SECTION admin)
if(TARGET llm-reporter)
  llm_unit_scripts(llm-reporter CPACK_DEBIAN_TOOLS_PACKAGE_CONTROL_EXTRA)
endif()
set(CPACK_COMPONENT_TOOLS_DESCRIPTION "operators' tools of the dispatcher of OpenAI API requests
llmctl manages tokens, queues and engines; llm-reporter announces engines
that cannot announce themselves (vLLM, SGLang, llama.cpp and others).")

include(CPack)
