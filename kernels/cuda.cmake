# The CUDA plugin, libskald_cuda.so: kernels by nvcc, host half in C, static cudart, one exported function. Without nvcc
# nothing of this is built, and nothing else changes.
set(SKALD_CUDA AUTO CACHE STRING "Build the CUDA plugin: AUTO (if there is nvcc), ON, OFF")
set_property(CACHE SKALD_CUDA PROPERTY STRINGS AUTO ON OFF)

# The plugin's own copies of what it needs of the layers below; tests/emulated builds from the same lists.
file(GLOB SKALD_CUDA_HOST CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/compute/cuda/*.c)
file(GLOB SKALD_CUDA_KERNELS CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/kernels/*.cu)
list(APPEND SKALD_CUDA_HOST ${CMAKE_SOURCE_DIR}/src/compute/checks.c ${CMAKE_SOURCE_DIR}/src/base/base.c
     ${CMAKE_SOURCE_DIR}/src/base/status.c ${CMAKE_SOURCE_DIR}/src/data/rows.c
     ${CMAKE_SOURCE_DIR}/src/collective/nccl.c)

set(SKALD_HAVE_NVCC OFF)
if(NOT SKALD_CUDA STREQUAL "OFF" AND NOT SKALD_SANITIZE) # the sanitizers see the emulated one
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    set(SKALD_HAVE_NVCC ON)
  elseif(NOT SKALD_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "SKALD_CUDA=ON, but there is no nvcc: put it on PATH, or set CUDACXX")
  endif()
endif()

if(SKALD_HAVE_NVCC)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES "80-real;90")
  endif()
  enable_language(CUDA)
  if(NOT TARGET CUDA::nvToolsExt) # which CUDA 13 does not have, and without which CMake 3.25.1 (Debian 12) stumbles
    add_library(CUDA::nvToolsExt INTERFACE IMPORTED)
  endif()
  find_package(CUDAToolkit REQUIRED)
  add_library(skald_cuda SHARED ${SKALD_CUDA_HOST} ${SKALD_CUDA_KERNELS})
  target_include_directories(skald_cuda PRIVATE include src ${CMAKE_SOURCE_DIR})
  target_link_libraries(skald_cuda PRIVATE CUDA::cudart_static Threads::Threads m ${CMAKE_DL_LIBS})
  target_link_options(skald_cuda PRIVATE -Wl,--exclude-libs,ALL -Wl,-z,defs)
  # the bits of updates are those of the host's vectors
  set_source_files_properties(${CMAKE_SOURCE_DIR}/kernels/vectors.cu PROPERTIES COMPILE_OPTIONS -fmad=false)
  # A spill to local memory costs more than any kernel can win: an error.
  target_compile_options(
    skald_cuda PRIVATE "$<$<COMPILE_LANGUAGE:CUDA>:-Xptxas=-warn-spills,-warn-lmem-usage,-Werror;-Xcompiler=-fvisibility=hidden,-Wall;-lineinfo>")
  set_target_properties(
    skald_cuda PROPERTIES CUDA_STANDARD 17 CUDA_RUNTIME_LIBRARY Static LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}
                          POSITION_INDEPENDENT_CODE ON)
  install(TARGETS skald_cuda LIBRARY DESTINATION lib)
endif()
