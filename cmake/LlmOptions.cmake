# Language level, warnings, sanitizers and hardening of all our own targets: link `llm_options`.
if((CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 12) OR
   (CMAKE_CXX_COMPILER_ID STREQUAL "Clang" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 14))
  message(FATAL_ERROR "${CMAKE_CXX_COMPILER} is version ${CMAKE_CXX_COMPILER_VERSION}: g++ 12, clang 14 or later is needed "
                      "(CXX= or -DCMAKE_CXX_COMPILER= name another one)")
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)

add_library(llm_options INTERFACE)
target_compile_options(llm_options INTERFACE
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-Wall;-Wextra;-Wshadow;-Wno-unused-parameter>"
  $<$<COMPILE_LANGUAGE:CXX>:-Wnon-virtual-dtor>
  $<$<AND:$<BOOL:${LLM_WERROR}>,$<NOT:$<COMPILE_LANGUAGE:CUDA>>>:-Werror>
  "$<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:-fno-omit-frame-pointer;-fstack-protector-strong>"
  # nvcc hands the host part to the C++ compiler; its own warnings are errors
  "$<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra,-Wno-unused-parameter,-fno-omit-frame-pointer;-Werror=all-warnings>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC collects no garbage of its own below this many KiB (by default 128 MiB): up to a tenth of its time, and the same code.
  # The largest files take 600 MB then instead of 460.
  target_compile_options(llm_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:--param=ggc-min-heapsize=524288>)
endif()
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # A product and a sum are rounded each, as in the source and as on x86-64: all processors of arm64 have an instruction
  # for both at once.
  target_compile_options(llm_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)
endif()
target_include_directories(llm_options INTERFACE "${CMAKE_SOURCE_DIR}")
target_compile_definitions(llm_options INTERFACE
  LLM_VERSION="${PROJECT_VERSION}"
  $<$<BOOL:${LLM_TEST_HOOKS}>:LLM_TEST_HOOKS=1>)

if(LLM_SANITIZE)
  target_compile_options(llm_options INTERFACE -fsanitize=${LLM_SANITIZE} -fno-sanitize-recover=all)
  target_link_options(llm_options INTERFACE -fsanitize=${LLM_SANITIZE})
elseif(NOT CMAKE_BUILD_TYPE STREQUAL "Debug")
  target_compile_definitions(llm_options INTERFACE $<$<NOT:$<COMPILE_LANGUAGE:CUDA>>:_FORTIFY_SOURCE=2>)
endif()

if(LLM_FUZZ)
  # the fuzzer is led by the branches of what it tests, so every library must count them
  target_compile_options(llm_options INTERFACE -fsanitize=fuzzer-no-link)
  target_link_options(llm_options INTERFACE -fsanitize=fuzzer-no-link)
endif()

# The core and whatever nginx loads: an error is a value there, an exception would cross C frames.
add_library(llm_noexcept INTERFACE)
target_link_libraries(llm_noexcept INTERFACE llm_options)
target_compile_options(llm_noexcept INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-fno-exceptions -fno-rtti>
  -fvisibility=hidden
  $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-fno-gnu-unique>)
# nlohmann-json without exceptions: a wrong get<>() would abort, so every use asks is_*() first. In a namespace of its own
# (without the version), so that a program which links such a library never gets these functions where its own throw.
target_compile_definitions(llm_noexcept INTERFACE JSON_NOEXCEPTION=1 NLOHMANN_JSON_NAMESPACE_NO_VERSION=1)

# What runs for every request (the module and the libraries in it): optimized across files, and without a frame
# pointer, which takes three instructions of every call. Objects hold machine code too, so that what is linked
# without that optimization (tests, tools) is linked quickly. clang writes such objects from version 17 on only, so
# with it each file is optimized by itself.
add_library(llm_hot INTERFACE)
if(NOT CMAKE_BUILD_TYPE STREQUAL "Debug" AND NOT LLM_SANITIZE)
  target_compile_options(llm_hot INTERFACE -O2 -fomit-frame-pointer)
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    target_compile_options(llm_hot INTERFACE -flto=auto -ffat-lto-objects)
    if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64")
      target_compile_options(llm_hot INTERFACE -fno-plt)
      # a few hundred bytes are cleared and copied faster by the C library than by `rep stos` and `rep movs`
      target_compile_options(llm_hot INTERFACE
        -mmemset-strategy=vector_loop:512:noalign,libcall:-1:noalign
        -mmemcpy-strategy=vector_loop:512:noalign,libcall:-1:noalign)
    endif()
  endif()
endif()

# llm_precompile(TARGET GROUP header…): what nearly every file includes, and the headers named, is parsed once for all targets
# of GROUP, which must be compiled with the same options: for the first of them, and the others use it. A fifth less to
# compile. Not with clang, which shows that each file includes what it needs.
function(llm_precompile name group)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    return()
  endif()
  target_compile_options(${name} PRIVATE $<$<COMPILE_LANGUAGE:CXX>:-fpch-preprocess>)  # ccache asks for it
  get_property(first GLOBAL PROPERTY llm_precompiled_${group})
  if(first)
    target_precompile_headers(${name} REUSE_FROM ${first})
    return()
  endif()
  set_property(GLOBAL PROPERTY llm_precompiled_${group} ${name})
  set(headers algorithm array functional map memory optional random set span string string_view thread unordered_map vector)
  list(APPEND headers ${ARGN})
  list(TRANSFORM headers REPLACE ".+" "<\\0>")
  target_precompile_headers(${name} PRIVATE ${headers})
endfunction()

# llm_unit_test(NAME sources… LIBS libraries…): one GoogleTest program, its cases registered with ctest.
function(llm_unit_test name)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} llm_options GTest::gtest_main GTest::gmock Threads::Threads)
  llm_precompile(${name} test gtest/gtest.h)
  gtest_discover_tests(${name} DISCOVERY_TIMEOUT 60 PROPERTIES TIMEOUT 300)
endfunction()

# llm_fuzz_target(NAME sources… LIBS libraries…): one libFuzzer program; seeds live in tests/fuzz/corpus/NAME. The target
# llm_fuzz_targets is all of them.
function(llm_fuzz_target name)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  add_executable(${name} ${ARG_UNPARSED_ARGUMENTS})
  target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  target_link_libraries(${name} PRIVATE ${ARG_LIBS} llm_options Threads::Threads)
  if(NOT TARGET llm_fuzz_targets)
    add_custom_target(llm_fuzz_targets)
  endif()
  add_dependencies(llm_fuzz_targets ${name})
endfunction()
