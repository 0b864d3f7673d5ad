# nginx's headers as a target: `nginx_headers`.
#
# A module must be built with exactly the configuration of the nginx that loads it. NGINX_BUILD_DIR names a configured
# tree; without it we take Debian's nginx-dev, which ships the sources and the flags but no objs/, and configure a
# copy in the build directory once (some seconds).
set(LLM_NGINX_DEV_SOURCE "/usr/share/nginx/src")

function(llm_configure_nginx_dev out_dir)
  set(copy "${CMAKE_BINARY_DIR}/nginx-dev")
  set(stamp "${copy}/.configured")
  if(NOT EXISTS "${LLM_NGINX_DEV_SOURCE}/conf_flags")
    message(FATAL_ERROR "nginx-dev is not installed (no ${LLM_NGINX_DEV_SOURCE}/conf_flags): install it, or give "
                        "-DNGINX_BUILD_DIR=<a configured nginx tree>, or -DLLM_MODULE=OFF")
  endif()
  # Another package means headers of another layout: configure again. Its files are as old as the package, so that none need be
  # newer than the copy.
  file(GLOB_RECURSE files LIST_DIRECTORIES false "${LLM_NGINX_DEV_SOURCE}/*")
  set(mark "")
  foreach(file IN LISTS files)
    file(SIZE "${file}" size)
    file(TIMESTAMP "${file}" time "%s" UTC)
    string(APPEND mark "${file} ${size} ${time}\n")
  endforeach()
  set(copied "")
  if(EXISTS "${stamp}")
    file(READ "${stamp}" copied)
  endif()
  if(NOT copied STREQUAL mark)
    message(STATUS "Configuring a copy of nginx-dev")
    file(REMOVE_RECURSE "${copy}")
    file(COPY "${LLM_NGINX_DEV_SOURCE}/" DESTINATION "${copy}")
    execute_process(
      COMMAND bash -c ". ./conf_flags && ./configure \"\${NGX_CONF_FLAGS[@]}\""
      WORKING_DIRECTORY "${copy}" RESULT_VARIABLE failed OUTPUT_VARIABLE log ERROR_VARIABLE log)
    if(failed)
      message(FATAL_ERROR "Configuring nginx-dev failed:\n${log}")
    endif()
    file(WRITE "${stamp}" "${mark}")
  endif()
  set(${out_dir} "${copy}" PARENT_SCOPE)
endfunction()

if(NGINX_BUILD_DIR)
  # objs/ may be the directory itself (nginx's --builddir) or lie in it
  if(EXISTS "${NGINX_BUILD_DIR}/objs/ngx_auto_config.h")
    set(nginx_objs "${NGINX_BUILD_DIR}/objs")
    set(nginx_source "${NGINX_BUILD_DIR}")
  elseif(EXISTS "${NGINX_BUILD_DIR}/ngx_auto_config.h")
    set(nginx_objs "${NGINX_BUILD_DIR}")
    if(NGINX_SOURCE_DIR)
      set(nginx_source "${NGINX_SOURCE_DIR}")
    else()
      cmake_path(GET NGINX_BUILD_DIR PARENT_PATH nginx_source)
    endif()
  else()
    message(FATAL_ERROR "NGINX_BUILD_DIR=${NGINX_BUILD_DIR} has no objs/ngx_auto_config.h: run nginx's ./configure first")
  endif()
else()
  llm_configure_nginx_dev(nginx_source)
  set(nginx_objs "${nginx_source}/objs")
endif()

file(STRINGS "${nginx_objs}/ngx_auto_config.h" nginx_openssl REGEX "#define NGX_OPENSSL ")
if(NOT nginx_openssl)
  message(FATAL_ERROR "The nginx of ${nginx_objs} has no OpenSSL, which the module needs: configure it --with-http_ssl_module")
endif()

add_library(nginx_headers INTERFACE)
target_include_directories(nginx_headers SYSTEM INTERFACE "${nginx_objs}")
foreach(dir core event event/modules event/quic os/unix http http/modules http/v2 http/v3)
  if(EXISTS "${nginx_source}/src/${dir}")
    target_include_directories(nginx_headers SYSTEM INTERFACE "${nginx_source}/src/${dir}")
  endif()
endforeach()
