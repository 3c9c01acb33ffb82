# skald_emulated_sources(TARGET FILE.cu ...)
#
# Adds CUDA sources to a target, compiled by the C++ compiler for the emulated device: SKALD_EMULATED is defined, the
# repository, tests/ and the emulated cuda_runtime_api.h are on the include path, and the target links the emulated
# runtime. For targets of this directory and those below tests/ (the language C++ is on there only). The same files may be
# compiled by nvcc for another target: what is compiled here is a file in the build folder that includes them.
#
# C sources of the same target that include <cuda_runtime_api.h> get the emulated one.
set(SKALD_EMULATED_DIR ${CMAKE_CURRENT_LIST_DIR})
# float4 read through float *, #pragma unroll. Time goes into switching fibers: what more than -O1 adds costs more than it
# wins.
set(SKALD_EMULATED_OPTIONS -Wno-cast-align -Wno-unknown-pragmas "$<$<CONFIG:Release,RelWithDebInfo>:-O1>")
if(SKALD_SANITIZE MATCHES address AND CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # the same checks, called and not written out
  list(APPEND SKALD_EMULATED_OPTIONS --param=asan-instrumentation-with-call-threshold=200)
endif()
function(skald_emulated_sources target)
  foreach(source ${ARGN})
    get_filename_component(path ${source} ABSOLUTE)
    file(RELATIVE_PATH name ${CMAKE_SOURCE_DIR} ${path})
    set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/emulated/${target}/${name}.cc)
    file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${path}\"\n" @ONLY)
    target_sources(${target} PRIVATE ${wrapper})
    set_source_files_properties(${wrapper} PROPERTIES COMPILE_OPTIONS "${SKALD_EMULATED_OPTIONS}")
  endforeach()
  target_compile_definitions(${target} PRIVATE SKALD_EMULATED)
  target_include_directories(${target} BEFORE PRIVATE ${SKALD_EMULATED_DIR}/include ${SKALD_EMULATED_DIR}/..
                                                      ${CMAKE_SOURCE_DIR})
  target_link_libraries(${target} PRIVATE skald_emulated)
  set_target_properties(${target} PROPERTIES CXX_STANDARD 17)
endfunction()
